//! What scripts take for granted of the host: Linux parameters, with Linux's defaults, and how they become a
//! [`Config`] of the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::{Config, Keepalive, MtuProbing};

use super::habits::Habits;

/// Minimum, default and maximum of a buffer, bytes (`tcp_rmem`, `tcp_wmem`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferSizes {
    pub(crate) min: u64,
    pub(crate) default: u64,
    pub(crate) max: u64,
}

/// `tcp_ecn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EcnUse {
    Off,
    /// Offered and accepted.
    On,
    /// Accepted only.
    Passive,
}

/// The host. [`Settings::default`] is an unconfigured kernel; `defaults.sh` of the public suites changes some of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) receive_buffer: BufferSizes,
    pub(crate) send_buffer: BufferSizes,
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    pub(crate) window_scaling: bool,
    pub(crate) ecn: EcnUse,
    pub(crate) algorithm: Algorithm,
    pub(crate) slow_start_after_idle: bool,
    pub(crate) tail_probes: bool,
    pub(crate) syn_retries: u32,
    pub(crate) synack_retries: u32,
    /// Retransmissions before an open connection is given up (`tcp_retries2`).
    pub(crate) data_retries: u32,
    pub(crate) fin_timeout: Duration,
    pub(crate) keepalive: Keepalive,
    pub(crate) notsent_lowat: u64,
    /// `tcp_min_tso_segs`.
    pub(crate) group_segments_min: u64,
    /// Injected packets are made of segments of this size (`--mss`).
    pub(crate) injected_segment_size: Option<u32>,
    /// Payload and options of a segment on the path, as an ICMP error of an earlier connection has told.
    pub(crate) path_segment_size: Option<u16>,
    pub(crate) initial_window_segments: u32,
    pub(crate) rto_min: Duration,
    pub(crate) rto_max: Duration,
    /// IP packet size of the path, bytes.
    pub(crate) mtu: u32,
    pub(crate) ip_header_bytes: u32,
    /// MSS to announce, from the route.
    pub(crate) route_mss: Option<u16>,
    /// The script sizes the receive buffers itself.
    pub(crate) receive_buffer_stated: bool,
    /// What the script shows of the host it was written on.
    pub(crate) habits: Option<Habits>,
    /// A parameter with a value that the engine does not honour, which makes no difference without SACK.
    pub(crate) refused_with_sack: Option<String>,
    /// Timeouts are checked for having been spurious by what is acknowledged after them (`tcp_frto`).
    pub(crate) timeout_undo: bool,
    pub(crate) mtu_probing: MtuProbing,
    /// The queue of the device takes nothing (`pfifo limit 0`).
    pub(crate) queue_refuses: bool,
    /// Files that the script has made: path and bytes.
    pub(crate) files: BTreeMap<String, u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            receive_buffer: BufferSizes { min: 4096, default: 131_072, max: 6_291_456 },
            send_buffer: BufferSizes { min: 4096, default: 16_384, max: 4_194_304 },
            timestamps: true,
            sack: true,
            window_scaling: true,
            ecn: EcnUse::Passive,
            algorithm: Algorithm::Cubic,
            slow_start_after_idle: true,
            tail_probes: true,
            syn_retries: 6,
            synack_retries: 5,
            data_retries: 15,
            fin_timeout: Duration::from_secs(60),
            keepalive: Keepalive {
                idle: Duration::from_secs(7200),
                interval: Duration::from_secs(75),
                probes_max: 9,
            },
            notsent_lowat: u64::from(u32::MAX),
            group_segments_min: 2,
            injected_segment_size: None,
            path_segment_size: None,
            initial_window_segments: 10,
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(120),
            mtu: 1500,
            ip_header_bytes: 20,
            route_mss: None,
            receive_buffer_stated: false,
            habits: None,
            refused_with_sack: None,
            timeout_undo: true,
            mtu_probing: MtuProbing::Off,
            queue_refuses: false,
            files: BTreeMap::new(),
        }
    }
}

