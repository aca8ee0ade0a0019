//! Two smoltcp interfaces with its own TCP sockets on the same cable, in virtual time.
//!
//! smoltcp counts whole microseconds, so its frames are seen up to one later than they arrive.

use outrider_drivers::memory::{LinkConfig, MemoryPort};
use outrider_drivers::port::Port;
use outrider_drivers::smoltcp_adapter::{PortDevice, from_smoltcp, to_smoltcp};
use outrider_drivers::time::Instant;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::flow::{CONTENT, Meter};
use super::world::{Counters, Hosts, plug};
use crate::error::BenchError;

const SENDER: IpAddress = IpAddress::v4(10, 77, 0, 1);
const RECEIVER: IpAddress = IpAddress::v4(10, 77, 0, 2);
const PREFIX: u8 = 24;
/// A socket accepts one connection, so each has a port of its own; so has each end that connects.
const FIRST_PORT: u16 = 1_024;

struct Host {
    interface: Interface,
    device: PortDevice<MemoryPort>,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    next: Option<Instant>,
}

impl Host {
    fn new(address: IpAddress, port: MemoryPort, seed: u64) -> Result<Self, BenchError> {
        let mac = EthernetAddress(port.info().mac);
        let mut device = PortDevice::new(port);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, to_smoltcp(Instant::ZERO));
        let mut room = true;
        interface.update_ip_addrs(|addresses| room = addresses.push(IpCidr::new(address, PREFIX)).is_ok());
        if !room {
            return Err(BenchError::failed(
                "smoltcp's interface takes no address; build it with room for one",
            ));
        }
        let sockets = SocketSet::new(Vec::new());
        Ok(Host { interface, device, sockets, handles: Vec::new(), next: None })
    }

    fn add_socket(&mut self, buffer_bytes: usize, endless: bool) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; buffer_bytes]);
        let mut socket = Socket::new(buffer(), buffer());
        // What is fed leaves at once, as with our stack; bulk is better off with full segments.
        socket.set_nagle_enabled(endless);
        let handle = self.sockets.add(socket);
        self.handles.push(handle);
        handle
    }

    fn next_event(&self, now: Instant) -> Option<Instant> {
        [self.next, self.device.next_arrival(now)].into_iter().flatten().min()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next_event(now).is_some_and(|at| at <= now)
    }

    fn poll(&mut self, now: Instant) -> Result<(), BenchError> {
        self.interface.poll(to_smoltcp(now), &mut self.device, &mut self.sockets);
        self.device.flush(now).map_err(|error| BenchError::failed(format!("the cable failed: {error}")))
    }

    /// Asks when to poll next: after everything that may have changed it.
    fn look_ahead(&mut self, now: Instant) {
        self.next = self.interface.poll_at(to_smoltcp(now), &self.sockets).map(from_smoltcp);
    }
}

/// The pair.
pub(super) struct SmoltcpPair {
    sender: Host,
    receiver: Host,
    received: Meter,
    /// Connections send without end; otherwise what they are fed.
    endless: bool,
    buffer_bytes: usize,
    established: usize,
    /// The connection on which the next bytes will arrive: they are fed in turn, so that no time goes into looking
    /// for the socket that has some.
    reading: usize,
    /// What a connection is fed at its turn, and what of that has arrived on that connection.
    turn_bytes: usize,
    turn_read_bytes: usize,
}

impl SmoltcpPair {
    pub(super) fn new(
        link: &LinkConfig,
        buffer_bytes: usize,
        endless: bool,
        seed: u64,
    ) -> Result<Self, BenchError> {
        let (near, far) = plug(link, seed);
        Ok(SmoltcpPair {
            sender: Host::new(SENDER, near, seed)?,
            receiver: Host::new(RECEIVER, far, seed.wrapping_add(1))?,
            received: Meter::default(),
            endless,
            buffer_bytes,
            established: 0,
            reading: 0,
            turn_bytes: 0,
            turn_read_bytes: 0,
        })
    }

