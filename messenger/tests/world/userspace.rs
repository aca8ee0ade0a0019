//! Two shards joined by a cable.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use outrider_drivers::memory::{LinkConfig, LinkControl, cable};
use outrider_messenger::transport::{Transport, Userspace};
use outrider_stack::net::StackConfig;
use outrider_stack::shard::{Polling, Shard, ShardConfig, spawn};
use outrider_stack::time::MonotonicClock;

pub(crate) struct Host {
    address: SocketAddr,
    shard: Shard,
    outgoing: LinkControl,
}

pub(crate) fn pair() -> [Host; 2] {
    let (left, right) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    [(1u8, left), (2, right)].map(|(number, port)| {
        let outgoing = port.outgoing();
        let address = SocketAddr::new(IpAddr::from([10, 0, 0, number]), 6800);
        let config = ShardConfig {
            name: format!("shard{number}"),
            stack: StackConfig::new([(address.ip(), 24)]),
            polling: Polling::default(),
            core: None,
            seed: u64::from(number),
            clock: Arc::new(MonotonicClock),
        };
        let shard = spawn(Box::new(port), config).expect("a shard starts");
        Host { address, shard, outgoing }
    })
}

impl Host {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(Userspace::new(vec![self.shard.handle()]))
    }

    /// Nothing leaves the host any more, or does again. Returns whether this world can do that.
    pub(crate) fn set_cut_off(&self, cut_off: bool) -> bool {
        self.outgoing.set_blackhole(cut_off);
        true
    }

    pub(crate) fn end(self) {
        self.shard.stop();
    }
}