/// What a script sets with `setsockopt` on one socket. Inherited by the connections of a listener.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SocketOptions {
    /// `SO_RCVBUF` as Linux keeps it (doubled).
    pub(crate) receive_buffer: Option<u64>,
    /// `SO_SNDBUF` likewise.
    pub(crate) send_buffer: Option<u64>,
    pub(crate) nodelay: bool,
    pub(crate) cork: bool,
    pub(crate) segment_size: Option<u16>,
    pub(crate) window_clamp: Option<u64>,
    pub(crate) user_timeout: Option<Duration>,
    pub(crate) keepalive: bool,
    pub(crate) keepalive_times: Keepalive,
    pub(crate) syn_retries: Option<u32>,
    /// `SO_LINGER` switched on.
    pub(crate) linger: Option<Duration>,
    /// `TCP_LINGER2`; negative: no waiting in FIN-WAIT-2.
    pub(crate) linger2: Option<i64>,
    pub(crate) algorithm: Algorithm,
    /// `TCP_NOTSENT_LOWAT`, where it differs from the host's.
    pub(crate) notsent_lowat: Option<u64>,
    pub(crate) receive_low_water: u64,
    /// `TCP_INQ`: `recvmsg` tells how many bytes are still queued.
    pub(crate) report_queued: bool,
    /// `SO_ZEROCOPY`: a write with `MSG_ZEROCOPY` is told of when its buffer is free.
    pub(crate) zerocopy: bool,
    /// `TCP_DEFER_ACCEPT` in repetitions of a SYN-ACK, zero for none.
    pub(crate) defer_accept: u32,
}

impl SocketOptions {
    pub(crate) fn new(settings: &Settings) -> Self {
        SocketOptions {
            receive_buffer: None,
            send_buffer: None,
            nodelay: false,
            cork: false,
            segment_size: None,
            window_clamp: None,
            user_timeout: None,
            keepalive: false,
            keepalive_times: settings.keepalive,
            syn_retries: None,
            linger: None,
            linger2: None,
            algorithm: settings.algorithm,
            notsent_lowat: None,
            receive_low_water: 1,
            report_queued: false,
            zerocopy: false,
            defer_accept: 0,
        }
    }
}

/// Least segment that Linux makes, options included, bytes (`TCP_MIN_MSS`).
const SEGMENT_SIZE_MIN: u16 = 88;
/// TCP header without options, bytes.
const TCP_HEADER_BYTES: u32 = 20;
/// Linux charges a receive buffer with about twice the payload.
const RECEIVE_OVERHEAD: u64 = 2;
/// Least `SO_RCVBUF` and `SO_SNDBUF` that Linux keeps, bytes.
pub(crate) const RECEIVE_BUFFER_MIN: u64 = 2304;
pub(crate) const SEND_BUFFER_MIN: u64 = 4608;
/// Linux's timers have ticks; two of them at least before a tail loss probe (`TCP_TIMEOUT_MIN`).
const TAIL_PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(2);
/// Time in TIME-WAIT.
const TIME_WAIT: Duration = Duration::from_secs(60);

impl Settings {
    /// What `defaults.sh` of the public suites sets.
    pub(crate) fn apply_suite_defaults(&mut self) {
        self.receive_buffer_stated = true;
        self.receive_buffer = BufferSizes { min: 4096, default: 540_000, max: 15 << 20 };
        self.send_buffer = BufferSizes { min: 4096, default: 256 << 10, max: 4 << 20 };
        self.timestamps = true;
        self.sack = true;
        self.ecn = EcnUse::Off;
        self.algorithm = Algorithm::Cubic;
        self.slow_start_after_idle = false;
        self.tail_probes = true;
        self.timeout_undo = true;
        self.refused_with_sack = None;
        self.syn_retries = 5;
        self.synack_retries = 5;
        self.notsent_lowat = u64::from(u32::MAX);
    }

    /// MSS that a socket announces.
    pub(crate) fn segment_size(&self, options: &SocketOptions) -> u16 {
        let path = self.mtu.saturating_sub(self.ip_header_bytes + TCP_HEADER_BYTES);
        let path = u16::try_from(path).unwrap_or(u16::MAX).max(SEGMENT_SIZE_MIN);
        let route = self.route_mss.unwrap_or(path).clamp(SEGMENT_SIZE_MIN, path);
        options.segment_size.map_or(route, |size| size.min(route))
    }

