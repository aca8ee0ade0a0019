//! Two hosts at the ends of a wire, each with the kernel's TCP or with Outrider's own, and what lives on them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outrider_drivers::memory::{LinkConfig, cable};
use outrider_drivers::netns::NetNamespace;
use outrider_drivers::port::Port;
use outrider_drivers::tap::{Tap, TapOptions};
use outrider_messenger::transport::{Kernel, KernelConfig, Transport, Userspace};
use outrider_messenger::{Backoff, EntityName, Messenger, Policy, ThrottleLimits};
use outrider_stack::net::StackConfig;
use outrider_stack::shard::{Shard, ShardConfig, spawn};

use super::events::Events;
use super::recorder::{Giver, Recorder, mark};
use super::watch::Watched;
use super::wire::{Side, Wire};

/// Which TCP a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tcp {
    Kernel,
    Userspace,
}

/// What a messenger of a host is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) policy: Policy,
    pub(super) port: u16,
    pub(super) listens: bool,
    /// How long silence is borne: by the handshake, by an attempt to connect, by what is not acknowledged.
    pub(super) silence: Duration,
}

/// One life of a host.
pub(super) struct Life {
    pub(super) messenger: Messenger,
    pub(super) recorder: Arc<Recorder>,
    pub(super) watched: Arc<Watched>,
    shard: Option<Shard>,
}

/// Two hosts, of which either may be down.
pub(super) struct World {
    pub(super) tcp: [Tcp; 2],
    pub(super) wire: Wire,
    namespaces: [Option<NetNamespace>; 2],
}

pub(super) fn address(side: Side, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 78, 0, 1 + side as u8]), port)
}

impl World {
    /// Needs root where a host has the kernel's TCP: that is in a namespace of its own.
    pub(super) fn new(tcp: [Tcp; 2]) -> World {
        let wire = Wire::start();
        let mut namespaces = [None, None];
        for side in 0..2 {
            if tcp[side] == Tcp::Kernel {
                let namespace = NetNamespace::create().expect("root may make namespaces");
                let options = TapOptions { name: Some("or0".into()), ..TapOptions::default() };
                let options = TapOptions { seed: side as u64, ..options };
                let tap = namespace.run(|| Tap::open(&options).expect("root may make TAP devices")).unwrap();
                let line = format!("address add {}/24 dev or0", address(side, 0).ip());
                let status = namespace.command("ip").args(line.split(' ')).status();
                assert!(status.expect("iproute2 is installed").success(), "{line}");
                wire.plug(side, Some(Box::new(tap)));
                namespaces[side] = Some(namespace);
            }
        }
        World { tcp, wire, namespaces }
    }

    fn carrier(&self, side: Side, terms: &Terms) -> (Arc<dyn Transport>, Option<Shard>) {
        if let Some(namespace) = &self.namespaces[side] {
            let config = KernelConfig {
                connect_timeout: terms.silence,
                user_timeout: terms.silence,
                ..KernelConfig::default()
            };
            let kernel = namespace.run(|| Kernel::start(&config)).unwrap();
            return (Arc::new(kernel.expect("a worker starts")), None);
        }
        let (near, far) = cable(LinkConfig::default(), LinkConfig::default(), 1);
        let mut stack = StackConfig::new([(address(side, 0).ip(), 24)]);
        stack.tcp.rto_initial = Duration::from_millis(200);
        stack.tcp.user_timeout = terms.silence;
        stack.neighbour_retry = Duration::from_millis(100);
        let shard = spawn(Box::new(near), ShardConfig::new(format!("host{side}"), stack));
        let shard = shard.expect("a shard starts");
        self.wire.plug(side, Some(Box::new(far) as Box<dyn Port>));
        (Arc::new(Userspace::new(vec![shard.handle()])), Some(shard))
    }

    /// A host comes up, knowing nothing.
    pub(super) fn boot(&self, side: Side, terms: &Terms, giver: &Arc<Giver>, events: &Events) -> Life {
        static LIVES: AtomicU64 = AtomicU64::new(1);
        // What comes before the messenger listens waits for it.
        self.wire.set_down(side, true);
        let (carrier, shard) = self.carrier(side, terms);
        let watched = Arc::new(Watched::new(carrier, events));
        let recorder = Arc::new(Recorder::new(giver, events));
        let builder = Messenger::builder(EntityName::osd(side as u64 + 1))
            .nonce(LIVES.fetch_add(1, Ordering::Relaxed))
            .transport(Arc::clone(&watched) as Arc<dyn Transport>)
            .handshake_timeout(terms.silence)
            .backoff(Backoff { min: Duration::from_millis(10), max: Duration::from_millis(50) })
            .default_policy(terms.policy)
            .dispatch_throttle(ThrottleLimits { bytes: 1 << 30, messages: 1 << 20 })
            .dispatcher(Arc::clone(&recorder) as Arc<_>);
        let builder = if terms.listens { builder.bind(address(side, terms.port)) } else { builder };
        let messenger = builder.start().expect("a messenger starts");
        self.wire.set_down(side, false);
        Life { messenger, recorder, watched, shard }
    }

    /// A host is gone without a word, and nobody fetches what comes for it. What its dispatcher was told is left.
    pub(super) fn crash(&self, side: Side, life: Life) -> Arc<Recorder> {
        self.wire.set_down(side, true);
        self.wire.set_mute(side, true);
        let Life { messenger, recorder, watched, shard } = life;
        drop(watched.take());
        shard.map(Shard::stop);
        messenger.shutdown();
        messenger.wait();
        drop(recorder.take_connections());
        drop(messenger);
        if self.tcp[side] == Tcp::Userspace {
            self.wire.plug(side, None);
        }
        self.wire.set_mute(side, false);
        recorder
    }

    /// A host ends in order: its messenger has been shut down and has ended.
    pub(super) fn end(&self, side: Side, life: Life, events: &Events) -> Arc<Recorder> {
        let Life { messenger, recorder, watched, shard } = life;
        messenger.wait();
        drop(messenger);
        drop(watched.take());
        shard.map(Shard::stop);
        if self.tcp[side] == Tcp::Userspace {
            self.wire.plug(side, None);
        }
        if let Some(namespace) = &self.namespaces[side] {
            let sockets = || namespace.run(open_sockets).unwrap();
            events.until("no socket is left", || sockets().is_empty(), || format!("{:?}", sockets()));
        }
        recorder
    }
}

/// The TCP sockets of this thread's namespace that are more than memories: as `/proc/net/tcp` shows them.
fn open_sockets() -> Vec<String> {
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let is_open = |line: &&str| line.split_whitespace().nth(3).is_some_and(|state| state != TIME_WAIT);
    table.lines().skip(1).filter(is_open).map(str::to_owned).collect()
}

impl Life {
    /// Waits until everything is told that was to be told by now.
    pub(super) fn settle(&self, events: &Events) {
        let before = self.recorder.marks();
        self.messenger.loopback().send_message(mark()).unwrap();
        events.until("the dispatcher is asked", || self.recorder.marks() > before, String::new);
        if let Some(shard) = &self.shard {
            // The first answer comes after what was left before, the second after a poll that sent it.
            (0..2).for_each(|_| drop(shard.handle().statistics()));
        }
    }
}
