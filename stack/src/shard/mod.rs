//! The shard: one thread that owns one port queue and every connection on it.
//!
//! [`spawn`] starts the thread; a [`ShardHandle`] reaches it from any other by a bounded command queue, and wakes by
//! a queue that holds at most one wake per connection. Nothing on the shard's own path takes a lock. The thread
//! polls, and sleeps when there is nothing to do: see [`Polling`].

mod command;
mod group;
mod handle;
mod run;
pub mod segment;

use core::hash::{BuildHasher, Hasher};
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::sync::Arc;
use std::thread::JoinHandle;

use outrider_drivers::port::{Port, PortError, PortStatistics};

pub use group::{
    GroupConfig, GroupError, GroupHandle, GroupListener, GroupSnapshot, ShardGroup, spawn_group,
};
pub use handle::{ConnectError, ListenerGuard, ShardHandle, ShardSnapshot};

use crate::net::{Member, Stack, StackConfig, StackError, StackStatistics};
use crate::time::{Clock, MonotonicClock};
use command::{Mailbox, Shared};
use segment::Publisher;

/// What the thread does when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// It polls on, giving way to other threads that could run on its core. Quickest, and takes a whole core.
    Busy,
    /// It polls on for `spin` after the last work, then sleeps until a frame, a timer or a command.
    Adaptive {
        /// How long to poll on. A sleep costs some 50 us to wake up from.
        spin: Duration,
    },
}

impl Default for Polling {
    fn default() -> Self {
        Polling::Adaptive { spin: Duration::from_micros(50) }
    }
}

/// Parameters of a shard.
#[derive(Clone)]
pub struct ShardConfig {
    /// Name of the thread, for debuggers and logs.
    pub name: String,
    /// Parameters of its stack.
    pub stack: StackConfig,
    /// What it does when idle.
    pub polling: Polling,
    /// The core to be pinned to, as the system numbers them; `None` leaves it to the scheduler.
    pub core: Option<usize>,
    /// Secret of the stack: random, outside of tests.
    pub seed: u64,
    /// Where `now` comes from.
    pub clock: Arc<dyn Clock>,
}

impl ShardConfig {
    /// A shard as most want it: adaptive polling, no core of its own, a random secret, the monotonic clock.
    pub fn new(name: impl Into<String>, stack: StackConfig) -> Self {
        ShardConfig {
            name: name.into(),
            stack,
            polling: Polling::default(),
            core: None,
            // The standard library's hasher is keyed at random by the system.
            seed: RandomState::new().build_hasher().finish(),
            clock: Arc::new(MonotonicClock),
        }
    }
}

/// Why a shard could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The stack's parameters are wrong.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// There is no such core, or this process may not use it.
    #[error("core {core} is not among those this process may use: {available:?}")]
    NoSuchCore {
        /// What was asked for.
        core: usize,
        /// What there is.
        available: Vec<usize>,
    },
    /// The system did not pin the thread.
    #[error("the thread could not be pinned to core {core}")]
    Pinning {
        /// What was asked for.
        core: usize,
    },
    /// The system is out of threads or descriptors.
    #[error("the thread or its doorbell could not be made: {0}")]
    System(#[from] std::io::Error),
}

/// What a shard leaves behind.
#[derive(Debug)]
pub struct ShardReport {
    /// Final counters of the stack.
    pub statistics: StackStatistics,
    /// Final counters of the port.
    pub port: PortStatistics,
    /// CPU time of the thread.
    pub cpu_time: Duration,
    /// Why the port failed, if it did.
    pub error: Option<PortError>,
}

/// A running shard. Dropping it stops it like [`Shard::stop`], without the report.
#[derive(Debug)]
pub struct Shard {
    handle: ShardHandle,
    thread: Option<JoinHandle<ShardReport>>,
}

/// Starts a shard on `port`.
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn(port: Box<dyn Port>, config: ShardConfig) -> Result<Shard, SpawnError> {
    spawn_member(port, config, None, None)
}

/// The same for one of a group, or for one that publishes its statistics.
fn spawn_member(
    port: Box<dyn Port>,
    config: ShardConfig,
    member: Option<Member>,
    publisher: Option<Publisher>,
) -> Result<Shard, SpawnError> {
    let ShardConfig { name, stack, polling, core, seed, clock } = config;
    let mailbox = Arc::new(Mailbox::new(Shared::new(clock)?));
    let mut stack = Stack::new(stack, port.info(), seed)?;
    stack.set_wake_target(Arc::clone(&mailbox) as Arc<dyn crate::endpoint::WakeTarget>);
    if let Some(member) = member {
        let mailbox = Arc::clone(&mailbox);
        member.set_bell(Box::new(move || mailbox.ring()));
        stack.join(member);
    }
    let core = core.map(find_core).transpose()?;
    let (started, has_started) = crossbeam::channel::bounded(1);
    let runner = run::Runner::new(stack, port, polling, Arc::clone(&mailbox), publisher);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        let pinned = core.is_none_or(core_affinity::set_for_current);
        if started.send(pinned).is_err() || !pinned {
            return runner.give_up();
        }
        runner.run()
    })?;
    if !has_started.recv().unwrap_or(false) {
        let core = core.map_or(0, |core| core.id);
        return Err(SpawnError::Pinning { core });
    }
    Ok(Shard { handle: ShardHandle::new(mailbox), thread: Some(thread) })
}

/// Cores are looked up before the thread is pinned: afterwards only its own would be listed.
fn find_core(core: usize) -> Result<core_affinity::CoreId, SpawnError> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let available = || cores.iter().map(|core| core.id).collect();
    let found = cores.iter().find(|candidate| candidate.id == core).copied();
    found.ok_or_else(|| SpawnError::NoSuchCore { core, available: available() })
}

impl Shard {
    /// Reaches this shard from any thread.
    pub fn handle(&self) -> ShardHandle {
        self.handle.clone()
    }

    /// Resets every connection, lets the RSTs leave, ends the thread, and waits for it.
    ///
    /// # Panics
    /// If the thread panicked, with its message.
    pub fn stop(mut self) -> ShardReport {
        match self.finish() {
            Some(Ok(report)) => report,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => unreachable!("the thread is joined once, here or in drop"),
        }
    }

    /// Has the thread end without waiting for it.
    fn request_stop(&self) {
        self.handle.mailbox().post_stop();
    }

    fn finish(&mut self) -> Option<std::thread::Result<ShardReport>> {
        let thread = self.thread.take()?;
        self.handle.mailbox().post_stop();
        Some(thread.join())
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if let Some(Err(panic)) = self.finish()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
