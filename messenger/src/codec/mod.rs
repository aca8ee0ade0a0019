//! The wire format: banner, chunks, payloads. `docs/wire-format.md` is its description to the byte.
//!
//! Everything here is pure: bytes to values and back. [`Decoder`] is the streaming half; the rest are fixed layouts.
//! All numbers are little endian. Every length is checked against a limit before anything is allocated for it.

mod banner;
mod decoder;
mod error;
mod header;
mod oob;
mod payload;
mod reader;
mod terms;
#[cfg(test)]
mod tests;

pub(crate) use banner::BannerError;
pub use banner::{BANNER_BYTES, Banner, MAGIC, VERSION};
pub use decoder::{Decoded, Decoder, DecoderLimits};
pub use error::CodecError;
pub use header::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, FLAG_FIRST, FLAG_LAST, MESSAGE_HEADER_BYTES, MessageHeader,
};
pub use oob::{OOB_PART_HEADER_BYTES, OOB_PAYLOAD_BYTES_MAX, OOB_REPORT_BYTES, OobPayload, scan_ahead};
pub(crate) use oob::{encode_oob_head, part_header};
pub use payload::{
    ADDRESSES_MAX, AUTH_METHOD_NONE, Auth, CloseCode, Hello, decode_u64, encode_close, encode_u64,
};
pub use terms::{ACK_BYTES, SESSION_TERMS_BYTES, SessionTerms, decode_ack, encode_ack};

/// CRC32C (Castagnoli) of bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Crc32c(u32);

impl Crc32c {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// The checksum of all pieces so far.
    pub fn value(&self) -> u32 {
        self.0
    }
}

/// CRC32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}
