//! AF_XDP: frames past the kernel's network stack, by rings that a queue of an interface shares with this process.
//!
//! [`AfXdp::open`] makes a port for each queue: a socket with frame memory of its own (UMEM), and one XDP program, one
//! map and one BPF link for all of them. The program decides by [`Take`] which frames go to the ports; a frame on a
//! queue without a port goes to the kernel. Everything is held by descriptors only, so it goes away with the process,
//! however that ends.
//!
//! What is best is tried first: the program in the driver, then in the generic hook; frames without a copy, then with
//! one; huge pages, then ordinary ones. What came of it is in [`AfXdpInfo`].
//!
//! Capabilities: CAP_NET_RAW (the socket), CAP_BPF and CAP_NET_ADMIN (the program), and CAP_IPC_LOCK or a sufficient
//! RLIMIT_MEMLOCK (the frame memory).

mod assembler;
mod attach;
mod bpf;
mod error;
mod metadata;
mod netlink;
mod options;
mod patience;
mod port;
mod program;
mod rings;
mod slots;
mod socket;
#[cfg(test)]
mod tests;
mod umem;
mod watch;

use core::time::Duration;
use std::io;
use std::sync::Arc;

pub use self::error::AfXdpError;
pub use self::options::{AfXdpInfo, AfXdpOptions, Attach, Attached, CopyMode, Take};
pub use self::port::{AfXdpPort, AfXdpStatistics};

use self::attach::Attachment;
use self::metadata::METADATA_BYTES;
use self::options::{ETHERNET_HEADER_BYTES, Layout, VLAN_TAG_BYTES};
use self::patience::patiently;
use self::port::State;
use self::slots::Slots;
use self::socket::{RingSizes, XdpSocket};
use self::umem::Umem;
use self::watch::Watch;
use crate::interface::Interface;
use crate::port::{Capabilities, PortInfo};
use crate::rss::{self, Rss};

/// The kernel gives a queue back a moment after its socket was closed: so long a queue that is taken is tried again.
const QUEUE_PATIENCE: Duration = Duration::from_secs(2);
/// What a copied frame is charged to the send buffer besides its bytes: the kernel's own structures.
const FRAME_OVERHEAD_BYTES: usize = 1024;

/// Opens ports.
#[derive(Clone, Copy, Debug)]
pub struct AfXdp;

impl AfXdp {
    /// Takes over queues of an interface of the calling thread's network namespace, one port each, in the order of
    /// `options.queues`. The ports may go to different threads.
    ///
    /// # Errors
    /// See [`AfXdpError`]: each tells what is wrong and what would help.
    pub fn open(interface: &str, options: &AfXdpOptions) -> Result<Vec<AfXdpPort>, AfXdpError> {
        options.check(interface)?;
        let device = Device::look_at(interface)?;
        let queues = device.choose_queues(options)?;
        let layout = options.layout(interface, device.mtu)?;
        let opening = Opening { device: &device, options, layout };
        // Before the program: without the right to make a socket nothing has to be attached and detached again.
        let sockets: Vec<XdpSocket> = queues.iter().map(|_| opening.socket()).collect::<Result<_, _>>()?;
        let map_size = queues.iter().max().map_or(1, |highest| highest + 1).max(device.queues.unwrap_or(1));
        let attachment = Attachment::new(interface, device.index, map_size, layout.multi_buffer, options)?;
        let attachment = Arc::new(attachment);
        let ports = queues.iter().zip(sockets);
        ports.map(|(queue, socket)| opening.port(*queue, socket, &attachment)).collect()
    }
}

/// An interface as it was found.
struct Device {
    name: String,
    index: u32,
    mtu: usize,
    mac: [u8; 6],
    /// Receive queues, where the driver tells.
    queues: Option<u32>,
    tx_checksum: bool,
    /// How it spreads flows over its queues, where the driver tells.
    rss: Option<Rss>,
}

impl Device {
    fn look_at(name: &str) -> Result<Self, AfXdpError> {
        let failed = |operation| move |source| AfXdpError::of(name, operation, "CAP_NET_ADMIN", source);
        let no_such = || AfXdpError::NoSuchInterface { interface: name.to_owned() };
        let interface = Interface::new(name).map_err(failed("making a socket to look at the interface"))?;
        if !interface.exists() {
            return Err(no_such());
        }
        if !interface.is_up().map_err(failed("reading the flags"))? {
            return Err(AfXdpError::InterfaceDown { interface: name.to_owned() });
        }
        let index = interface.index().map_err(failed("reading the index"))?;
        Ok(Device {
            name: name.to_owned(),
            index,
            mtu: interface.mtu().map_err(failed("reading the MTU"))?,
            mac: interface.mac().map_err(failed("reading the address"))?,
            queues: interface.receive_queues(),
            tx_checksum: netlink::offers_tx_checksum(index),
            // A driver that does not tell leaves its user with handing frames over.
            rss: rss::of_interface(name).ok(),
        })
    }

    fn choose_queues(&self, options: &AfXdpOptions) -> Result<Vec<u32>, AfXdpError> {
        if options.queues.is_empty() {
            return Ok((0..self.queues.unwrap_or(1)).collect());
        }
        match options.queues.iter().find(|queue| self.queues.is_some_and(|queues| **queue >= queues)) {
            Some(&queue) => Err(self.no_such_queue(queue)),
            None => Ok(options.queues.clone()),
        }
    }

    fn no_such_queue(&self, queue: u32) -> AfXdpError {
        AfXdpError::NoSuchQueue { interface: self.name.clone(), queue, queues: self.queues }
    }
}

/// The ports of one interface being opened.
struct Opening<'a> {
    device: &'a Device,
    options: &'a AfXdpOptions,
    layout: Layout,
}

