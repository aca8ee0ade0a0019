//! What can go wrong when AF_XDP ports are opened: one line each, what, where, and what to do.

use std::io;

/// Why AF_XDP ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AfXdpError {
    /// The kernel was built without AF_XDP.
    #[error(
        "this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS); use a kernel that has, or a TAP port instead"
    )]
    NotSupported,
    /// No interface of this name in the network namespace of the caller.
    #[error("{interface}: no such interface; 'ip link' lists those there are")]
    NoSuchInterface {
        /// The interface asked for.
        interface: String,
    },
    /// The interface is administratively down.
    #[error("{interface} is down; bring it up with 'ip link set {interface} up'")]
    InterfaceDown {
        /// The interface.
        interface: String,
    },
    /// The interface has no queue of this number.
    #[error(
        "{interface} has no queue {queue}{}; choose others, or make more with 'ethtool -L {interface}'",
        there_are(*queues)
    )]
    NoSuchQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// Queues there are, numbered from zero, where the driver tells.
        queues: Option<u32>,
    },
    /// Another AF_XDP socket has the queue.
    #[error(
        "queue {queue} of {interface} is taken by another AF_XDP socket; choose another, or stop its user"
    )]
    QueueTaken {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// An XDP program that is not ours is attached.
    #[error(
        "{interface} has an XDP program already; 'ip -d link show {interface}' names it, stop the program that attached it"
    )]
    ProgramAttached {
        /// The interface.
        interface: String,
    },
    /// The process may not do this.
    #[error(
        "{operation} for {interface}: permission denied; needs {capability} (root has it; a service gets it by AmbientCapabilities)"
    )]
    MissingCapability {
        /// The interface.
        interface: String,
        /// What was being done.
        operation: &'static str,
        /// What would allow it.
        capability: &'static str,
    },
    /// The frame memory is more than the process may lock.
    #[error(
        "{interface}: {needed_bytes} bytes of frame memory are more than may be locked ({limit_bytes}); raise 'ulimit -l' (LimitMEMLOCK=), give CAP_IPC_LOCK, or ask for fewer frames"
    )]
    LockedMemory {
        /// The interface.
        interface: String,
        /// Bytes of one port's frame memory.
        needed_bytes: u64,
        /// RLIMIT_MEMLOCK.
        limit_bytes: u64,
    },
    /// Frames of this MTU do not fit into a chunk, and splitting them was not wanted or is not possible.
    #[error(
        "{interface}: frames of MTU {mtu} do not fit into chunks of {chunk_bytes} bytes; set the MTU to {mtu_max} at most, or allow several chunks a frame (multi-buffer)"
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: usize,
        /// Bytes of a chunk.
        chunk_bytes: usize,
        /// The largest MTU whose frames fit.
        mtu_max: usize,
    },
    /// Native mode was demanded and the driver refuses it.
    #[error(
        "{interface}: the driver does not take the XDP program in native mode ({source}); lower the MTU, give it enough queues, or allow generic mode"
    )]
    NativeRefused {
        /// The interface.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// Zero copy was demanded and is not to be had.
    #[error("queue {queue} of {interface}: no zero copy ({reason}); allow copy mode")]
    ZeroCopyRefused {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Who refused.
        reason: String,
    },
    /// The kernel's verifier refuses the XDP program.
    #[error("the kernel refuses the XDP program for {interface}: {source}; its verifier says: {log}")]
    ProgramRefused {
        /// The interface.
        interface: String,
        /// What the system said.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// Options that contradict each other or are out of range.
    #[error("{interface}: {reason}")]
    InvalidOptions {
        /// The interface.
        interface: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The system refused for another reason.
    #[error("{operation} for {interface} failed: {source}")]
    Io {
        /// The interface.
        interface: String,
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn there_are(queues: Option<u32>) -> String {
    match queues {
        Some(1) => " (only queue 0)".to_owned(),
        Some(queues) => format!(" (only 0 to {})", queues.saturating_sub(1)),
        None => String::new(),
    }
}

impl AfXdpError {
    /// A failed `operation` that `capability` would have allowed if it is a matter of privilege.
    pub(super) fn of(
        interface: &str,
        operation: &'static str,
        capability: &'static str,
        source: io::Error,
    ) -> Self {
        let interface = interface.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                AfXdpError::MissingCapability { interface, operation, capability }
            }
            Some(libc::ENODEV) => AfXdpError::NoSuchInterface { interface },
            _ => AfXdpError::Io { interface, operation, source },
        }
    }
}