    /// The sending application. Returns whether it did something.
    fn write(&mut self) -> bool {
        let Some(handle) = self.sender.handles.first().filter(|_| self.endless) else { return false };
        let socket = self.sender.sockets.get_mut::<Socket<'_>>(*handle);
        let mut wrote = false;
        while socket.can_send() {
            // `send` lends the free part of the buffer up to its wrapping point.
            let written = socket.send(|buffer| {
                let length = buffer.len().min(CONTENT.len());
                buffer[..length].copy_from_slice(&CONTENT[..length]);
                (length, length)
            });
            wrote |= written.is_ok_and(|length| length > 0);
        }
        wrote
    }

    /// The receiving application. Returns whether it did something.
    fn read(&mut self, now: Instant) -> bool {
        let mut taken = false;
        while let Some(handle) = self.receiver.handles.get(self.reading) {
            let socket = self.receiver.sockets.get_mut::<Socket<'_>>(*handle);
            if !socket.can_recv() {
                break;
            }
            let lacking = match self.turn_bytes {
                0 => usize::MAX,
                turn => turn - self.turn_read_bytes,
            };
            let read =
                socket.recv(|buffer| (buffer.len().min(lacking), buffer.len().min(lacking))).unwrap_or(0);
            self.received.delivered(now, read);
            taken = true;
            if read < lacking {
                self.turn_read_bytes += read;
                continue;
            }
            self.turn_read_bytes = 0;
            self.reading = (self.reading + 1) % self.receiver.handles.len();
        }
        taken
    }
}

impl Hosts for SmoltcpPair {
    fn connect(&mut self, now: Instant) -> Result<(), BenchError> {
        let index = self.sender.handles.len();
        let unable = |what: &str| BenchError::failed(format!("smoltcp cannot {what} connection {index}"));
        let port = u16::try_from(index)
            .ok()
            .and_then(|index| FIRST_PORT.checked_add(index))
            .ok_or_else(|| BenchError::usage("smoltcp has too few ports for so many --connections"))?;
        let listening = self.receiver.add_socket(self.buffer_bytes, self.endless);
        let socket = self.receiver.sockets.get_mut::<Socket<'_>>(listening);
        socket.listen(port).map_err(|_| unable("listen for"))?;
        let connecting = self.sender.add_socket(self.buffer_bytes, self.endless);
        let socket = self.sender.sockets.get_mut::<Socket<'_>>(connecting);
        socket
            .connect(self.sender.interface.context(), (RECEIVER, port), port)
            .map_err(|_| unable("begin"))?;
        self.sender.next = Some(now);
        Ok(())
    }

    fn established(&mut self) -> usize {
        // They open in the order in which they were begun, but for losses: then the count comes later.
        while let Some(handle) = self.sender.handles.get(self.established) {
            if !self.sender.sockets.get::<Socket<'_>>(*handle).may_send() {
                break;
            }
            self.established += 1;
        }
        self.established
    }

    fn feed(&mut self, now: Instant, index: usize, bytes: usize) {
        let socket = self.sender.sockets.get_mut::<Socket<'_>>(self.sender.handles[index]);
        // What finds no room is not sent; the counters tell.
        let _ = socket.send_slice(&CONTENT[..bytes]);
        self.turn_bytes = bytes;
        self.sender.next = Some(now);
    }

    fn poll(&mut self, now: Instant) -> Result<bool, BenchError> {
        let mut busy = false;
        if self.sender.is_due(now) {
            busy = true;
            self.sender.poll(now)?;
            if self.write() {
                self.sender.next = Some(now);
            } else {
                self.sender.look_ahead(now);
            }
        }
        if self.receiver.is_due(now) {
            busy = true;
            self.receiver.poll(now)?;
            self.read(now);
            self.receiver.look_ahead(now);
        }
        Ok(busy)
    }

    fn next_event(&self, now: Instant) -> Option<Instant> {
        [&self.sender, &self.receiver].into_iter().filter_map(|host| host.next_event(now)).min()
    }

    fn received(&self) -> &Meter {
        &self.received
    }

    fn counters(&self, _now: Instant) -> Counters {
        Counters {
            bytes: self.received.bytes(),
            ..Counters::of_ports(self.sender.device.port(), self.receiver.device.port())
        }
    }
}
