//! Sessions over ordinary kernel TCP sockets: the transport of a host without a network card of its own for this.
//!
//! The wire format is that of the userspace transport, so either end of a connection may be either. What differs:
//!
//! - What is written to a socket is past recall, so as little as possible is: bytes are cut only when the kernel has
//!   less than [`KernelConfig::unsent_low_water_bytes`] unsent, and only as many as leave within
//!   [`KernelConfig::chunk_time`] or so. What is due out of band is cut at once all the same, one message at a time.
//! - The peer delivers in order only, because the kernel does: nothing arrives ahead of a gap.
//! - `bytes_in_flight` is everything written and not acknowledged, what the kernel has not sent yet included.
//!
//! Threads: [`KernelConfig::workers`] of them, each with an epoll of its own and the connections that it dialled or was
//! given. An endpoint is called on its worker only.

mod command;
mod connection;
mod failure;
mod flight;
mod listener;
mod outgoing;
mod receiving;
mod sending;
mod worker;

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::bounded;
use outrider_stack::endpoint::{Acceptor, Endpoint};
use outrider_stack::mailbox::Refused;
use outrider_stack::time::{Clock, MonotonicClock};

use super::{ConnectRefused, Listening, Transport, TransportError};
use command::{Command, Mailbox, Shared};
use worker::Worker;

pub use listener::ListenFailed;