impl Opening<'_> {
    fn failed(&self, operation: &'static str, capability: &'static str) -> impl Fn(io::Error) -> AfXdpError {
        let interface = self.device.name.clone();
        move |source| AfXdpError::of(&interface, operation, capability, source)
    }

    fn socket(&self) -> Result<XdpSocket, AfXdpError> {
        XdpSocket::new().map_err(|source| match source.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => AfXdpError::NotSupported,
            _ => self.failed("making an AF_XDP socket", "CAP_NET_RAW")(source),
        })
    }

    fn port(
        &self,
        queue: u32,
        socket: XdpSocket,
        attachment: &Arc<Attachment>,
    ) -> Result<AfXdpPort, AfXdpError> {
        let Device { name, mtu, mac, tx_checksum, .. } = self.device;
        let umem = Umem::new(self.options, self.layout)
            .map_err(self.failed("mapping frame memory", "more memory"))?;
        self.register(&socket, &umem)?;
        let tx_chunks = umem.tx_slots() * self.layout.chunks_per_tx_frame as u32;
        let rx = self.options.rx_frames;
        let sizes = RingSizes { rx, fill: 2 * rx, tx: 2 * tx_chunks.next_power_of_two() };
        let mut rings = socket.rings(sizes).map_err(self.failed("making rings", "CAP_NET_RAW"))?;
        let frame_bytes = mtu + ETHERNET_HEADER_BYTES;
        socket.allow_send_buffer(umem.tx_slots() as usize * (frame_bytes + FRAME_OVERHEAD_BYTES));
        if let Some(how) = self.options.busy_poll {
            how.prefer_on(&socket).map_err(self.failed("asking for busy polling", "CAP_NET_ADMIN"))?;
        }
        self.bind(&socket, queue, attachment.attached)?;
        let zero_copy = socket.is_zero_copy().map_err(self.failed("reading the copy mode", "CAP_NET_RAW"))?;
        for address in umem.rx_addresses() {
            let filled = rings.fill.push(address);
            assert!(filled, "the fill ring has a place for every chunk");
        }
        rings.fill.publish();
        let watch = Watch::new(&socket).map_err(self.failed("watching the interface", "CAP_NET_ADMIN"))?;
        attachment.insert(queue, &socket).map_err(self.failed("adding a socket to the map", "CAP_BPF"))?;

        let assembly_bytes = if self.layout.multi_buffer { frame_bytes + VLAN_TAG_BYTES } else { 0 };
        let details = AfXdpInfo {
            interface: name.clone(),
            queue,
            attached: attachment.attached,
            native_refused: attachment.native_refused.clone(),
            zero_copy,
            huge_pages: umem.huge_pages(),
            chunk_bytes: self.layout.chunk_bytes,
            multi_buffer: self.layout.multi_buffer,
            busy_poll: self.options.busy_poll.is_some(),
            tx_checksum: *tx_checksum,
        };
        tracing::info!(port = %details, "AF_XDP port opened");
        Ok(AfXdpPort {
            info: PortInfo {
                name: format!("afxdp:{name}:{queue}"),
                mac: *mac,
                mtu: *mtu,
                capabilities: Capabilities { tx_checksum: *tx_checksum, tx_segment_bytes_max: 0 },
            },
            details,
            rss: self.device.rss.clone(),
            slots: Slots::new(umem.tx_slots()),
            rings,
            umem,
            watch,
            socket,
            state: State::new(assembly_bytes),
            _attachment: Arc::clone(attachment),
        })
    }

    fn register(&self, socket: &XdpSocket, umem: &Umem) -> Result<(), AfXdpError> {
        let metadata_bytes = if self.device.tx_checksum { METADATA_BYTES as u32 } else { 0 };
        socket.register(umem, metadata_bytes).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOBUFS) => AfXdpError::LockedMemory {
                interface: self.device.name.clone(),
                needed_bytes: umem.length() as u64,
                limit_bytes: umem::locked_bytes_max(),
            },
            _ => self.failed("registering frame memory", "CAP_NET_RAW")(source),
        })
    }

    fn bind(&self, socket: &XdpSocket, queue: u32, attached: Attached) -> Result<(), AfXdpError> {
        let refused = |reason: &str| AfXdpError::ZeroCopyRefused {
            interface: self.device.name.clone(),
            queue,
            reason: reason.to_owned(),
        };
        let mut flags = libc::XDP_USE_NEED_WAKEUP;
        if self.layout.multi_buffer {
            flags |= libc::XDP_USE_SG;
        }
        match (self.options.copy, attached) {
            (CopyMode::ZeroCopy, Attached::Generic) => {
                return Err(refused("the program runs in generic mode"));
            }
            (CopyMode::ZeroCopy, Attached::Native) => flags |= libc::XDP_ZEROCOPY,
            // The generic hook copies; the driver must not be told otherwise.
            (CopyMode::Copy, _) | (_, Attached::Generic) => flags |= libc::XDP_COPY,
            (CopyMode::Automatic, Attached::Native) => {}
        }
        patiently(QUEUE_PATIENCE, || socket.bind(self.device.index, queue, flags)).map_err(|source| {
            match source.raw_os_error() {
                Some(libc::EBUSY) => AfXdpError::QueueTaken { interface: self.device.name.clone(), queue },
                Some(libc::EOPNOTSUPP) if self.options.copy == CopyMode::ZeroCopy => {
                    refused("the driver has none")
                }
                Some(libc::EINVAL) if self.device.queues.is_none() => self.device.no_such_queue(queue),
                _ => self.failed("binding an AF_XDP socket to a queue", "CAP_NET_RAW")(source),
            }
        })
    }
}
