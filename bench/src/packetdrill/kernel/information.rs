//! `TCP_INFO`: the names that assertions use, and their values.

use std::time::Duration;

use outrider_stack::tcp::connection::{Inspection, RecoveryState, State};
use outrider_stack::time::Instant;

use super::Conn;

/// Linux numbers its states so.
fn state_number(state: Option<State>) -> i64 {
    match state {
        Some(State::Established) => 1,
        Some(State::SynSent) => 2,
        Some(State::SynReceived) => 3,
        Some(State::FinWait1) => 4,
        Some(State::FinWait2) => 5,
        Some(State::TimeWait) => 6,
        Some(State::Closed) | None => 7,
        Some(State::CloseWait) => 8,
        Some(State::LastAck) => 9,
        Some(State::Closing) => 11,
    }
}

/// Constants of assertions.
const CONSTANTS: [(&str, i64); 22] = [
    ("TCP_ESTABLISHED", 1),
    ("TCP_SYN_SENT", 2),
    ("TCP_SYN_RECV", 3),
    ("TCP_FIN_WAIT1", 4),
    ("TCP_FIN_WAIT2", 5),
    ("TCP_TIME_WAIT", 6),
    ("TCP_CLOSE", 7),
    ("TCP_CLOSE_WAIT", 8),
    ("TCP_LAST_ACK", 9),
    ("TCP_LISTEN", 10),
    ("TCP_CLOSING", 11),
    ("TCP_CA_Open", 0),
    ("TCP_CA_Disorder", 1),
    ("TCP_CA_CWR", 2),
    ("TCP_CA_Recovery", 3),
    ("TCP_CA_Loss", 4),
    ("TCPI_OPT_TIMESTAMPS", 1),
    ("TCPI_OPT_SACK", 2),
    ("TCPI_OPT_WSCALE", 4),
    ("TCPI_OPT_ECN", 8),
    ("TCPI_OPT_ECN_SEEN", 16),
    ("TCPI_OPT_SYN_DATA", 32),
];

/// What Linux says where there is no slow-start threshold yet, in segments.
const NO_THRESHOLD: i64 = 0x7fff_ffff;

