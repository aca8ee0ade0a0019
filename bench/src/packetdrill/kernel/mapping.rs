//! Between the numbers of a script and those of the wire: sequence numbers count from the initial ones, and
//! timestamps of the script stand for those the stack really sent.

use std::collections::HashMap;

use crate::packetdrill::language::packet::TcpSpec;
use crate::packetdrill::segment::{Segment, TcpOption};

/// The mapping of one connection. On a SYN sequence numbers are as written; elsewhere they count from the SYN's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping {
    remote_initial: u32,
    local_initial: u32,
    /// What the script calls our initial sequence number.
    local_initial_script: u32,
    /// TSval of the script to TSval sent.
    timestamps: HashMap<u32, u32>,
    /// TSval of the script and TSval sent, of the first segment that had both.
    first_timestamp: Option<(u32, u32)>,
}

impl Mapping {
    /// The peer's SYN has this number in the script, and therefore on the wire.
    pub(crate) fn set_remote(&mut self, initial: u32) {
        self.remote_initial = initial;
    }

    /// The engine's initial sequence number.
    pub(crate) fn set_local(&mut self, initial: u32) {
        self.local_initial = initial;
    }

    /// The script expects our SYN with this number.
    pub(crate) fn set_local_script(&mut self, initial: u32) {
        self.local_initial_script = initial;
    }

    fn local_offset(&self, syn: bool) -> u32 {
        if syn { self.local_initial.wrapping_sub(self.local_initial_script) } else { self.local_initial }
    }

    fn remote_offset(&self, syn: bool) -> u32 {
        if syn { 0 } else { self.remote_initial }
    }

    /// The wire number of one of our sequence numbers in the script.
    pub(crate) fn local_sequence(&self, script: u32) -> u32 {
        script.wrapping_add(self.local_initial)
    }

    /// The wire number of one of the peer's sequence numbers in the script.
    pub(crate) fn remote_sequence(&self, script: u32) -> u32 {
        script.wrapping_add(self.remote_initial)
    }

    /// The segment that a `<` statement stands for.
    pub(crate) fn inbound(&self, spec: &TcpSpec) -> Result<Segment, String> {
        let syn = spec.flags.syn;
        let ours = self.local_offset(syn);
        let mut options = spec.options.clone().unwrap_or_default();
        for option in &mut options {
            match option {
                TcpOption::Sack(blocks) => {
                    for (left, right) in blocks {
                        *left = left.wrapping_add(ours);
                        *right = right.wrapping_add(ours);
                    }
                }
                TcpOption::Timestamps { ecr, .. } if spec.flags.ack => *ecr = self.echo(*ecr)?,
                _ => {}
            }
        }
        Ok(Segment {
            flags: spec.flags,
            seq: spec.seq.wrapping_add(self.remote_offset(syn)),
            ack: if spec.flags.ack { spec.ack.wrapping_add(ours) } else { spec.ack },
            window: spec.window.unwrap_or(0),
            urgent: spec.urgent,
            options,
            length: spec.length,
        })
    }

    /// The timestamp that the script's `ecr` echoes: one that was sent, or one between two of them.
    fn echo(&self, script: u32) -> Result<u32, String> {
        match (self.timestamps.get(&script), self.first_timestamp) {
            (Some(live), _) => Ok(*live),
            (None, Some((first, live))) => Ok(script.wrapping_sub(first).wrapping_add(live)),
            (None, None) => Err(format!("`ecr {script}` echoes a timestamp, but none was sent yet")),
        }
    }

    /// A segment that left, in the numbers of the script.
    pub(crate) fn outbound(&self, live: &Segment) -> Segment {
        let syn = live.flags.syn;
        let theirs = self.remote_offset(syn);
        let mut segment = live.clone();
        segment.seq = live.seq.wrapping_sub(self.local_offset(syn));
        if live.flags.ack {
            segment.ack = live.ack.wrapping_sub(theirs);
        }
        for option in &mut segment.options {
            match option {
                TcpOption::Sack(blocks) => {
                    for (left, right) in blocks {
                        *left = left.wrapping_sub(theirs);
                        *right = right.wrapping_sub(theirs);
                    }
                }
                TcpOption::Timestamps { val, .. } => {
                    if let Some((first, live)) = self.first_timestamp {
                        *val = val.wrapping_sub(live).wrapping_add(first);
                    }
                }
                _ => {}
            }
        }
        segment
    }

    /// Remembers which timestamp sent the script's stands for.
    pub(crate) fn learn_timestamp(&mut self, script: u32, live: u32) {
        self.timestamps.insert(script, live);
        self.first_timestamp.get_or_insert((script, live));
    }
}
