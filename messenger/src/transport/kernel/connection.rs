//! One connection: a socket, its endpoint, and what is between them.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use outrider_drivers::kernel_socket::{
    TcpInformation, set_congestion_control, set_reset_on_close, set_unsent_low_water, set_user_timeout,
};
use outrider_stack::endpoint::{Directive, Endpoint, Established, Waker};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::Blocked;
use outrider_stack::time::{Clock, Instant};

use super::KernelConfig;
use super::failure::of_connecting;
use super::flight::Flight;
use super::outgoing::{Outgoing, Scratch};

/// While something is not acknowledged, the kernel is asked after this time whether it is now, for it tells of itself
/// only when there is room again. Doubled for each time in vain, up to the second.
pub(super) const ACK_LOOK_MIN: Duration = Duration::from_millis(1);
const ACK_LOOK_MAX: Duration = Duration::from_millis(32);

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The handshake is under way.
    Connecting {
        /// When it is given up.
        deadline: Instant,
    },
    /// Another process dialled; the handshake is over.
    Accepted,
    /// Both ends may send.
    Open,
}

/// What a turn leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// There is more to do now; others may go first.
    pub(super) again: bool,
    /// When to look again at the latest.
    pub(super) deadline: Option<Instant>,
}

/// What every turn on a worker uses.
pub(super) struct Tools<'a> {
    pub(super) clock: &'a dyn Clock,
    /// Where received bytes go first.
    pub(super) buffer: &'a mut [u8],
    /// Where bytes are cut.
    pub(super) scratch: &'a mut Scratch,
    /// Bytes read and cut so far, by all whose turn it was.
    pub(super) moved: usize,
    /// What was read was a part of a chunk of which much is still to come.
    pub(super) awaits_long: bool,
    /// Something was sent: whoever sends more of it is told by epoll when it may.
    pub(super) sent: bool,
}

