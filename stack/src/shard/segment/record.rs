//! What the records say, and how it lies in words.

use core::time::Duration;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use outrider_drivers::port::{PortInfo, PortStatistics};

use super::{from_words, to_words};
use crate::endpoint::ConnectionId;
use crate::net::{ConnectionReport, ConnectionSummary, Phase, StackStatistics};
use crate::tcp::source::{Blocked, SendState};
use crate::tcp::statistics::ConnectionStatistics;
use crate::time::Instant;

const NAME_WORDS: usize = 8;
const PORT_WORDS: usize = 7;
/// Stands for "not known yet" among durations.
const NONE: u64 = u64::MAX;

/// One shard and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRecord {
    /// When it was written, on the clock of the shards.
    pub updated_at: Instant,
    /// Whether the shard runs; the last record of one that has ended stays.
    pub running: bool,
    /// [`PortInfo::name`] of its port.
    pub port_name: String,
    /// Ethernet address of its port.
    pub mac: [u8; 6],
    /// MTU of its port, bytes.
    pub mtu: usize,
    /// CPU time of its thread.
    pub cpu_time: Duration,
    /// How often the thread went to sleep.
    pub sleeps: u64,
    /// Connections it has, be they shown or not.
    pub connections: usize,
    /// Counters of its port.
    pub port: PortStatistics,
    /// Counters of its stack.
    pub stack: StackStatistics,
}

impl ShardRecord {
    /// Words of a record, without the sequence number.
    pub(super) const WORDS: usize = 7 + NAME_WORDS + PORT_WORDS + StackStatistics::COUNT;

    /// What a shard is before it has published anything.
    pub(super) fn new(port: &PortInfo) -> Self {
        ShardRecord {
            updated_at: Instant::ZERO,
            running: true,
            port_name: port.name.clone(),
            mac: port.mac,
            mtu: port.mtu,
            cpu_time: Duration::ZERO,
            sleeps: 0,
            connections: 0,
            port: PortStatistics::default(),
            stack: StackStatistics::default(),
        }
    }

    pub(super) fn to_words(&self) -> [u64; Self::WORDS] {
        let ShardRecord {
            updated_at,
            running,
            port_name,
            mac,
            mtu,
            cpu_time,
            sleeps,
            connections,
            port,
            stack,
        } = self;
        let [a, b, c, d, e, f] = *mac;
        let PortStatistics { rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_dropped, doorbells } =
            *port;
        let fixed = [
            updated_at.as_nanos(),
            u64::from(*running),
            u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            *mtu as u64,
            nanos(*cpu_time),
            *sleeps,
            *connections as u64,
        ];
        let port = [rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_dropped, doorbells];
        join(&[&fixed, &to_words::<NAME_WORDS>(port_name), &port, &stack.values()])
    }

    pub(super) fn from_words(words: &[u64; Self::WORDS]) -> Self {
        let mut words = Words(words);
        let [updated_at, running, mac, mtu, cpu_time, sleeps, connections] = words.take();
        let name: [u64; NAME_WORDS] = words.take();
        let [rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_dropped, doorbells] = words.take();
        let [_, _, mac @ ..] = mac.to_be_bytes();
        ShardRecord {
            updated_at: Instant::from_nanos(updated_at),
            running: running != 0,
            port_name: from_words(&name),
            mac,
            mtu: mtu as usize,
            cpu_time: Duration::from_nanos(cpu_time),
            sleeps,
            connections: connections as usize,
            port: PortStatistics {
                rx_frames,
                rx_bytes,
                rx_dropped,
                tx_frames,
                tx_bytes,
                tx_dropped,
                doorbells,
            },
            stack: StackStatistics::from_values(words.take()),
        }
    }
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionRecord {
    /// When it was written, on the clock of the shards.
    pub updated_at: Instant,
    /// What the stack says of it.
    pub report: ConnectionReport,
}

impl ConnectionRecord {
    /// Words of a record, without the sequence number.
    pub(super) const WORDS: usize = 3 + 6 + 10 + 2 + ConnectionStatistics::COUNT;
    /// Of a slot without a connection.
    pub(super) const EMPTY: [u64; Self::WORDS] = [0; Self::WORDS];

