//! Counters of a connection, in one table: name, unit, help.

/// One row of [`ConnectionStatistics::rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name as reports spell it.
    pub name: &'static str,
    /// Unit of the value.
    pub unit: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// The value.
    pub value: u64,
}

/// Declares a struct of counters whose every field appears, with unit and help, in the rows it gives.
#[macro_export]
macro_rules! statistics_table {
    ($(#[$meta:meta])* pub struct $name:ident { $($field:ident: $unit:literal, $help:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $(#[doc = concat!($help, " (", $unit, ").")] pub $field: u64,)*
        }

        impl $name {
            /// Names of the counters, in the order of the rows.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];
            /// How many there are.
            pub const COUNT: usize = Self::NAMES.len();

            /// The values alone, in the order of the rows.
            pub fn values(&self) -> [u64; Self::COUNT] {
                let $name { $($field),* } = *self;
                [$($field),*]
            }

            /// The counters with these values, in the order of the rows.
            pub fn from_values(values: [u64; Self::COUNT]) -> Self {
                let [$($field),*] = values;
                $name { $($field),* }
            }

            /// Every counter with its name, unit and meaning.
            pub fn rows(&self) -> Vec<$crate::tcp::statistics::Row> {
                // Exhaustive on purpose: a new field fails the build until it has a row.
                let $name { $($field),* } = *self;
                vec![$($crate::tcp::statistics::Row {
                    name: stringify!($field), unit: $unit, help: $help, value: $field,
                }),*]
            }

            /// Adds every counter of `other`.
            pub fn add(&mut self, other: &$name) {
                let $name { $($field),* } = *other;
                $(self.$field += $field;)*
            }
        }
    };
}

statistics_table! {
    /// What one connection has counted since it began.
    pub struct ConnectionStatistics {
        segments_sent: "segments", "Segments sent, retransmissions and pure acknowledgements included";
        segments_received: "segments", "Segments received for this connection";
        payload_bytes_sent: "bytes", "Payload sent for the first time";
        payload_bytes_received: "bytes", "Payload delivered in order";
        acks_sent: "segments", "Pure acknowledgements sent";
        retransmits: "segments", "Segments retransmitted, for whatever reason";
        retransmitted_bytes: "bytes", "Payload retransmitted";
        tail_probes: "segments", "Tail loss probes sent (RFC 8985)";
        retransmission_timeouts: "events", "Retransmission timer expiries";
        recoveries: "events", "Times loss recovery was entered";
        spurious_recoveries: "events", "Recoveries and timeouts undone as spurious";
        window_probes: "segments", "Zero-window probes sent";
        urgent_beyond_window: "segments", "Out-of-band segments sent beyond the congestion window";
        out_of_order_segments: "segments", "Segments received ahead of a gap";
        out_of_order_refused: "segments", "Segments ahead of a gap refused by a bound";
        duplicate_segments: "segments", "Segments received again, in whole or in part";
        dsacks_received: "blocks", "Duplicate SACK reports from the peer (RFC 2883)";
        unacceptable_segments: "segments", "Segments outside the receive window";
        marked_segments: "segments", "Segments received with the Congestion Experienced mark (RFC 3168)";
        congestion_echoes: "segments", "Acknowledgements received with ECE";
        icmp_ignored: "messages", "ICMP errors not about a segment in flight (RFC 5927)";
        icmp_unreachable: "messages", "ICMP unreachable errors about a segment in flight";
        path_mtu_reductions: "events", "Times the segment size was reduced for the path MTU";
        path_mtu_probes: "segments", "Larger segments tried out on the path (RFC 4821)";
        keepalive_probes: "segments", "Keepalive probes sent";
        challenge_acks: "segments", "Challenge acknowledgements sent (RFC 5961)";
        paws_rejected: "segments", "Segments rejected for an old timestamp (RFC 7323)";
        bad_acks: "segments", "Acknowledgements of data never sent or long gone";
    }
}