/// A connection on its worker.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) endpoint: Box<dyn Endpoint>,
    pub(super) config: Arc<KernelConfig>,
    pub(super) waker: Waker,
    remote: SocketAddr,
    phase: Phase,
    /// Waits for its turn.
    pub(super) queued: bool,
    woken: bool,
    /// A read may give something.
    pub(super) readable: bool,
    /// The endpoint had a place for what was read last.
    pub(super) placing: bool,
    /// The kernel has said that there will be no more to read: a short read need not be the last.
    pub(super) hung_up: bool,
    failed: bool,
    pub(super) peer_finished: bool,
    /// This end has finished: when to give the peer up.
    pub(super) finish_deadline: Option<Instant>,
    pub(super) outgoing: Outgoing,
    pub(super) flight: Flight,
    /// Where the last cut ended that went out of band into a full socket.
    pub(super) overtaken_end: u64,
    pub(super) information: TcpInformation,
    pub(super) informed_at: Option<Instant>,
    pub(super) blocked: Blocked,
    /// When the endpoint was last asked for its demand.
    pub(super) asked_at: Instant,
    pub(super) ack_look: Duration,
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        remote: SocketAddr,
        phase: Phase,
        endpoint: Box<dyn Endpoint>,
        waker: Waker,
        config: Arc<KernelConfig>,
    ) -> Self {
        Connection {
            socket,
            endpoint,
            config,
            waker,
            remote,
            phase,
            queued: false,
            woken: false,
            readable: true,
            placing: false,
            hung_up: false,
            failed: false,
            peer_finished: false,
            finish_deadline: None,
            outgoing: Outgoing::default(),
            flight: Flight::default(),
            overtaken_end: 0,
            information: TcpInformation::default(),
            informed_at: None,
            blocked: Blocked::Nothing,
            asked_at: Instant::ZERO,
            ack_look: ACK_LOOK_MIN,
        }
    }

    /// Sets the options of a new socket. What the system refuses is told and done without, but for the congestion
    /// control: who chose one wants that one.
    pub(super) fn configure(socket: &TcpStream, config: &KernelConfig) -> std::io::Result<()> {
        if let Some(name) = &config.congestion {
            set_congestion_control(socket, name)?;
        }
        let low_water =
            config.unsent_low_water_bytes.map_or(Ok(()), |bytes| set_unsent_low_water(socket, bytes));
        let options = [socket.set_nodelay(true), low_water, set_user_timeout(socket, config.user_timeout)];
        for error in options.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a socket option was refused");
        }
        Ok(())
    }

    /// Input: epoll has told something.
    pub(super) fn on_event(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed();
        self.hung_up |= event.is_read_closed();
        self.failed |= event.is_error();
    }

    /// Input: the waker was called.
    pub(super) fn on_wake(&mut self) {
        self.woken = true;
    }

    /// Does what can be done now, within the bounds of one turn.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn turn(&mut self, tools: &mut Tools<'_>) -> Result<Next, CloseReason> {
        if core::mem::take(&mut self.woken) {
            self.waker.clear();
            self.endpoint.on_wake(tools.clock.now());
            self.obey()?;
        }
        if self.phase != Phase::Open && !self.establish(tools.clock.now())? {
            return Ok(Next { again: false, deadline: self.deadline() });
        }
        let more_to_read = self.receive(tools)?;
        self.check_failure()?;
        self.look_for_acks(tools.clock.now())?;
        let more_to_send = self.send(tools)?;
        self.finish(tools.clock.now())?;
        // Sending may have made room for receiving.
        let again = more_to_send || (self.readable && !self.peer_finished && self.endpoint.room() > 0);
        debug_assert!(!more_to_read || again, "what may be read is read in the next turn");
        Ok(Next { again, deadline: self.deadline() })
    }

    /// Asks the endpoint what shall be done with the connection.
    pub(super) fn obey(&mut self) -> Result<(), CloseReason> {
        match self.endpoint.directive() {
            Directive::Continue => Ok(()),
            Directive::Abort => Err(CloseReason::Aborted),
        }
    }

    /// Whether the handshake is over.
    fn establish(&mut self, now: Instant) -> Result<bool, CloseReason> {
        if let Some(error) = self.socket.take_error().unwrap_or_else(Some) {
            return Err(of_connecting(&error));
        }
        if self.socket.peer_addr().is_err() {
            return match self.phase {
                Phase::Connecting { deadline } if now < deadline => Ok(false),
                Phase::Connecting { .. } => Err(CloseReason::ConnectTimeout),
                // It was there, and has been reset since.
                Phase::Accepted | Phase::Open => Err(CloseReason::Reset),
            };
        }
        self.phase = Phase::Open;
        let local = self.socket.local_addr().map_err(|error| of_connecting(&error))?;
        let segment_size = self.config.chunk_bytes_max;
        self.endpoint.on_established(now, &Established { local, remote: self.remote, segment_size });
        self.obey()?;
        Ok(true)
    }

    /// An error that no read has brought, because the endpoint takes nothing at present.
    fn check_failure(&mut self) -> Result<(), CloseReason> {
        if self.failed && (!self.readable || self.endpoint.room() == 0) {
            self.failed = false;
            if let Some(error) = self.socket.take_error().unwrap_or_else(Some) {
                return Err(super::failure::of_connected(&error));
            }
        }
        Ok(())
    }

    /// When to look again if nothing happens before.
    fn deadline(&self) -> Option<Instant> {
        // What was due when the endpoint was asked is no timer: it waits for room, and epoll tells of that.
        let demand = self.endpoint.next_demand().filter(|due| *due > self.asked_at);
        let connecting = match self.phase {
            Phase::Connecting { deadline } => Some(deadline),
            Phase::Accepted | Phase::Open => None,
        };
        let ack = (self.flight.outstanding() > 0).then(|| self.asked_at + self.ack_look);
        [demand, connecting, ack, self.finish_deadline].into_iter().flatten().min()
    }

    /// Something was acknowledged, or nothing was again.
    pub(super) fn pace_ack_looks(&mut self, news: bool) {
        self.ack_look = if news { ACK_LOOK_MIN } else { (self.ack_look * 2).min(ACK_LOOK_MAX) };
    }

    /// The connection is over: resets it unless both sides have finished, and tells the endpoint.
    pub(super) fn end(mut self, now: Instant, reason: CloseReason) {
        if reason != CloseReason::Finished
            && let Err(error) = set_reset_on_close(&self.socket)
        {
            tracing::debug!(%error, "a socket could not be made to reset its connection");
        }
        self.endpoint.on_closed(now, reason);
    }
}
