//! Segments to bytes and back: every combination of options, and bytes that nobody meant.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use outrider_drivers::port::ReceiveChecksum;
use outrider_stack::tcp::segment::{Flags, Header, Options, SackBlock, SackBlocks, Timestamps};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::wire::{
    Emission, Envelope, Ports, SegmentError, emit, header_length, parse, pseudo_header_sum,
};
use proptest::prelude::{Strategy, any, prop};
use proptest::{prop_assert, prop_assert_eq, proptest};

const PORTS: Ports = Ports { source: 40_000, destination: 6_800 };

fn addresses(v6: bool) -> (IpAddr, IpAddr) {
    let (source, destination) = if v6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.0.0.2") };
    let read = |text: &str| text.parse().expect("an address of the test");
    (read(source), read(destination))
}

fn envelope(v6: bool, checksum: ReceiveChecksum) -> Envelope {
    let (source, destination) = addresses(v6);
    Envelope { source, destination, checksum, congestion_experienced: false }
}

fn to_bytes(v6: bool, checksum_offload: bool, header: &Header, payload: [&[u8]; 2]) -> Vec<u8> {
    let (source, destination) = addresses(v6);
    let emission = Emission { ports: PORTS, source, destination, checksum_offload };
    // Filled with something, so that a byte left out shows.
    let mut buffer = vec![0xa5; header_length(header) + payload[0].len() + payload[1].len() + 3];
    let length = emit(&mut buffer, &emission, header, payload);
    assert_eq!(buffer[length..], [0xa5; 3], "nothing beyond the segment is touched");
    buffer.truncate(length);
    buffer
}

fn sack(blocks: &[(u32, u32)]) -> SackBlocks {
    let mut sack = SackBlocks::default();
    for (start, end) in blocks {
        sack.push(SackBlock { start: SeqNumber(*start), end: SeqNumber(*end) });
    }
    sack
}

fn options() -> impl Strategy<Value = Options> {
    let on_syn = (any::<Option<u16>>(), prop::option::of(0u8..=14), any::<bool>());
    let timestamps = prop::option::of((any::<u32>(), any::<u32>()));
    let blocks = prop::collection::vec((any::<u32>(), any::<u32>()), 0..=4);
    (on_syn, timestamps, blocks).prop_map(|((mss, scale, permitted), timestamps, blocks)| {
        let mut options = Options {
            segment_size_max: mss,
            window_scale: scale,
            sack_permitted: permitted,
            timestamps: timestamps.map(|(value, echo)| Timestamps { value, echo }),
            sack: SackBlocks::default(),
        };
        let taken = header_length(&Header { options, ..Header::default() }) - 20;
        let room = (40 - taken).saturating_sub(4) / 8;
        options.sack = sack(&blocks[..blocks.len().min(room)]);
        options
    })
}

