//! Segments between two engines.

use outrider_stack::tcp::segment::{Header, Outgoing};

/// A segment on its way.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    pub header: Header,
    pub payload: Vec<u8>,
    pub ecn_capable: bool,
    pub marked: bool,
}

/// The segments of what an engine gave, as a port that segments cuts them.
pub(crate) fn cut(outgoing: &Outgoing, payload: &[u8], segment_size: usize) -> Vec<InFlight> {
    let count = payload.len().div_ceil(segment_size).max(1);
    let piece = |index: usize| {
        let from = index * segment_size;
        let to = payload.len().min(from.saturating_add(segment_size));
        let mut header = outgoing.header;
        header.seq = header.seq.add(from as u32);
        let is_last = index + 1 == count;
        header.flags.psh &= is_last;
        header.flags.fin &= is_last;
        header.flags.cwr &= index == 0;
        let payload = payload[from..to].to_vec();
        InFlight { header, payload, ecn_capable: outgoing.ecn_capable, marked: false }
    };
    (0..count).map(piece).collect()
}