    /// Payload that a socket's receive buffer holds.
    pub(crate) fn receive_space(&self, options: &SocketOptions) -> u64 {
        let space = options.receive_buffer.unwrap_or(self.receive_buffer.default) / RECEIVE_OVERHEAD;
        options.window_clamp.map_or(space, |clamp| space.min(clamp))
    }

    /// The first window, in whole segments if possible.
    pub(crate) fn receive_window_initial(&self, options: &SocketOptions) -> u64 {
        let space = self.receive_space(options);
        let size = u64::from(self.segment_size(options)).max(1);
        let whole = if space >= size { space / size * size } else { space };
        match self.habits.and_then(|habits| habits.first_window).map(u64::from) {
            // Buffers that the script has sized bound what it can expect.
            Some(first)
                if options.receive_buffer.is_none() && (!self.receive_buffer_stated || first <= whole) =>
            {
                first
            }
            _ => whole,
        }
    }

    /// What a receive buffer grows to.
    fn receive_buffer_max(&self) -> u64 {
        match self.habits.and_then(|habits| habits.window_shift) {
            Some(shift) if !self.receive_buffer_stated => u64::from(u16::MAX) << shift.min(14),
            _ => self.receive_buffer.max,
        }
    }

    /// Room of a new socket's send buffer. An open connection's grows with its window, ten segments at first.
    pub(crate) fn send_space(&self, options: &SocketOptions) -> u64 {
        options.send_buffer.unwrap_or_else(|| self.send_buffer.default.max(2 * 10 * 2304))
    }

    /// How long Linux retransmits before it gives an open connection up: the time that `data_retries` timeouts take,
    /// doubling from the least one.
    fn user_timeout(&self) -> Duration {
        let mut total = Duration::ZERO;
        for retry in 0..=self.data_retries.min(60) {
            let doubled = self.rto_min.saturating_mul(1 << retry.min(20));
            total += doubled.min(self.rto_max);
        }
        total
    }

    /// Time in FIN-WAIT-2 of a connection that nobody owns.
    pub(crate) fn fin_timeout(&self, options: &SocketOptions) -> Duration {
        match options.linger2 {
            Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
            None => self.fin_timeout,
        }
    }

    /// The engine's parameters for a connection of a socket.
    pub(crate) fn config(&self, options: &SocketOptions, passive: bool) -> Config {
        let initial = self.receive_window_initial(options);
        let largest = match options.receive_buffer {
            Some(_) => initial,
            None => options.window_clamp.unwrap_or_else(|| self.receive_buffer_max()).max(initial),
        };
        let bytes = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Config {
            segment_size_max: self.segment_size(options),
            path_segment_size_max: self.path_segment_size.unwrap_or(u16::MAX),
            receive_window_initial: bytes(initial),
            receive_window_max: bytes(largest),
            algorithm: options.algorithm,
            initial_window_segments: self.initial_window_segments,
            timestamps: self.timestamps,
            sack: self.sack,
            window_scaling: self.window_scaling,
            ecn: match self.ecn {
                EcnUse::Off => false,
                EcnUse::On => true,
                EcnUse::Passive => passive,
            },
            keepalive: options.keepalive.then_some(options.keepalive_times),
            rto_initial: Duration::from_secs(1),
            rto_min: self.rto_min,
            rto_granularity: self.rto_min,
            rto_max: self.rto_max,
            syn_retries: match options.syn_retries {
                Some(retries) => retries,
                None if passive => self.synack_retries,
                None => self.syn_retries,
            },
            user_timeout: options.user_timeout.unwrap_or_else(|| self.user_timeout()),
            ack_delay_max: Duration::from_millis(40),
            ack_delay_min: Duration::from_millis(40),
            peer_ack_delay_max: self.rto_min,
            time_wait: TIME_WAIT,
            pacing: false,
            restart_after_idle: self.slow_start_after_idle,
            timeout_undo: self.timeout_undo,
            mtu_probing: self.mtu_probing,
            tail_probes: self.tail_probes,
            tail_probe_timeout_min: TAIL_PROBE_TIMEOUT_MIN,
            ..Config::default()
        }
    }
}
