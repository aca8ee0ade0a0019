//! The pcapng blocks we write (draft-ietf-opsawg-pcapng), in the byte order of the machine, as the format wants.

use super::Direction;

/// Block types (draft-ietf-opsawg-pcapng section 4).
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
pub(super) const ENHANCED_PACKET: u32 = 6;

/// Tells a reader the byte order.
pub(super) const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const VERSION_MAJOR: u16 = 1;
const VERSION_MINOR: u16 = 0;
const LINKTYPE_ETHERNET: u16 = 1;

/// Option codes; each block type has its own set.
const OPT_ENDOFOPT: u16 = 0;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_MACADDR: u16 = 6;
const IF_TSRESOL: u16 = 9;
pub(super) const EPB_FLAGS: u16 = 2;

/// Stamps count units of 10^-9 s.
const TSRESOL_NANOSECONDS: u8 = 9;
/// The two lowest bits of epb_flags.
pub(super) const FLAG_INBOUND: u32 = 0b01;
pub(super) const FLAG_OUTBOUND: u32 = 0b10;

/// Fields of 32 bits all blocks are made of.
pub(super) const ALIGNMENT_BYTES: usize = 4;

fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(ALIGNMENT_BYTES), 0);
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    // A value longer than its length field can say is cut; only names come near that, and they are short.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    block.extend_from_slice(&code.to_ne_bytes());
    block.extend_from_slice(&(value.len() as u16).to_ne_bytes());
    block.extend_from_slice(value);
    pad(block);
}

/// Appends a block: type and length, what `body` writes, and the length again.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = (out.len() - start + ALIGNMENT_BYTES) as u32;
    out[start + 4..start + 8].copy_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&length.to_ne_bytes());
}

/// Section 4.1.
pub(super) fn section_header(out: &mut Vec<u8>) {
    block(out, SECTION_HEADER, |body| {
        body.extend_from_slice(&BYTE_ORDER_MAGIC.to_ne_bytes());
        body.extend_from_slice(&VERSION_MAJOR.to_ne_bytes());
        body.extend_from_slice(&VERSION_MINOR.to_ne_bytes());
        body.extend_from_slice(&(-1_i64).to_ne_bytes()); // the length of the section is not known
        option(body, SHB_USERAPPL, concat!("outrider ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(body, OPT_ENDOFOPT, &[]);
    });
}

/// Section 4.2. A snap length of zero is no limit, in the file as in [`super::Capture::new`].
pub(super) fn interface_description(out: &mut Vec<u8>, name: &str, mac: [u8; 6], snap_length: usize) {
    block(out, INTERFACE_DESCRIPTION, |body| {
        body.extend_from_slice(&LINKTYPE_ETHERNET.to_ne_bytes());
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(&u32::try_from(snap_length).unwrap_or(0).to_ne_bytes());
        option(body, IF_NAME, name.as_bytes());
        option(body, IF_MACADDR, &mac);
        option(body, IF_TSRESOL, &[TSRESOL_NANOSECONDS]);
        option(body, OPT_ENDOFOPT, &[]);
    });
}

/// Section 4.3. `kept` is what is recorded of a frame of `original_bytes`.
pub(super) fn enhanced_packet(
    out: &mut Vec<u8>,
    stamp_nanos: u64,
    direction: Direction,
    kept: &[u8],
    original_bytes: usize,
) {
    let flags = match direction {
        Direction::Inbound => FLAG_INBOUND,
        Direction::Outbound => FLAG_OUTBOUND,
    };
    block(out, ENHANCED_PACKET, |body| {
        body.extend_from_slice(&0_u32.to_ne_bytes()); // the only interface
        body.extend_from_slice(&((stamp_nanos >> 32) as u32).to_ne_bytes());
        body.extend_from_slice(&(stamp_nanos as u32).to_ne_bytes());
        body.extend_from_slice(&(kept.len() as u32).to_ne_bytes());
        body.extend_from_slice(&(original_bytes as u32).to_ne_bytes());
        body.extend_from_slice(kept);
        pad(body);
        option(body, EPB_FLAGS, &flags.to_ne_bytes());
        option(body, OPT_ENDOFOPT, &[]);
    });
}
