//! Parameters of a stack, and what is wrong with them.

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use crate::tcp::connection::Config as TcpConfig;

/// Parameters of a stack, fixed when it is made. Start from [`StackConfig::new`] or `Default`.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Own addresses with the prefix length of the network each is on; eight at most.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Next hop for IPv4 destinations on no network of ours.
    pub gateway_v4: Option<Ipv4Addr>,
    /// Next hop for IPv6 destinations on no network of ours.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Parameters of every connection. The MSS is lowered to what the port's MTU allows.
    pub tcp: TcpConfig,
    /// Connections at most, half-open and TIME-WAIT included.
    pub connections_max: usize,
    /// Frames received in one poll at most.
    pub receive_burst: usize,
    /// Frames transmitted in one poll at most.
    pub transmit_burst: usize,
    /// Segments that a connection sends before the next one has its turn.
    pub segments_per_turn: usize,
    /// How long the bytes handed to the port may take to leave it, at the rate at which they leave. What is in the
    /// port is past recall, and a heartbeat waits behind it.
    pub port_queue_max: Duration,
    /// How long a super-segment may take to leave the port.
    pub super_segment_max: Duration,
    /// When to look again after the port was found full, if the port cannot tell.
    pub port_retry: Duration,
    /// Local ports for connections begun by this end (RFC 6335: 49152 to 65535).
    pub ephemeral_ports: RangeInclusive<u16>,
    /// Neighbours remembered at most.
    pub neighbours_max: usize,
    /// How long a neighbour's answer is trusted without asking again (RFC 4861: 30 s).
    pub neighbour_reachable: Duration,
    /// Time between two requests for the same neighbour (RFC 4861: 1 s).
    pub neighbour_retry: Duration,
    /// Requests without an answer before a neighbour counts as unreachable (RFC 4861: 3).
    pub neighbour_requests_max: u32,
    /// Frames waiting for the slow path at most.
    pub slow_path_frames_max: usize,
    /// Control frames (ARP, NDP, ICMP, resets) waiting for the port at most. SYN cookies take half of it at most.
    pub control_frames_max: usize,
    /// RSTs per second for segments without a connection.
    pub resets_per_second: u32,
}

impl StackConfig {
    /// The defaults, with these addresses.
    pub fn new(addresses: impl Into<Vec<(IpAddr, u8)>>) -> Self {
        StackConfig { addresses: addresses.into(), ..StackConfig::default() }
    }

    /// Sets the gateway of the address's family.
    pub fn with_gateway(mut self, gateway: IpAddr) -> Self {
        match gateway {
            IpAddr::V4(gateway) => self.gateway_v4 = Some(gateway),
            IpAddr::V6(gateway) => self.gateway_v6 = Some(gateway),
        }
        self
    }
}

impl Default for StackConfig {
    fn default() -> Self {
        StackConfig {
            addresses: Vec::new(),
            gateway_v4: None,
            gateway_v6: None,
            tcp: TcpConfig::default(),
            connections_max: 65_536,
            receive_burst: 64,
            transmit_burst: 256,
            segments_per_turn: 8,
            port_queue_max: Duration::from_micros(500),
            super_segment_max: Duration::from_micros(100),
            port_retry: Duration::from_micros(20),
            ephemeral_ports: 49_152..=65_535,
            neighbours_max: 1_024,
            neighbour_reachable: Duration::from_secs(30),
            neighbour_retry: Duration::from_secs(1),
            neighbour_requests_max: 3,
            slow_path_frames_max: 64,
            control_frames_max: 256,
            resets_per_second: 1_000,
        }
    }
}

/// Why a stack could not be made. All of these are the caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// No address.
    #[error("a stack needs at least one address: give StackConfig::addresses")]
    NoAddress,
    /// More addresses than the slow path can answer for.
    #[error("{count} addresses given, {max} are possible")]
    TooManyAddresses {
        /// How many were given.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// An address that no host can have, or a prefix longer than the address.
    #[error("{address}/{prefix} is not the address of a host")]
    BadAddress {
        /// The address.
        address: IpAddr,
        /// The prefix length.
        prefix: u8,
    },
    /// A gateway that is on none of our networks.
    #[error("the gateway {gateway} is on no network of this stack")]
    GatewayOffLink {
        /// The gateway.
        gateway: IpAddr,
    },
    /// A limit of zero, with which nothing could work.
    #[error("StackConfig::{field} must not be zero or empty")]
    ZeroLimit {
        /// The field.
        field: &'static str,
    },
    /// The port's MTU leaves no room for TCP.
    #[error("an MTU of {mtu} bytes is below the {needed} that IP requires")]
    MtuTooSmall {
        /// The port's MTU.
        mtu: usize,
        /// What is needed (RFC 791: 576, RFC 8200: 1280).
        needed: usize,
    },
    /// The port's Ethernet address is a group address.
    #[error("the port's Ethernet address is not that of one station")]
    BadMac,
}

/// How to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Half-open connections at most. A SYN beyond them is answered with a SYN cookie, of which nothing is kept: its
    /// sender connects all the same, without options beyond the MSS if it uses no timestamps.
    pub backlog: usize,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions { backlog: 256 }
    }
}

/// Why listening is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// The address is neither ours nor unspecified.
    #[error("{local}: not an address of this stack")]
    NotOurs {
        /// What was asked for.
        local: SocketAddr,
    },
    /// Another listener has it.
    #[error("{local}: another listener is there")]
    InUse {
        /// What was asked for.
        local: SocketAddr,
    },
    /// Port zero was asked for and no port is free.
    #[error("no port is free")]
    NoPort,
    /// The backlog is zero.
    #[error("a backlog of zero would refuse everyone")]
    NoBacklog,
    /// The stack's thread or its port is gone.
    #[error("the network port is gone")]
    PortGone,
}
