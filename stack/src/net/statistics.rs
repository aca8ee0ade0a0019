//! Everything a stack counts, in one table.

/// One counter as the table tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// Name of the field.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// What it means, in a sentence.
    pub help: &'static str,
    /// Its value.
    pub value: u64,
}

/// Declares the counters once: the fields, their documentation, the table and the sum all follow from the list.
macro_rules! statistics {
    ($($field:ident: $unit:literal, $help:literal;)*) => {
        /// Counters of a stack since it was made. Every frame that is not used is counted in one of `rx_dropped_*`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StackStatistics {
            $(#[doc = $help] pub $field: u64,)*
        }

        impl StackStatistics {
            /// Names of the counters, in the order of the table.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];
            /// How many there are.
            pub const COUNT: usize = Self::NAMES.len();

            /// The values alone, in the order of the table.
            pub fn values(&self) -> [u64; Self::COUNT] {
                let StackStatistics { $($field),* } = *self;
                [$($field),*]
            }

            /// The counters with these values, in the order of the table.
            pub fn from_values(values: [u64; Self::COUNT]) -> Self {
                let [$($field),*] = values;
                StackStatistics { $($field),* }
            }

            /// The counters with names, units and meanings, in a fixed order.
            pub fn table(&self) -> Vec<Statistic> {
                let StackStatistics { $($field),* } = *self;
                vec![$(Statistic { name: stringify!($field), unit: $unit, help: $help, value: $field }),*]
            }

            /// Adds the counters of another stack (the shards of a node).
            pub fn add(&mut self, other: &StackStatistics) {
                let StackStatistics { $($field),* } = *other;
                $(self.$field = self.$field.wrapping_add($field);)*
            }
        }
    };
}

statistics! {
    rx_frames: "frames", "Frames received from the port.";
    rx_segments: "segments", "TCP segments handed to a connection.";
    rx_predicted: "segments", "Those of them whose headers were as the segment before let expect.";
    rx_slow_path: "frames", "Frames handed to the slow path: ARP, ICMP, NDP.";
    rx_dropped_truncated: "frames", "Frames shorter than their headers say.";
    rx_dropped_not_ours: "frames", "Frames or packets addressed to someone else.";
    rx_dropped_ethertype: "frames", "Frames of a protocol that is neither ARP nor IP.";
    rx_dropped_ip_header: "frames", "IP packets with a bad version, header length or total length.";
    rx_dropped_ip_checksum: "frames", "IPv4 packets with a wrong header checksum.";
    rx_dropped_fragment: "frames", "IP fragments; they are not reassembled.";
    rx_dropped_martian: "frames", "IP packets whose source address cannot be a peer's.";
    rx_dropped_protocol: "frames", "IP packets of a protocol that is neither TCP nor ICMP.";
    rx_dropped_segment: "segments", "TCP segments cut short or with impossible ports.";
    rx_dropped_checksum: "segments", "TCP segments with a wrong checksum.";
    rx_dropped_option: "segments", "TCP segments with an option of impossible length.";
    rx_dropped_no_connection: "segments", "TCP segments that belong to no connection and open none.";
    rx_dropped_backlog: "segments", "SYNs ignored because the listener's backlog was full and no cookie could be sent either.";
    rx_dropped_table_full: "segments", "SYNs ignored because the connection table was full.";
    rx_dropped_hand_over: "frames", "Frames that belong to another shard of the group, which had no room for them.";
    rx_dropped_slow_path_full: "frames", "Frames dropped because the queue to the slow path was full.";
    handed_over: "frames", "Frames that belong to another shard of the group, and were left there.";
    handed_in: "frames", "Frames that another shard of the group received and left here.";
    cookies_sent: "segments", "SYNs answered with a SYN cookie because the listener's backlog was full.";
    cookies_accepted: "connections", "Connections made from the acknowledgement of a SYN cookie.";
    cookies_rejected: "segments", "Acknowledgements to a listener that gives cookies which acknowledge none of them.";
    time_wait_reused: "connections", "Connections in TIME-WAIT that a newer SYN replaced.";
    icmp_errors_matched: "packets", "ICMP errors about one of our connections.";
    icmp_errors_unmatched: "packets", "ICMP errors about no connection of ours, or with a wrong checksum.";
    icmp_errors_believed: "packets", "ICMP errors about a segment in flight that a connection has acted upon or counted.";
    tx_segments: "segments", "TCP segments handed to the port; a super-segment counts once.";
    tx_payload_bytes: "bytes", "TCP payload handed to the port.";
    tx_control_frames: "frames", "Frames of the slow path, neighbour requests, resets and SYN cookies handed to the port.";
    tx_lost_at_port: "segments", "Segments that the port refused although it had room; recovered like any loss.";
    tx_dropped_control_full: "frames", "Control frames dropped because their queue was full.";
    tx_blocked_port: "times", "Transmission stopped because the port held as much as it should.";
    resets_sent: "segments", "RSTs sent for segments without a connection.";
    resets_suppressed: "segments", "RSTs not sent because of the rate limit.";
    connects: "connections", "Connections begun by this end.";
    accepts: "connections", "Connections begun by a peer's SYN, half-open or from a cookie.";
    established: "connections", "Connections whose handshake was completed.";
    refused_by_acceptor: "connections", "Connections reset because the acceptor did not want them.";
    closed_in_order: "connections", "Connections closed in order.";
    closed_otherwise: "connections", "Connections that ended in any other way.";
    failed_no_resources: "connections", "Connection attempts without a free port, address or table entry.";
    failed_unreachable: "connections", "Connection attempts without a route, or whose neighbour did not answer.";
    neighbour_requests: "packets", "ARP requests and neighbour solicitations sent.";
    neighbour_failures: "neighbours", "Neighbours given up after the last request.";
    neighbours_evicted: "neighbours", "Neighbours forgotten because the cache was full.";
    neighbour_notes_lost: "notes", "Notes about a neighbour for another shard of the group, which had no room for them.";
    wakes: "wakes", "Wakes delivered to endpoints.";
    timeouts: "timers", "Connection timers that fired.";
}

#[cfg(test)]
mod tests {
    use super::StackStatistics;

    #[test]
    fn table_and_sum_cover_every_field() {
        let mut sum = StackStatistics { rx_frames: 2, timeouts: 5, ..StackStatistics::default() };
        sum.add(&StackStatistics { rx_frames: 3, timeouts: 1, ..StackStatistics::default() });
        let table = sum.table();
        assert_eq!(table.len() * 8, size_of::<StackStatistics>());
        assert_eq!(StackStatistics::from_values(sum.values()), sum);
        assert!(
            table
                .iter()
                .map(|row| (row.name, row.value))
                .eq(StackStatistics::NAMES.iter().copied().zip(sum.values()))
        );
        assert_eq!(table.first().map(|row| (row.name, row.value)), Some(("rx_frames", 5)));
        assert_eq!(table.last().map(|row| (row.name, row.value)), Some(("timeouts", 6)));
        assert!(table.iter().all(|row| !row.unit.is_empty() && row.help.ends_with('.')));
    }
}