    pub(super) fn to_words(self) -> [u64; Self::WORDS] {
        let ConnectionReport { summary, unsent_bytes, heartbeat_rtt, statistics } = self.report;
        let ConnectionSummary { id, local, remote, phase, send } = summary;
        let SendState {
            bytes_in_flight,
            congestion_window,
            peer_window,
            smoothed_rtt,
            rtt_min,
            delivery_rate,
            oldest_unacked_age,
            retransmits,
            blocked,
            stream_offset,
        } = send;
        let phase = match phase {
            Phase::Connecting => 1,
            Phase::HalfOpen => 2,
            Phase::Established => 3,
        };
        let send = [
            bytes_in_flight,
            congestion_window,
            peer_window,
            smoothed_rtt.map_or(NONE, nanos),
            rtt_min.map_or(NONE, nanos),
            delivery_rate,
            nanos(oldest_unacked_age),
            retransmits,
            blocked as u64,
            stream_offset,
        ];
        let name = u64::from(id.index) << 32 | u64::from(id.generation);
        let [local, remote] = [local, remote].map(address_words);
        join(&[
            &[phase, self.updated_at.as_nanos()],
            &[name],
            &local,
            &remote,
            &send,
            &[unsent_bytes, heartbeat_rtt.map_or(NONE, nanos)],
            &statistics.values(),
        ])
    }

    /// The same words with the time `now`; an empty slot has none.
    pub(super) fn stamped(mut words: [u64; Self::WORDS], now: Instant) -> [u64; Self::WORDS] {
        if words[0] != 0 {
            words[1] = now.as_nanos();
        }
        words
    }

    /// `None` for an empty slot.
    pub(super) fn from_words(words: &[u64; Self::WORDS]) -> Option<Self> {
        let mut words = Words(words);
        let [phase, updated_at, name] = words.take();
        let phase = match phase {
            1 => Phase::Connecting,
            2 => Phase::HalfOpen,
            3 => Phase::Established,
            _ => return None,
        };
        let (local, remote) = (address(words.take()), address(words.take()));
        let [
            bytes_in_flight,
            congestion_window,
            peer_window,
            smoothed_rtt,
            rtt_min,
            delivery_rate,
            oldest_unacked_age,
            retransmits,
            blocked,
            stream_offset,
        ] = words.take();
        let [unsent_bytes, heartbeat_rtt] = words.take();
        let duration = |nanos: u64| (nanos != NONE).then(|| Duration::from_nanos(nanos));
        let send = SendState {
            bytes_in_flight,
            congestion_window,
            peer_window,
            smoothed_rtt: duration(smoothed_rtt),
            rtt_min: duration(rtt_min),
            delivery_rate,
            oldest_unacked_age: Duration::from_nanos(oldest_unacked_age),
            retransmits,
            blocked: blocked_from(blocked),
            stream_offset,
        };
        let id = ConnectionId { index: (name >> 32) as u32, generation: name as u32 };
        let summary = ConnectionSummary { id, local, remote, phase, send };
        let statistics = ConnectionStatistics::from_values(words.take());
        let heartbeat_rtt = duration(heartbeat_rtt);
        let report = ConnectionReport { summary, unsent_bytes, heartbeat_rtt, statistics };
        Some(ConnectionRecord { updated_at: Instant::from_nanos(updated_at), report })
    }

    /// Bytes unsent and in flight.
    pub fn occupancy_bytes(&self) -> u64 {
        self.report.unsent_bytes + self.report.summary.send.bytes_in_flight
    }
}

/// What the number stands for; nothing, if it stands for none.
fn blocked_from(number: u64) -> Blocked {
    let all = [
        Blocked::Nothing,
        Blocked::CongestionWindow,
        Blocked::PeerWindow,
        Blocked::Credit,
        Blocked::Pacing,
        Blocked::Port,
    ];
    all.into_iter().find(|blocked| *blocked as u64 == number).unwrap_or_default()
}

/// The address, an IPv4 one as its IPv4-mapped one, and the port.
fn address_words(address: SocketAddr) -> [u64; 3] {
    let bits = match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64, u64::from(address.port())]
}

fn address([high, low, port]: [u64; 3]) -> SocketAddr {
    let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    SocketAddr::new(address.to_canonical(), port as u16)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NONE - 1)
}

/// The parts one after the other, which must fill the record.
fn join<const N: usize>(parts: &[&[u64]]) -> [u64; N] {
    let mut words = [0; N];
    let mut at = 0;
    for part in parts {
        words[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    assert_eq!(at, N, "the parts of a record are as long as the record");
    words
}

/// The words of a record, taken from the front.
struct Words<'a>(&'a [u64]);

impl Words<'_> {
    fn take<const N: usize>(&mut self) -> [u64; N] {
        let (front, rest) = self.0.split_first_chunk().expect("a record is as long as its parts");
        self.0 = rest;
        *front
    }
}
