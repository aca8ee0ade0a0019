//! What the device is asked to do to a frame: `struct xsk_tx_metadata` (linux/if_xdp.h), in front of it.

use super::options::ETHERNET_HEADER_BYTES;

/// Its bytes, in front of the frame in the same chunk.
pub(super) const METADATA_BYTES: usize = size_of::<libc::xsk_tx_metadata>();

const ETHERTYPE_AT: usize = 12;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const IPV6_HEADER_BYTES: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Writes the request to complete the transport checksum of `frame`; `false` if there is no room for it, or the frame
/// is neither TCP nor UDP right behind IP.
pub(super) fn ask_for_checksum(metadata: &mut [u8], frame: &[u8]) -> bool {
    let Some((start, offset)) = checksum_place(frame) else { return false };
    if metadata.len() < METADATA_BYTES {
        return false;
    }
    // flags, then csum_start and csum_offset; the rest of the union is for completions.
    metadata[..8].copy_from_slice(&u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM).to_ne_bytes());
    metadata[8..10].copy_from_slice(&start.to_ne_bytes());
    metadata[10..12].copy_from_slice(&offset.to_ne_bytes());
    metadata[12..16].fill(0);
    true
}

/// Where the transport header begins in the frame, and where in it the checksum is.
fn checksum_place(frame: &[u8]) -> Option<(u16, u16)> {
    let ethertype: &[u8; 2] = frame.get(ETHERTYPE_AT..)?.first_chunk()?;
    let packet = frame.get(ETHERNET_HEADER_BYTES..)?;
    let (header_bytes, protocol) = match *ethertype {
        IPV4 => (usize::from(packet.first()? & 0x0f) * 4, *packet.get(9)?),
        IPV6 => (IPV6_HEADER_BYTES, *packet.get(6)?),
        _ => return None,
    };
    let offset = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    let start = ETHERNET_HEADER_BYTES + header_bytes;
    (frame.len() >= start + usize::from(offset) + 2).then_some((start as u16, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_tcp_and_udp_is_found_and_no_other() {
        let mut frame = [0; 80];
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x46]);
        frame[23] = TCP;
        assert_eq!(checksum_place(&frame), Some((14 + 24, 16)), "behind IP options");
        frame[23] = 1;
        assert_eq!(checksum_place(&frame), None, "ICMP");
        frame[12..14].copy_from_slice(&IPV6);
        frame[20] = UDP;
        assert_eq!(checksum_place(&frame), Some((54, 6)));
        assert_eq!(checksum_place(&frame[..61]), None, "cut short");
        let mut metadata = [0xff; 16];
        assert!(ask_for_checksum(&mut metadata, &frame));
        assert_eq!(metadata, [2, 0, 0, 0, 0, 0, 0, 0, 54, 0, 6, 0, 0, 0, 0, 0]);
        assert!(!ask_for_checksum(&mut [], &frame), "no room: the device cannot");
    }
}