/// Names with their values.
pub(crate) type Names = Vec<(&'static str, i64)>;

/// Every name an assertion may use, with its value for this connection at `now`.
pub(crate) fn names(conn: Option<&Conn>, now: Instant) -> Names {
    let mut all: Names = CONSTANTS.to_vec();
    match conn.and_then(|conn| Some((conn, conn.inspect(now)?))) {
        None => all.push(("tcpi_state", state_number(None))),
        Some((conn, seen)) => {
            add_state(&mut all, conn, &seen, now);
            add_counts(&mut all, conn, &seen);
        }
    }
    all
}

fn micros(time: Duration) -> i64 {
    time.as_micros() as i64
}

fn millis(time: Duration) -> i64 {
    time.as_millis() as i64
}

/// What is now.
fn add_state(all: &mut Names, conn: &Conn, seen: &Inspection, now: Instant) {
    let segments = |bytes: u64| (bytes / seen.segment_size.max(1)) as i64;
    let threshold = match seen.slow_start_threshold {
        u64::MAX => NO_THRESHOLD,
        bytes => segments(bytes),
    };
    let flags = [(seen.timestamps, 1), (seen.sack, 2), (seen.window_scaling, 4), (seen.ecn, 8)];
    let options: i64 = flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
    let announced = i64::from(conn.config.segment_size_max);
    let recovery = match seen.recovery {
        RecoveryState::Open => 0,
        RecoveryState::Disorder => 1,
        RecoveryState::Reduced => 2,
        RecoveryState::Recovery => 3,
        RecoveryState::Loss => 4,
    };
    all.extend([
        ("tcpi_state", state_number(Some(seen.state))),
        ("tcpi_ca_state", recovery),
        ("tcpi_retransmits", i64::from(seen.backoff)),
        ("tcpi_probes", i64::from(seen.probes)),
        ("tcpi_backoff", i64::from(seen.backoff)),
        ("tcpi_options", options),
        ("tcpi_snd_wscale", i64::from(seen.send_window_shift)),
        ("tcpi_rcv_wscale", i64::from(seen.receive_window_shift)),
        ("tcpi_rto", micros(seen.retransmission_timeout)),
        ("tcpi_ato", micros(conn.stream.acks.delay())),
        ("tcpi_snd_mss", seen.segment_size as i64),
        ("tcpi_rcv_mss", conn.stream.acks.segment_size as i64),
        ("tcpi_unacked", seen.segments_unacked as i64),
        ("tcpi_sacked", seen.segments_sacked as i64),
        ("tcpi_lost", seen.segments_lost as i64),
        ("tcpi_retrans", seen.segments_retransmitted as i64),
        ("tcpi_fackets", 0),
        ("tcpi_last_data_sent", millis(now - conn.last_data_sent)),
        // Linux does not remember it either.
        ("tcpi_last_ack_sent", 0),
        ("tcpi_last_data_recv", millis(now - conn.stream.last_data_received)),
        ("tcpi_last_ack_recv", millis(now - conn.last_ack_received)),
        ("tcpi_pmtu", announced + 40),
        ("tcpi_rtt", seen.smoothed_rtt.map_or(0, micros)),
        ("tcpi_rttvar", micros(seen.rtt_variation)),
        ("tcpi_min_rtt", seen.rtt_min.map_or(0, micros)),
        ("tcpi_snd_ssthresh", threshold),
        ("tcpi_snd_cwnd", segments(seen.congestion_window)),
        ("tcpi_advmss", announced - if seen.timestamps { 12 } else { 0 }),
        ("tcpi_reordering", (seen.reordering_bytes.div_ceil(seen.segment_size.max(1)) as i64).max(3)),
        ("tcpi_pacing_rate", seen.pacing_rate.map_or(-1, |rate| rate as i64)),
        ("tcpi_max_pacing_rate", -1),
        ("tcpi_busy_time", micros(conn.limits.busy(now))),
        ("tcpi_rwnd_limited", micros(conn.limits.by_window(now))),
        ("tcpi_sndbuf_limited", micros(conn.limits.by_send_buffer(now))),
        ("tcpi_snd_wnd", seen.send_window as i64),
        ("tcpi_rcv_wnd", seen.receive_window as i64),
    ]);
}

/// What was counted.
fn add_counts(all: &mut Names, conn: &Conn, seen: &Inspection) {
    let counters = conn.engine().map(|engine| engine.statistics()).unwrap_or_default();
    let counts = conn.counts;
    all.extend([
        ("tcpi_total_retrans", counters.retransmits as i64),
        ("tcpi_bytes_acked", seen.bytes_acked as i64),
        ("tcpi_bytes_received", counters.payload_bytes_received as i64),
        ("tcpi_segs_out", counts.segments_out as i64),
        ("tcpi_segs_in", counts.segments_in as i64),
        ("tcpi_notsent_bytes", conn.stream.unsent_bytes() as i64),
        ("tcpi_data_segs_in", counts.data_segments_in as i64),
        ("tcpi_data_segs_out", counts.data_segments_out as i64),
        ("tcpi_delivery_rate", seen.delivery_rate as i64),
        ("tcpi_delivered", seen.delivered_bytes.div_ceil(seen.segment_size.max(1)) as i64),
        ("tcpi_delivered_ce", counts.marked_acks as i64),
        ("tcpi_bytes_sent", (counters.payload_bytes_sent + counters.retransmitted_bytes) as i64),
        ("tcpi_bytes_retrans", counters.retransmitted_bytes as i64),
        ("tcpi_dsack_dups", counters.dsacks_received as i64),
        ("tcpi_reord_seen", i64::from(seen.reordering_events)),
        ("tcpi_rcv_ooopack", counters.out_of_order_segments as i64),
    ]);
}
