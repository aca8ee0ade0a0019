//! The header that the kernel puts before each frame of a TAP with IFF_VNET_HDR, and expects from us: `virtio_net_hdr`
//! of the virtio specification (version 1.2, section 5.1.6), in its legacy form and the byte order of the machine.

use crate::offload::Headers;
use crate::port::{ReceiveChecksum, TxOffload};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 10;

/// `flags`: the checksum is that of the pseudo-header only, and to be completed.
const NEEDS_CHECKSUM: u8 = 1;
/// `flags`: the checksum was found right, or cannot be wrong.
const DATA_VALID: u8 = 2;

/// `gso_type`.
const SEGMENTATION_NONE: u8 = 0;
const SEGMENTATION_TCP_IPV4: u8 = 1;
const SEGMENTATION_TCP_IPV6: u8 = 4;
/// Added to the type where the first segment says CWR.
const SEGMENTATION_ECN: u8 = 0x80;

/// What the kernel says of a frame it sent, or `None` where it says what it was not asked for.
pub(super) fn read(header: &[u8]) -> Option<(ReceiveChecksum, TxOffload)> {
    let flags = *header.first()?;
    let kind = *header.get(1)? & !SEGMENTATION_ECN;
    let segment_size = u16::from_ne_bytes([*header.get(4)?, *header.get(5)?]);
    let segment_size = match kind {
        SEGMENTATION_NONE => 0,
        SEGMENTATION_TCP_IPV4 | SEGMENTATION_TCP_IPV6 if segment_size > 0 => segment_size,
        _ => return None,
    };
    let vouched = flags & (NEEDS_CHECKSUM | DATA_VALID) != 0;
    let checksum = if vouched { ReceiveChecksum::Valid } else { ReceiveChecksum::Unverified };
    Some((checksum, TxOffload { checksum: flags & NEEDS_CHECKSUM != 0, segment_size }))
}

/// The header for `frame`. `None`: something is left to the device, and the frame is not one with which it can be done.
pub(super) fn write(frame: &[u8], offload: TxOffload) -> Option<[u8; HEADER_BYTES]> {
    let mut header = [0; HEADER_BYTES];
    if !offload.checksum && offload.segment_size == 0 {
        return Some(header);
    }
    let headers = Headers::locate(frame)?;
    header[0] = NEEDS_CHECKSUM;
    // The kernel refuses to cut what fits into one segment.
    if offload.segment_size > 0 && headers.payload_bytes() > usize::from(offload.segment_size) {
        if !headers.is_tcp {
            return None;
        }
        header[1] = if headers.is_ipv6 { SEGMENTATION_TCP_IPV6 } else { SEGMENTATION_TCP_IPV4 };
        if headers.says_cwr(frame) {
            header[1] |= SEGMENTATION_ECN;
        }
        header[4..6].copy_from_slice(&offload.segment_size.to_ne_bytes());
    }
    let places = [(2, headers.payload), (6, headers.transport), (8, headers.checksum_offset())];
    for (at, value) in places {
        header[at..at + 2].copy_from_slice(&(value as u16).to_ne_bytes());
    }
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_is_told_apart() {
        let mut header = [0; HEADER_BYTES];
        assert_eq!(read(&header), Some((ReceiveChecksum::Unverified, TxOffload::default())));
        header[0] = DATA_VALID;
        assert_eq!(read(&header), Some((ReceiveChecksum::Valid, TxOffload::default())));
        header[0] = NEEDS_CHECKSUM;
        let left = TxOffload { checksum: true, segment_size: 0 };
        assert_eq!(read(&header), Some((ReceiveChecksum::Valid, left)));
        for (kind, wanted) in [(1, true), (4, true), (0x81, true), (3, false), (5, false), (0x40, false)] {
            header[1] = kind;
            header[4..6].copy_from_slice(&1448_u16.to_ne_bytes());
            let left = TxOffload { checksum: true, segment_size: 1448 };
            assert_eq!(read(&header), wanted.then_some((ReceiveChecksum::Valid, left)), "{kind:#x}");
        }
        header[1] = 1;
        header[4..6].fill(0);
        assert_eq!(read(&header), None, "segments of no size");
        for length in 0..6 {
            assert_eq!(read(&header[..length]), None);
        }
    }

    #[test]
    fn a_frame_that_no_device_can_finish_has_no_header() {
        let arp = [0; 60];
        assert_eq!(write(&arp, TxOffload::default()), Some([0; HEADER_BYTES]));
        assert_eq!(write(&arp, TxOffload { checksum: true, segment_size: 0 }), None);
        assert_eq!(write(&arp, TxOffload { checksum: true, segment_size: 100 }), None);
    }
}
