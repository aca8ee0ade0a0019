//! Super-segments and partial checksums, judged by smoltcp's views.

use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

use super::*;
use crate::rng::Rng;

/// A TCP frame whose checksum field holds the sum over the pseudo-header, as for a device.
pub(crate) fn tcp_frame(is_ipv6: bool, options: usize, flags: u8, payload: &[u8]) -> Vec<u8> {
    let tcp_bytes = 20 + options + payload.len();
    let mut ip = if is_ipv6 {
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend((tcp_bytes as u16).to_be_bytes());
        ip.extend([PROTOCOL_TCP, 64]);
        for host in [1, 2] {
            ip.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
        ip
    } else {
        let mut ip = vec![0x45, 0];
        ip.extend((20 + tcp_bytes as u16).to_be_bytes());
        ip.extend([0xff, 0xfe, 0x40, 0, 64, PROTOCOL_TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        Ipv4Packet::new_unchecked(&mut ip).fill_checksum();
        ip
    };
    let mut tcp = vec![0x12, 0x34, 0, 80, 0xff, 0xff, 0xff, 0, 0, 0, 0, 9];
    tcp.extend([((20 + options) as u8 / 4) << 4, flags, 1, 0, 0, 0, 0, 0]);
    tcp.extend(vec![1; options]); // no-operation
    tcp.extend(payload);
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(if is_ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.append(&mut ip);
    frame.append(&mut tcp);
    let headers = Headers::locate(&frame).unwrap();
    let sum = headers.pseudo_header_sum(&frame, tcp_bytes);
    let at = headers.transport + headers.checksum_offset();
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Sequence number, flags and payload of a frame in which every checksum and length is right.
fn open(frame: &[u8]) -> (u32, u8, Vec<u8>) {
    let (source, destination, bytes): (IpAddress, IpAddress, &[u8]) = if frame[12] == 8 {
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(usize::from(packet.total_len()), frame.len() - 14);
        (packet.src_addr().into(), packet.dst_addr().into(), &frame[34..])
    } else {
        let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!(packet.total_len(), frame.len() - 14);
        (packet.src_addr().into(), packet.dst_addr().into(), &frame[54..])
    };
    let tcp = TcpPacket::new_checked(bytes).unwrap();
    assert!(tcp.verify_checksum(&source, &destination));
    (tcp.seq_number().0 as u32, bytes[13], tcp.payload().to_vec())
}

#[test]
fn a_completed_checksum_is_right_and_padding_does_not_matter() {
    for is_ipv6 in [false, true] {
        for length in [0, 1, 2, 777, 60_000] {
            let mut frame = tcp_frame(is_ipv6, 12, 0x18, &vec![0xa5; length]);
            let whole = frame.len();
            frame.extend([0xee; 9]);
            assert!(complete_checksum(&mut frame));
            open(&frame[..whole]);
        }
    }
}

#[test]
fn a_datagram_never_gets_the_checksum_that_says_there_is_none() {
    for last in 0..=u16::MAX {
        let mut frame = tcp_frame(false, 0, 0, &[]);
        frame.truncate(34);
        frame[23] = PROTOCOL_UDP;
        frame[17] = 20 + 10;
        frame.extend([0, 9, 0, 9, 0, 10, 0, 0]);
        frame.extend(last.to_be_bytes());
        let sum = Headers::locate(&frame).unwrap().pseudo_header_sum(&frame, 10);
        frame[40..42].copy_from_slice(&sum.to_be_bytes());
        assert!(complete_checksum(&mut frame));
        let udp = UdpPacket::new_checked(&frame[34..]).unwrap();
        assert_ne!(udp.checksum(), 0);
        assert!(udp.verify_checksum(&IpAddress::v4(10, 0, 0, 1), &IpAddress::v4(10, 0, 0, 2)));
    }
}

#[test]
fn a_super_segment_becomes_frames_that_say_the_same() {
    let mut rng = Rng::new(3);
    for is_ipv6 in [false, true] {
        for (length, size) in
            [(1, 1), (1448, 1448), (1449, 1448), (2896, 1448), (64_000, 1448), (64_000, 536)]
        {
            let mut payload = vec![0; length];
            rng.fill(&mut payload);
            let whole = tcp_frame(is_ipv6, 12, FIN | PSH | CWR | 0x10, &payload);
            let cut = SuperSegment::new(&whole, size).unwrap();
            assert_eq!(cut.frames(), length.div_ceil(size.into()));
            let mut buffer = vec![0; cut.frame_bytes_max()];
            let mut got = Vec::new();
            for index in 0..cut.frames() {
                let bytes = cut.write(index, &mut buffer);
                let (sequence, flags, piece) = open(&buffer[..bytes]);
                assert_eq!(sequence, 0xffff_ff00_u32.wrapping_add(got.len() as u32));
                let (first, last) = (index == 0, index + 1 == cut.frames());
                assert_eq!(flags & CWR != 0, first, "CWR is on the first only");
                assert_eq!(flags & (FIN | PSH) == FIN | PSH, last, "FIN and PSH are on the last only");
                assert_eq!((flags & (FIN | PSH) == 0, flags & 0x10), (!last, 0x10));
                assert!(last || piece.len() == usize::from(size));
                if !is_ipv6 {
                    let identification = Ipv4Packet::new_unchecked(&buffer[14..bytes]).ident();
                    assert_eq!(identification, 0xfffe_u16.wrapping_add(index as u16));
                }
                got.extend(piece);
            }
            assert!(got == payload);
        }
    }
}

#[test]
fn what_is_no_whole_tcp_packet_is_left_alone() {
    let frame = tcp_frame(false, 0, 0x10, &[7; 100]);
    assert!(SuperSegment::new(&frame, 0).is_none());
    for length in 0..frame.len() {
        let mut short = frame[..length].to_vec();
        assert!(SuperSegment::new(&short, 10).is_none(), "{length}");
        assert!(!complete_checksum(&mut short), "{length}");
        assert_eq!(short, frame[..length]);
    }
    let mut rng = Rng::new(11);
    for _ in 0..200_000 {
        let mut broken = frame.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(54) as usize;
            broken[at] = rng.next_u64() as u8;
        }
        complete_checksum(&mut broken);
        let Some(cut) = SuperSegment::new(&broken, rng.below(200) as u16) else { continue };
        let mut buffer = vec![0; cut.frame_bytes_max()];
        for index in 0..cut.frames() {
            cut.write(index, &mut buffer);
        }
    }
}

#[test]
fn a_tagged_frame_is_looked_into() {
    let mut frame = tcp_frame(true, 0, 0x10, &[7; 100]);
    frame.splice(12..12, [0x81, 0x00, 0, 5]);
    assert!(complete_checksum(&mut frame));
    frame.drain(12..16);
    open(&frame);
}
