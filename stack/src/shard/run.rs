//! The run loop of a shard.

use core::time::Duration;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use outrider_drivers::doorbell::{poll_fds, thread_cpu_time};
use outrider_drivers::port::{Port, PortError};
use outrider_drivers::thread::request_short_slice;

use super::command::{Command, Mailbox};
use super::handle::ShardSnapshot;
use super::segment::Publisher;
use super::{Polling, ShardReport};
use crate::net::{Poll, Stack};
use crate::time::{Clock, Instant};

/// Waking up takes about as long: something due sooner is waited for by polling, and a sleep ends this much early.
const SLEEP_SLACK: Duration = Duration::from_micros(60);
/// A port that has neither a descriptor nor a known next arrival is looked at this often.
const BLIND_SLEEP: Duration = Duration::from_millis(1);
/// A shard that shares its core wants it soon rather than for long.
const SCHEDULER_SLICE: Duration = Duration::from_micros(100);
/// How long the last RSTs may take to leave a port that has no room.
const FAREWELL: Duration = Duration::from_millis(100);
/// Wakes and commands taken between two polls, so that neither can starve the port.
const INPUTS_PER_POLL: usize = 256;

pub(super) struct Runner {
    stack: Stack,
    port: Box<dyn Port>,
    polling: Polling,
    mailbox: Arc<Mailbox>,
    clock: Arc<dyn Clock>,
    last_work: Instant,
    sleeps: u64,
    publisher: Option<Publisher>,
}

impl Runner {
    pub(super) fn new(
        stack: Stack,
        port: Box<dyn Port>,
        polling: Polling,
        mailbox: Arc<Mailbox>,
        publisher: Option<Publisher>,
    ) -> Self {
        let clock = Arc::clone(&mailbox.resident().clock);
        Runner { stack, port, polling, mailbox, last_work: clock.now(), clock, sleeps: 0, publisher }
    }

    /// Runs until told to stop or until the port fails.
    pub(super) fn run(mut self) -> ShardReport {
        self.mailbox.set_thread();
        if let Err(error) = request_short_slice(SCHEDULER_SLICE) {
            tracing::debug!(%error, "the scheduler keeps its own slice for the shard");
        }
        let error = match self.serve() {
            Ok(()) => self.say_farewell().err(),
            Err(error) => Some(error),
        };
        self.end(error)
    }

    /// Ends without having served anybody.
    pub(super) fn give_up(self) -> ShardReport {
        self.end(None)
    }

    /// Whatever is left ends here. After a failure endpoints learn of it at once, and commands are refused by the
    /// mailbox; the report waits for [`super::Shard::stop`].
    fn end(mut self, error: Option<PortError>) -> ShardReport {
        if let Some(error) = &error {
            tracing::error!(%error, "the shard has lost its port");
        }
        self.stack.fail(self.clock.now());
        let snapshot = ShardSnapshot { connections: Vec::new(), ..self.snapshot() };
        let report = ShardReport {
            statistics: snapshot.stack,
            port: snapshot.port,
            cpu_time: snapshot.cpu_time,
            error,
        };
        self.mailbox.resident().leave_snapshot(snapshot);
        self.mailbox.close();
        report
    }

    fn serve(&mut self) -> Result<(), PortError> {
        while !self.mailbox.should_stop() {
            let taken = self.take_inputs();
            let now = self.clock.now();
            let Poll { work, next } = self.stack.poll(now, &mut *self.port)?;
            let publish_at = self.publish(now, work + taken > 0);
            if work + taken > 0 {
                self.last_work = now;
                continue;
            }
            self.idle([next, publish_at].into_iter().flatten().min())?;
        }
        Ok(())
    }

    /// Publishes what has changed if it is time; otherwise tells when it will be.
    fn publish(&mut self, now: Instant, worked: bool) -> Option<Instant> {
        let publisher = self.publisher.as_mut()?;
        if worked {
            publisher.touch();
        }
        let due = publisher.due()?;
        if due > now {
            return Some(due);
        }
        publisher.publish(now, &self.stack, self.port.statistics(), thread_cpu_time(), self.sleeps);
        None
    }

