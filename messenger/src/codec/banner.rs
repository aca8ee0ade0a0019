//! The first bytes of either side: who speaks what.

use super::crc32c;
use crate::features::Features;

/// The first eight bytes of every stream.
pub const MAGIC: [u8; 8] = *b"outrider";
/// Version of the wire format. Another one is another protocol: features are for everything less.
pub const VERSION: u16 = 2;
/// Bytes of a banner on the wire.
pub const BANNER_BYTES: usize = 32;

/// The banner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Banner {
    /// Version of the wire format.
    pub version: u16,
    /// What the sender can do.
    pub supported: Features,
    /// What the sender cannot do without.
    pub required: Features,
}

/// Bytes that are no banner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BannerError {
    /// Other magic.
    NotOutrider,
    /// Other version.
    Version(u16),
    /// Checksum.
    Corrupt,
}

impl Banner {
    /// The banner as it is on the wire.
    pub fn encode(&self) -> [u8; BANNER_BYTES] {
        let mut bytes = [0; BANNER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.supported.0.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.required.0.to_le_bytes());
        let crc = crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the start of a stream: `Ok(None)` while it may yet become a banner. A wrong byte is told at once, so
    /// that a peer of another protocol, which may never send 32 bytes, is not waited for.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Banner>, BannerError> {
        if bytes.iter().zip(&MAGIC).any(|(byte, magic)| byte != magic) {
            return Err(BannerError::NotOutrider);
        }
        // The version comes before the checksum: the rest of another version's banner may look different.
        if let Some(&[low, high]) = bytes.get(8..10) {
            let version = u16::from_le_bytes([low, high]);
            if version != VERSION {
                return Err(BannerError::Version(version));
            }
        }
        let Some(bytes) = bytes.first_chunk::<BANNER_BYTES>() else { return Ok(None) };
        let u64_at = |at: usize| {
            let mut octets = [0; 8];
            octets.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(octets)
        };
        if crc32c(&bytes[..28]).to_le_bytes() != bytes[28..] {
            return Err(BannerError::Corrupt);
        }
        Ok(Some(Banner { version: VERSION, supported: Features(u64_at(12)), required: Features(u64_at(20)) }))
    }
}