fn header() -> impl Strategy<Value = Header> {
    let numbers = (any::<u32>(), any::<Option<u32>>(), any::<u16>());
    (numbers, any::<[bool; 6]>(), options()).prop_map(|((seq, ack, window), flags, options)| {
        let [syn, fin, rst, psh, ece, cwr] = flags;
        Header {
            seq: SeqNumber(seq),
            ack: ack.map(SeqNumber),
            flags: Flags { syn, fin, rst, psh, ece, cwr },
            window,
            options,
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        header in header(),
        first in prop::collection::vec(any::<u8>(), 0..1_500),
        second in prop::collection::vec(any::<u8>(), 0..100),
        v6 in any::<bool>(),
    ) {
        let bytes = to_bytes(v6, false, &header, [&first, &second]);
        prop_assert!(header_length(&header) <= 60 && header_length(&header).is_multiple_of(4));
        let (ports, segment) = parse(&bytes, &envelope(v6, ReceiveChecksum::Unverified)).unwrap();
        prop_assert_eq!(ports, PORTS);
        prop_assert_eq!(segment.header, Header { ack: header.ack, ..header });
        prop_assert_eq!(segment.payload, [first, second].concat());
    }

    #[test]
    fn one_wrong_bit_is_found(
        header in header(),
        payload in prop::collection::vec(any::<u8>(), 0..100),
        at in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let mut bytes = to_bytes(false, false, &header, [&payload, &[]]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        // A damaged data offset may also make the header impossible; nothing damaged may be taken for good.
        let read = parse(&bytes, &envelope(false, ReceiveChecksum::Unverified));
        prop_assert!(matches!(read, Err(SegmentError::Checksum | SegmentError::Truncated)), "{:?}", read);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), v6 in any::<bool>()) {
        let _ = parse(&bytes, &envelope(v6, ReceiveChecksum::Valid));
        let _ = parse(&bytes, &envelope(v6, ReceiveChecksum::Unverified));
    }

    #[test]
    fn any_options_are_read_or_refused(
        options in prop::collection::vec(prop_byte(), 40),
        length in 0usize..=10,
    ) {
        let mut bytes = to_bytes(false, false, &Header::default(), [&[], &[]]);
        bytes.extend_from_slice(&options[..length * 4]);
        bytes[12] = ((5 + length) << 4) as u8;
        match parse(&bytes, &envelope(false, ReceiveChecksum::Valid)) {
            Ok((_, segment)) => prop_assert!(segment.payload.is_empty()),
            Err(error) => prop_assert_eq!(error, SegmentError::Option),
        }
    }
}

/// Bytes that look like options more often than chance would.
fn prop_byte() -> impl Strategy<Value = u8> {
    proptest::prop_oneof![0u8..=10, 0u8..=40, any::<u8>()]
}

fn with_options(options: &[u8]) -> Result<Options, SegmentError> {
    let mut bytes = to_bytes(false, false, &Header::default(), [&[], &[]]);
    bytes.extend_from_slice(options);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes[12] = ((bytes.len() / 4) << 4) as u8;
    parse(&bytes, &envelope(false, ReceiveChecksum::Valid)).map(|(_, segment)| segment.header.options)
}

#[test]
fn four_sack_blocks_fit_without_timestamps_and_three_with() {
    let blocks = [(1, 2), (3, 4), (5, 6), (7, 8)];
    let mut header =
        Header { options: Options { sack: sack(&blocks), ..Options::default() }, ..Header::default() };
    let read = |header: &Header| {
        let bytes = to_bytes(false, false, header, [&[], &[]]);
        let parsed = parse(&bytes, &envelope(false, ReceiveChecksum::Unverified)).unwrap();
        parsed.1.header.options.sack
    };
    assert_eq!(header_length(&header), 20 + 36);
    assert_eq!(read(&header), sack(&blocks));
    header.options.timestamps = Some(Timestamps { value: 1, echo: 2 });
    assert_eq!(header_length(&header), 20 + 12 + 28);
    assert_eq!(read(&header), sack(&blocks[..3]));
}

#[test]
fn options_lie_as_linux_lays_them() {
    let timestamps = Some(Timestamps { value: 0x0102_0304, echo: 0x0506_0708 });
    let syn = Options {
        segment_size_max: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps,
        sack: SackBlocks::default(),
    };
    let bytes =
        |options| to_bytes(false, false, &Header { options, ..Header::default() }, [&[], &[]])[20..].to_vec();
    let expected = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7];
    assert_eq!(bytes(syn), expected);
    let data = Options { timestamps, sack: sack(&[(1, 2)]), ..Options::default() };
    let expected = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(bytes(data), expected);
    assert_eq!(bytes(Options { sack_permitted: true, ..Options::default() }), [1, 1, 4, 2]);
}

#[test]
fn impossible_options_are_refused_and_unknown_ones_skipped() {
    let bad: [&[u8]; 9] = [
        &[2, 3, 5],                   // MSS of three bytes
        &[3, 4, 1, 0],                // window scale of four
        &[4, 3, 0],                   // SACK permitted of three
        &[5, 2],                      // SACK without blocks
        &[5, 9, 0, 0, 0, 0, 0, 0, 0], // SACK of a block less a byte
        &[8, 9, 0, 0, 0, 0, 0, 0, 0], // timestamps of nine
        &[254, 0, 0, 0],              // a length of zero would never end
        &[254, 1, 0, 0],
        &[1, 1, 1, 254], // no room for a length
    ];
    for options in bad {
        assert_eq!(with_options(options), Err(SegmentError::Option), "{options:?}");
    }
    assert_eq!(with_options(&[254, 200, 0, 0]), Err(SegmentError::Option), "longer than the header");
    let read = with_options(&[254, 4, 9, 9, 2, 4, 1, 0, 0, 99, 99, 99]).unwrap();
    assert_eq!(
        read,
        Options { segment_size_max: Some(256), ..Options::default() },
        "nothing counts after the end"
    );
    assert_eq!(with_options(&[3, 3, 200]).unwrap().window_scale, Some(14), "RFC 7323 section 2.3");
}

#[test]
fn a_device_that_completes_checksums_finds_the_pseudo_header_sum() {
    for v6 in [false, true] {
        let payload = vec![7; 999];
        let header = Header { seq: SeqNumber(5), window: 1, ..Header::default() };
        let complete = to_bytes(v6, false, &header, [&payload, &[]]);
        let mut partial = to_bytes(v6, true, &header, [&payload, &[]]);
        let (source, destination) = addresses(v6);
        let field = u16::from_be_bytes([partial[16], partial[17]]);
        assert_eq!(field, pseudo_header_sum(source, destination, partial.len()));
        // What the device does: sums everything from the TCP header on, the field included, and inverts.
        partial.push(0);
        let words = partial.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        assert_eq!((!sum as u16).to_be_bytes(), complete[16..18]);
    }
}

#[test]
fn ports_of_zero_and_mixed_families_are_refused() {
    let mut bytes = to_bytes(false, false, &Header::default(), [&[], &[]]);
    let mixed = Envelope { destination: addresses(true).1, ..envelope(false, ReceiveChecksum::Valid) };
    assert_eq!(parse(&bytes, &mixed).unwrap_err(), SegmentError::Family);
    bytes[2..4].fill(0);
    let read = parse(&bytes, &envelope(false, ReceiveChecksum::Valid));
    assert_eq!(read.unwrap_err(), SegmentError::PortZero);
    assert_eq!(
        parse(&bytes[..19], &envelope(false, ReceiveChecksum::Valid)).unwrap_err(),
        SegmentError::Truncated
    );
}