    /// Executes what other threads left; returns how much it was.
    fn take_inputs(&mut self) -> usize {
        let mut taken = 0;
        while taken < INPUTS_PER_POLL
            && let Some(id) = self.mailbox.take_wake()
        {
            self.stack.wake(self.clock.now(), id);
            taken += 1;
        }
        while taken < INPUTS_PER_POLL
            && let Some(command) = self.mailbox.take_command()
        {
            self.execute(command);
            taken += 1;
        }
        taken + self.take_unlistens()
    }

    fn take_unlistens(&mut self) -> usize {
        let mut taken = 0;
        while let Some(id) = self.mailbox.take_unlisten() {
            self.stack.unlisten(self.clock.now(), id);
            taken += 1;
        }
        taken
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Connect { remote, endpoint } => {
                self.stack.connect(self.clock.now(), remote, endpoint);
            }
            Command::Listen { local, options, acceptor, reply } => {
                // Whoever gave up an address before asking for it again finds it free.
                self.take_unlistens();
                let result = self.stack.listen(local, options, acceptor).map(|id| {
                    let local = self.stack.listener_address(id).expect("the listener was just made");
                    (id, local)
                });
                let id = result.as_ref().ok().map(|(id, _)| *id);
                // If the asker is gone the listener has no guard, and must not stay.
                if reply.send(result).is_err()
                    && let Some(id) = id
                {
                    self.stack.unlisten(self.clock.now(), id);
                }
            }
            Command::Snapshot(reply) => {
                // Nobody waits any more if the asker is gone.
                let _ = reply.send(self.snapshot());
            }
        }
    }

    fn snapshot(&self) -> ShardSnapshot {
        ShardSnapshot {
            stack: *self.stack.statistics(),
            port: self.port.statistics(),
            connections: self.stack.connections(self.clock.now()).collect(),
            cpu_time: thread_cpu_time(),
            sleeps: self.sleeps,
        }
    }

    /// Nothing to do until `next` or the next arrival: polls on, or sleeps.
    fn idle(&mut self, next: Option<Instant>) -> Result<(), PortError> {
        let now = self.clock.now();
        let next = [next, self.port.next_arrival(now)].into_iter().flatten().min();
        let wait = next.map(|next| next.since(now));
        let spinning = match self.polling {
            Polling::Busy => true,
            Polling::Adaptive { spin } => now.since(self.last_work) < spin,
        };
        if spinning || wait.is_some_and(|wait| wait <= SLEEP_SLACK) {
            // Not a bare spin: the peer, the application or another shard may be waiting for this very core.
            if wait != Some(Duration::ZERO) {
                std::thread::yield_now();
            }
            return Ok(());
        }
        let sleep = wait.map(|wait| wait - SLEEP_SLACK);
        let readiness = self.port.readiness();
        let blind = readiness.is_none().then_some(BLIND_SLEEP);
        let sleep = match (sleep, blind) {
            (Some(sleep), Some(blind)) => Some(sleep.min(blind)),
            (sleep, blind) => sleep.or(blind),
        };
        if !self.mailbox.prepare_sleep() {
            return Ok(());
        }
        // Looked at after the sleep was announced: who leaves something later rings.
        if self.stack.has_mail() {
            self.end_sleep();
            return Ok(());
        }
        self.sleeps += 1;
        let doorbell = &self.mailbox.resident().doorbell;
        let fds: [BorrowedFd<'_>; 2] = [doorbell.fd(), readiness.unwrap_or(doorbell.fd())];
        let slept = poll_fds(&fds, sleep);
        self.end_sleep();
        slept.map_err(|source| PortError::Io {
            port: self.port.info().name.clone(),
            operation: "waiting for the port",
            source,
        })
    }

    fn end_sleep(&self) {
        self.mailbox.end_sleep();
        self.mailbox.resident().doorbell.clear();
    }

    /// Resets every connection and lets the RSTs leave.
    fn say_farewell(&mut self) -> Result<(), PortError> {
        let start = self.clock.now();
        self.stack.abort_all(start);
        loop {
            let now = self.clock.now();
            let Poll { work, next } = self.stack.poll(now, &mut *self.port)?;
            if self.stack.connections(now).next().is_none() || now.since(start) > FAREWELL {
                return Ok(());
            }
            if work == 0 && next.is_none_or(|next| next > now) {
                std::thread::yield_now();
            }
        }
    }
}