/// Parameters of the kernel transport.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Threads. Connections dialled or accepted go to them in turn.
    pub workers: usize,
    /// `TCP_NOTSENT_LOWAT`: the kernel takes bytes only while fewer than this many are unsent. `None` leaves the socket
    /// as the system has it, which queues megabytes: for comparison.
    pub unsent_low_water_bytes: Option<u32>,
    /// What is cut at a time leaves within this time, by the delivery rate that the kernel has measured and what was
    /// acknowledged over the last 10 ms, whichever is less; see
    /// [`Self::chunk_bytes_min`] and [`Self::chunk_bytes_max`].
    pub chunk_time: Duration,
    /// Cut at a time at least, bytes, where there is so much.
    pub chunk_bytes_min: usize,
    /// Cut at a time at most, bytes.
    pub chunk_bytes_max: usize,
    /// Congestion control of every connection, by the kernel's name for it; `None` leaves the system's choice.
    pub congestion: Option<String>,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`, RFC 5482).
    pub user_timeout: Duration,
    /// After this end has finished: how long the peer may take to acknowledge everything and to finish too. Every byte
    /// that it acknowledges or sends meanwhile starts the time anew.
    pub finish_timeout: Duration,
    /// How long a worker polls on after it has moved bytes in bulk, since more is likely to follow before a sleep and a
    /// wake-up would be over.
    pub spin: Duration,
}

impl Default for KernelConfig {
    fn default() -> Self {
        KernelConfig {
            workers: 1,
            unsent_low_water_bytes: Some(16 << 10),
            chunk_time: Duration::from_micros(100),
            chunk_bytes_min: 16 << 10,
            chunk_bytes_max: 192_000,
            congestion: None,
            connect_timeout: Duration::from_secs(10),
            user_timeout: Duration::from_secs(120),
            finish_timeout: Duration::from_secs(30),
            spin: Duration::from_micros(20),
        }
    }
}

/// Smallest chunk that is cut: it must hold the largest out-of-band message.
pub const CHUNK_BYTES_MIN: usize = 12 << 10;
/// Largest: a chunk in a socket is past recall.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Most threads.
pub const WORKERS_MAX: usize = 256;

/// Why a kernel transport could not be started.
#[derive(Debug, thiserror::Error)]
pub enum KernelStartError {
    /// No threads, or too many.
    #[error("{0} workers make no sense; give 1 to {WORKERS_MAX}")]
    Workers(usize),
    /// The sizes of a chunk contradict each other or are out of range.
    #[error(
        "chunks of {min} to {max} bytes make no sense; give {CHUNK_BYTES_MIN} to {CHUNK_BYTES_MAX}, the smaller first"
    )]
    ChunkBytes {
        /// Smallest asked for.
        min: usize,
        /// Largest asked for.
        max: usize,
    },
    /// The system is out of threads or descriptors.
    #[error("a worker of the kernel transport could not be started: {0}")]
    System(#[from] std::io::Error),
}

/// The transport over kernel sockets. Dropping it resets what is left of its connections and waits for its threads.
///
/// Its sockets belong to the network namespace of the thread that starts it.
pub struct Kernel {
    workers: Vec<Arc<Mailbox>>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
}

impl Kernel {
    /// Starts the threads.
    ///
    /// # Errors
    /// A parameter makes no sense, or the system refused.
    pub fn start(config: &KernelConfig) -> Result<Self, KernelStartError> {
        if !(1..=WORKERS_MAX).contains(&config.workers) {
            return Err(KernelStartError::Workers(config.workers));
        }
        let (min, max) = (config.chunk_bytes_min, config.chunk_bytes_max);
        if !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&min) || !(min..=CHUNK_BYTES_MAX).contains(&max) {
            return Err(KernelStartError::ChunkBytes { min, max });
        }
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock);
        let config = Arc::new(config.clone());
        let polls: std::io::Result<Vec<_>> = (0..config.workers).map(|_| mio::Poll::new()).collect();
        let polls = polls?;
        let mailbox = |poll| Ok(Arc::new(Mailbox::new(Shared::new(poll, Arc::clone(&clock))?)));
        let mailboxes: std::io::Result<Vec<_>> = polls.iter().map(mailbox).collect();
        // From here on dropping the transport ends the threads that have been started.
        let mut kernel = Kernel { workers: mailboxes?, threads: Vec::new(), next: AtomicUsize::new(0) };
        for (number, poll) in polls.into_iter().enumerate() {
            let worker = Worker::new(poll, number, kernel.workers.clone(), Arc::clone(&config))?;
            let name = format!("kernel{number}");
            let spawned = std::thread::Builder::new().name(name).spawn(move || worker.run());
            kernel.threads.push(spawned?);
        }
        Ok(kernel)
    }

    fn next_worker(&self) -> &Arc<Mailbox> {
        &self.workers[self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len()]
    }
}

impl Transport for Kernel {
    fn connect(&self, remote: SocketAddr, endpoint: Box<dyn Endpoint>) -> Result<(), ConnectRefused> {
        self.next_worker().post(Command::Connect { remote, endpoint }).map_err(|refused| {
            let (command, error) = match refused {
                Refused::Full(command) => (command, TransportError::Busy),
                Refused::Gone(command) => (command, TransportError::Gone),
            };
            match command {
                Command::Connect { endpoint, .. } => ConnectRefused { endpoint, error },
                Command::Adopt { .. } | Command::Listen { .. } => {
                    unreachable!("a refused command comes back as it was")
                }
            }
        })
    }

    fn listen_at(&self, local: SocketAddr, acceptor: Box<dyn Acceptor>) -> Result<Listening, TransportError> {
        let mailbox = self.next_worker();
        if mailbox.is_own_thread() {
            return Err(TransportError::Busy);
        }
        let (reply, answer) = bounded(1);
        mailbox.post(Command::Listen { local, acceptor, reply }).map_err(|refused| match refused {
            Refused::Full(_) => TransportError::Busy,
            Refused::Gone(_) => TransportError::Gone,
        })?;
        match answer.recv() {
            Ok(Ok((id, address))) => {
                let guard = listener::Guard::new(Arc::clone(mailbox), id);
                Ok(Listening { address, guard: Box::new(guard) })
            }
            Ok(Err(failed)) => Err(TransportError::Refused(Box::new(failed))),
            Err(_) => Err(TransportError::Gone),
        }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.workers.first().expect("there is a worker").resident().clock)
    }

    fn delivers_ahead(&self) -> bool {
        false
    }
}

impl Drop for Kernel {
    /// Ends every thread and waits for it; one that drops the transport itself ends on its own afterwards.
    ///
    /// # Panics
    /// With the panic of a worker, if one panicked.
    fn drop(&mut self) {
        for mailbox in &self.workers {
            mailbox.post_stop();
        }
        for thread in self.threads.drain(..) {
            if thread.thread().id() == std::thread::current().id() {
                continue;
            }
            if let Err(panic) = thread.join()
                && !std::thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("workers", &self.workers.len()).finish()
    }
}
