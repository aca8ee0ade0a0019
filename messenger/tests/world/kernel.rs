//! Two transports over the sockets of this host, each pair on loopback addresses of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use outrider_messenger::transport::{Kernel, KernelConfig, Transport};

pub(crate) struct Host {
    address: SocketAddr,
    transport: Arc<Kernel>,
}

pub(crate) fn pair() -> [Host; 2] {
    static PAIRS: AtomicU8 = AtomicU8::new(1);
    // All of 127.0.0.0/8 is this host, so tests that run at the same time need not share ports.
    let (process, pair) = (std::process::id() as u8, PAIRS.fetch_add(1, Ordering::Relaxed));
    [1, 2].map(|number| {
        let address = SocketAddr::new(IpAddr::from([127, process, pair, number]), 6800);
        let transport = Kernel::start(&KernelConfig::default()).expect("a worker starts");
        Host { address, transport: Arc::new(transport) }
    })
}

impl Host {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    /// The kernel's loopback cannot be cut.
    pub(crate) fn set_cut_off(&self, _cut_off: bool) -> bool {
        false
    }

    /// Ends the threads, if the messenger has let go of them.
    pub(crate) fn end(self) {
        drop(self.transport);
    }
}
