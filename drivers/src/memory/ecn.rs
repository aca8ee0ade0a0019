//! Congestion marks on packets in flight (RFC 3168), as a router with active queue management makes them.

/// ECN field values (RFC 3168 section 5).
const NOT_ECT: u8 = 0b00;
const CE: u8 = 0b11;

const ETHERNET_HEADER_BYTES: usize = 14;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;

/// Marks the IP packet in an Ethernet frame Congestion Experienced, if it is one of an ECN-capable transport that is
/// not marked yet. Returns whether it did.
pub(super) fn mark_congestion_experienced(frame: &mut [u8]) -> bool {
    let Some((header, packet)) = frame.split_at_mut_checked(ETHERNET_HEADER_BYTES) else { return false };
    match [header[12], header[13]] {
        [0x08, 0x00] => mark_ipv4(packet),
        [0x86, 0xdd] => mark_ipv6(packet),
        _ => false,
    }
}

fn mark_ipv4(packet: &mut [u8]) -> bool {
    if packet.len() < IPV4_HEADER_BYTES || packet[0] >> 4 != 4 {
        return false;
    }
    let codepoint = packet[1] & CE;
    if codepoint == NOT_ECT || codepoint == CE {
        return false;
    }
    let before = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] |= CE;
    let after = u16::from_be_bytes([packet[0], packet[1]]);
    // RFC 1624, equation 3: the checksum is updated, not made anew, so a wrong one stays wrong.
    let checksum = u16::from_be_bytes([packet[10], packet[11]]);
    let mut sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    true
}

fn mark_ipv6(packet: &mut [u8]) -> bool {
    if packet.len() < IPV6_HEADER_BYTES || packet[0] >> 4 != 6 {
        return false;
    }
    // The traffic class straddles the first two bytes; its two lowest bits are bits 4 and 5 of the second.
    let codepoint = (packet[1] >> 4) & CE;
    if codepoint == NOT_ECT || codepoint == CE {
        return false;
    }
    packet[1] |= CE << 4;
    true
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{Ipv4Address, Ipv4Packet};

    use super::*;

    fn ipv4_frame(tos: u8) -> Vec<u8> {
        let mut frame = vec![0_u8; 14 + 20 + 8];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[15] = tos;
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        packet.set_total_len(28);
        packet.set_hop_limit(64);
        packet.set_src_addr(Ipv4Address::new(10, 0, 0, 1));
        packet.set_dst_addr(Ipv4Address::new(10, 0, 0, 2));
        packet.fill_checksum();
        frame
    }

    #[test]
    fn both_ect_codepoints_become_ce_and_the_checksum_stays_right() {
        for tos in [0b01, 0b10, 0xb8 | 0b01] {
            let mut frame = ipv4_frame(tos);
            assert!(mark_congestion_experienced(&mut frame));
            assert_eq!(frame[15], tos | 0b11, "the rest of the traffic class is untouched");
            assert!(Ipv4Packet::new_checked(&frame[14..]).unwrap().verify_checksum());
        }
    }

    #[test]
    fn packets_that_cannot_or_need_not_be_marked_are_left_alone() {
        for tos in [0b00, 0b11] {
            let mut frame = ipv4_frame(tos);
            let before = frame.clone();
            assert!(!mark_congestion_experienced(&mut frame));
            assert_eq!(frame, before);
        }
        for length in 0..34 {
            assert!(
                !mark_congestion_experienced(&mut ipv4_frame(1)[..length]),
                "{length} bytes is no packet"
            );
        }
        let mut arp = ipv4_frame(1);
        arp[13] = 0x06;
        assert!(!mark_congestion_experienced(&mut arp));
    }

    #[test]
    fn ipv6_traffic_class_is_marked() {
        let mut frame = vec![0_u8; 14 + 40];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[14..18].copy_from_slice(&[0x6b, 0xa1, 0x23, 0x45]); // class 0xba: ECT(0); flow label 0x12345
        assert!(mark_congestion_experienced(&mut frame));
        assert_eq!(frame[14..18], [0x6b, 0xb1, 0x23, 0x45]);
        assert!(!mark_congestion_experienced(&mut frame), "it is marked already");
    }
}
