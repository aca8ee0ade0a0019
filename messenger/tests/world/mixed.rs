//! A host on kernel sockets and one on Outrider's own TCP, at the two sides of a TAP device in a namespace of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use outrider_drivers::netns::{NetNamespace, NetnsError};
use outrider_drivers::tap::{Tap, TapOptions};
use outrider_messenger::transport::{Kernel, KernelConfig, Transport, Userspace};
use outrider_stack::net::StackConfig;
use outrider_stack::shard::{Shard, ShardConfig, spawn};

use crate::KERNEL_DIALS;

enum Carrier {
    Kernel(Arc<Kernel>),
    Shard(Shard),
}

pub(crate) struct Host {
    address: SocketAddr,
    carrier: Carrier,
    /// Both hosts are in it.
    _namespace: Option<NetNamespace>,
}

/// The one that dials first.
pub(crate) fn pair() -> [Host; 2] {
    let namespace = match NetNamespace::create() {
        Err(NetnsError::NoPrivilege { .. }) => {
            assert!(std::env::var_os("CI").is_none(), "under CI nothing is skipped: run as root");
            println!("skipped: needs root; both hosts are on kernel sockets instead");
            return kernel_only();
        }
        namespace => namespace.expect("root may make namespaces"),
    };
    let address = |host: u8| SocketAddr::new(IpAddr::from([10, 78, 0, host]), 6800);
    let (tap, kernel) = namespace
        .run(|| {
            let options = TapOptions { name: Some("or0".into()), seed: 1, ..TapOptions::default() };
            let tap = Tap::open(&options).expect("root may make TAP devices");
            let line = "address add 10.78.0.1/24 dev or0";
            let status = std::process::Command::new("ip").args(line.split(' ')).status();
            assert!(status.expect("iproute2 is installed").success(), "{line}");
            (tap, Kernel::start(&KernelConfig::default()).expect("a worker starts"))
        })
        .expect("root may enter namespaces");
    let shard = spawn(Box::new(tap), ShardConfig::new("or0", StackConfig::new([(address(2).ip(), 24)])));
    let namespace = Some(namespace);
    let kernel = Host {
        address: address(1),
        carrier: Carrier::Kernel(Arc::new(kernel)),
        _namespace: namespace.clone(),
    };
    let shard = Host {
        address: address(2),
        carrier: Carrier::Shard(shard.expect("a shard starts")),
        _namespace: namespace,
    };
    if KERNEL_DIALS { [kernel, shard] } else { [shard, kernel] }
}

fn kernel_only() -> [Host; 2] {
    static PAIRS: AtomicU16 = AtomicU16::new(1);
    let pair = PAIRS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    [1, 2].map(|host| {
        let network = 128 + u8::from(KERNEL_DIALS);
        let address = SocketAddr::new(IpAddr::from([127, network, pair[1], host]), 6800);
        let kernel = Kernel::start(&KernelConfig::default()).expect("a worker starts");
        Host { address, carrier: Carrier::Kernel(Arc::new(kernel)), _namespace: None }
    })
}

impl Host {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        match &self.carrier {
            Carrier::Kernel(kernel) => kernel.clone(),
            Carrier::Shard(shard) => Arc::new(Userspace::new(vec![shard.handle()])),
        }
    }

    /// The TAP device cannot be cut.
    pub(crate) fn set_cut_off(&self, _cut_off: bool) -> bool {
        false
    }

    pub(crate) fn end(self) {
        if let Carrier::Shard(shard) = self.carrier {
            shard.stop();
        }
    }
}
