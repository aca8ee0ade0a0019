//! A TCP header from any bytes, and back.
#![allow(missing_docs, unreachable_pub)]

use std::net::IpAddr;

use outrider_drivers::port::ReceiveChecksum;
use outrider_stack::tcp::segment::{Flags, Header, Options, SackBlock, Timestamps};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::wire::{Emission, Envelope, OPTIONS_BYTES_MAX, Ports, emit, header_length, parse};

fn addresses(v6: bool) -> (IpAddr, IpAddr) {
    let (source, destination) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
    (source.parse().expect("an address"), destination.parse().expect("an address"))
}

/// The first byte says how the segment came; the rest is the segment.
pub fn run(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    let (source, destination) = addresses(how & 1 == 1);
    let checksum = if how & 2 == 2 { ReceiveChecksum::Unverified } else { ReceiveChecksum::Valid };
    let envelope = Envelope { source, destination, checksum, congestion_experienced: how & 4 == 4 };
    let Ok((ports, segment)) = parse(bytes, &envelope) else { return };
    let header = segment.header;
    assert!(segment.payload.len() + 20 <= bytes.len(), "the payload is part of the segment");
    let length = header_length(&header);
    assert!(length.is_multiple_of(4) && (20..=20 + OPTIONS_BYTES_MAX).contains(&length));

    // What is written of what was read is read the same, checksum included.
    let emission = Emission { ports, source, destination, checksum_offload: false };
    let mut buffer = vec![0xff; length + segment.payload.len()];
    let (first, second) = segment.payload.split_at(segment.payload.len() / 2);
    assert_eq!(emit(&mut buffer, &emission, &header, [first, second]), buffer.len());
    let envelope = Envelope { checksum: ReceiveChecksum::Unverified, ..envelope };
    let (again_ports, again) = parse(&buffer, &envelope).expect("what is written can be read");
    let mut expected = header;
    let fitting = again.header.options.sack.as_slice();
    assert_eq!(
        fitting,
        &header.options.sack.as_slice()[..fitting.len()],
        "blocks are left out at the end only"
    );
    expected.options.sack = again.header.options.sack;
    assert_eq!((again_ports, again.header, again.payload), (ports, expected, segment.payload));
}

/// Valid segments.
pub fn examples() -> Vec<Vec<u8>> {
    let timestamps = Some(Timestamps { value: 0x0102_0304, echo: 0x0506_0708 });
    let mut sack = Options { timestamps, ..Options::default() };
    for start in [100, 300, 500] {
        sack.sack.push(SackBlock { start: SeqNumber(start), end: SeqNumber(start + 100) });
    }
    let syn = Options {
        segment_size_max: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps,
        ..Options::default()
    };
    let mut examples = Vec::new();
    for (options, flags) in [
        (Options::default(), Flags { psh: true, ..Flags::default() }),
        (sack, Flags { ece: true, ..Flags::default() }),
        (syn, Flags { syn: true, ece: true, cwr: true, ..Flags::default() }),
    ] {
        for v6 in [false, true] {
            let header = Header { seq: SeqNumber(7), ack: Some(SeqNumber(9)), flags, window: 500, options };
            let (source, destination) = addresses(v6);
            let ports = Ports { source: 40_000, destination: 6_800 };
            let emission = Emission { ports, source, destination, checksum_offload: false };
            let mut bytes = vec![0; header_length(&header) + 6];
            emit(&mut bytes, &emission, &header, [b"pay", b"load".split_at(3).0]);
            bytes.insert(0, u8::from(v6) | 2);
            examples.push(bytes);
        }
    }
    examples
}
