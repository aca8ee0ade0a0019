//! Which connections are shown, and in which order.

use std::str::FromStr;

use clap::ValueEnum;
use outrider_stack::tcp::source::Blocked;

use super::rows::Row;

/// What connections are sorted by, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// Payload received and sent, a second
    #[default]
    Traffic,
    /// Bytes unsent and in flight
    Occupancy,
    /// Round trip of the last heartbeat
    Heartbeat,
    /// Smoothed round trip of TCP
    Rtt,
    /// Segments sent again
    Retransmits,
    /// Those that something blocks first
    Blocked,
}

impl Sort {
    /// As options and the screen spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sort::Traffic => "traffic",
            Sort::Occupancy => "occupancy",
            Sort::Heartbeat => "heartbeat",
            Sort::Rtt => "rtt",
            Sort::Retransmits => "retransmits",
            Sort::Blocked => "blocked",
        }
    }

    /// The one after it, round and round.
    pub(crate) fn next(self) -> Self {
        let all = Sort::value_variants();
        let at = all.iter().position(|sort| *sort == self).unwrap_or(0);
        all[(at + 1) % all.len()]
    }

    /// What `row` is sorted by.
    pub(super) fn weight(self, row: &Row<'_>) -> f64 {
        let report = &row.record.report;
        let seconds = |time: Option<std::time::Duration>| time.map_or(-1.0, |time| time.as_secs_f64());
        match self {
            Sort::Traffic => row.rx_bits_per_second + row.tx_bits_per_second,
            Sort::Occupancy => row.record.occupancy_bytes() as f64,
            Sort::Heartbeat => seconds(report.heartbeat_rtt),
            Sort::Rtt => seconds(report.summary.send.smoothed_rtt),
            Sort::Retransmits => report.statistics.retransmits as f64,
            Sort::Blocked => f64::from(u8::from(report.summary.send.blocked != Blocked::Nothing)),
        }
    }
}

/// Which connections are shown: all that fit every term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// Of this shard.
    Shard(usize),
    /// With this TCP port at either end.
    Port(u16),
    /// Something holds it back.
    Blocked,
    /// Its state in the last column, or part of the peer's address.
    Text(String),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = |what: &str, value: &str| {
            format!("'{value}' is no {what}; try shard=0, port=7077, blocked, cwnd or 10.0.0.2")
        };
        let term = |word: &str| match word.split_once('=') {
            Some(("shard", value)) => value.parse().map(Term::Shard).map_err(|_| wanted("shard", value)),
            Some(("port", value)) => value.parse().map(Term::Port).map_err(|_| wanted("port", value)),
            Some((key, _)) => Err(wanted("key", key)),
            None if word == "blocked" => Ok(Term::Blocked),
            None => Ok(Term::Text(word.to_owned())),
        };
        text.split([' ', ',']).filter(|word| !word.is_empty()).map(term).collect::<Result<_, _>>().map(Filter)
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let terms = self.0.iter().map(|term| match term {
            Term::Shard(shard) => format!("shard={shard}"),
            Term::Port(port) => format!("port={port}"),
            Term::Blocked => "blocked".to_owned(),
            Term::Text(text) => text.clone(),
        });
        f.write_str(&terms.collect::<Vec<_>>().join(" "))
    }
}

impl Filter {
    /// Whether everything is shown.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Only what something blocks, or that no longer.
    pub(crate) fn toggle_blocked(&mut self) {
        match self.0.iter().position(|term| *term == Term::Blocked) {
            Some(index) => drop(self.0.remove(index)),
            None => self.0.push(Term::Blocked),
        }
    }

    pub(super) fn lets_pass(&self, row: &Row<'_>) -> bool {
        let summary = &row.record.report.summary;
        self.0.iter().all(|term| match term {
            Term::Shard(shard) => row.shard == *shard,
            Term::Port(port) => [summary.local.port(), summary.remote.port()].contains(port),
            Term::Blocked => summary.send.blocked != Blocked::Nothing,
            Term::Text(text) => row.state() == text || summary.remote.to_string().contains(text.as_str()),
        })
    }
}
