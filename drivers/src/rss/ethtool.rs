//! Reading key and table from the kernel: `ETHTOOL_GRSSH`, and `ETHTOOL_GRXFHINDIR` for a table that comes without.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use super::{BadRss, INDIRECTION_MAX, Rss};
use crate::interface;

/// Numbers of linux/ethtool.h.
const ETHTOOL_GRXFHINDIR: u32 = 0x38;
const ETHTOOL_GRSSH: u32 = 0x46;
/// `ETH_RSS_HASH_TOP`.
const HASH_TOEPLITZ: u8 = 1;
/// Words of `struct ethtool_rxfh` before `rss_config`: cmd, rss_context, indir_size, key_size, hfunc and input_xfrm
/// and two reserved bytes, rsvd32.
const RXFH_WORDS: usize = 6;
/// Words of `struct ethtool_rxfh_indir` before `ring_index`: cmd, size.
const INDIR_WORDS: usize = 2;
/// Longest key that is read, bytes; NICs have 40 to 52.
const KEY_BYTES_MAX: usize = 1_024;

/// Why it is not known how an interface spreads its frames.
#[derive(Debug, thiserror::Error)]
pub enum RssError {
    /// There is no such interface, or its driver does not tell (virtio without RSS, veth and TAP do not have any).
    #[error("{interface}: the driver does not tell how it spreads frames over its queues: {source}")]
    Untold {
        /// The interface.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// It uses another hash than Toeplitz, or changes the input first.
    #[error(
        "{interface}: frames are spread by a hash that is not plain Toeplitz (function {function:#x}, transform {transform:#x})"
    )]
    OtherHash {
        /// The interface.
        interface: String,
        /// `hfunc` of linux/ethtool.h.
        function: u8,
        /// `input_xfrm` of linux/ethtool.h.
        transform: u8,
    },
    /// What it tells makes no sense.
    #[error("{interface}: {bad}")]
    Bad {
        /// The interface.
        interface: String,
        /// What is wrong.
        bad: BadRss,
    },
}

/// How the NIC behind the interface `name` of the calling thread's network namespace spreads frames over its queues.
/// Needs no privilege.
///
/// # Errors
/// See [`RssError`].
pub fn of_interface(name: &str) -> Result<Rss, RssError> {
    let untold = |source| RssError::Untold { interface: name.to_owned(), source };
    let socket = UnixDatagram::unbound().map_err(untold)?;
    let answer = hash_settings(&socket, name).map_err(untold)?;
    if answer.function != HASH_TOEPLITZ && answer.function != 0 || answer.transform != 0 {
        let Settings { function, transform, .. } = answer;
        return Err(RssError::OtherHash { interface: name.to_owned(), function, transform });
    }
    let table =
        if answer.table.is_empty() { indirection(&socket, name).map_err(untold)? } else { answer.table };
    Rss::new(&answer.key, table).map_err(|bad| RssError::Bad { interface: name.to_owned(), bad })
}

/// What `ETHTOOL_GRSSH` answers.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    table: Vec<u32>,
    key: Vec<u8>,
    function: u8,
    transform: u8,
}

fn hash_settings(socket: &UnixDatagram, name: &str) -> io::Result<Settings> {
    // With sizes of zero the kernel tells the sizes.
    let mut sizes = [0; RXFH_WORDS];
    sizes[0] = ETHTOOL_GRSSH;
    request(socket, name, &mut sizes)?;
    let (table_words, key_bytes) = (sizes[2] as usize, sizes[3] as usize);
    if table_words > INDIRECTION_MAX || key_bytes > KEY_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut answer = vec![0; RXFH_WORDS + table_words + key_bytes.div_ceil(4)];
    answer[..4].copy_from_slice(&[ETHTOOL_GRSSH, 0, sizes[2], sizes[3]]);
    request(socket, name, &mut answer)?;
    Ok(read_settings(&answer, table_words, key_bytes))
}

/// Takes the answer apart; `table_words` and `key_bytes` are what was asked for, whatever it says now.
fn read_settings(answer: &[u32], table_words: usize, key_bytes: usize) -> Settings {
    let [function, transform, ..] = answer[4].to_ne_bytes();
    let (table, key) = answer[RXFH_WORDS..].split_at(table_words);
    let key = key.iter().flat_map(|word| word.to_ne_bytes()).take(key_bytes).collect();
    Settings { table: table.to_vec(), key, function, transform }
}

fn indirection(socket: &UnixDatagram, name: &str) -> io::Result<Vec<u32>> {
    let mut size = [ETHTOOL_GRXFHINDIR, 0];
    request(socket, name, &mut size)?;
    let words = size[1] as usize;
    if words > INDIRECTION_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut answer = vec![0; INDIR_WORDS + words];
    answer[..INDIR_WORDS].copy_from_slice(&[ETHTOOL_GRXFHINDIR, size[1]]);
    request(socket, name, &mut answer)?;
    Ok(answer.split_off(INDIR_WORDS))
}

/// `SIOCETHTOOL` with `words` for a structure: its fixed part, and as many entries as its own sizes say.
fn request(socket: &UnixDatagram, name: &str, words: &mut [u32]) -> io::Result<()> {
    let entries = match words[0] {
        ETHTOOL_GRSSH => RXFH_WORDS + words[2] as usize + (words[3] as usize).div_ceil(4),
        _ => INDIR_WORDS + words[1] as usize,
    };
    assert!(words.len() >= entries, "the buffer is as long as the structure in it says");
    let mut request = interface::request(name)?;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    let operation = libc::SIOCETHTOOL as libc::Ioctl;
    // SAFETY: SIOCETHTOOL takes an `ifreq` whose `ifru_data` points to the structure of the command in its first word.
    // Both commands write its fixed part and the number of entries that its sizes say, never more (the kernel refuses
    // sizes that are not the device's own); `words` was just checked to hold that much, and is borrowed mutably for
    // the length of the call. The descriptor is open while `socket` is borrowed.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), operation, core::ptr::from_mut(&mut request)) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_as_the_kernel_lays_it_out() {
        let mut answer = vec![ETHTOOL_GRSSH, 0, 3, 5, u32::from_ne_bytes([1, 2, 0, 0]), 0, 10, 11, 12];
        answer.extend([[1, 2, 3, 4], [5, 0, 0, 0]].map(u32::from_ne_bytes));
        let settings = read_settings(&answer, 3, 5);
        let expected =
            Settings { table: vec![10, 11, 12], key: vec![1, 2, 3, 4, 5], function: 1, transform: 2 };
        assert_eq!(settings, expected);
    }

    #[test]
    fn an_interface_without_queues_to_choose_from_does_not_tell() {
        for name in ["lo", "no-such-if", "a-name-that-is-too-long"] {
            let error = of_interface(name).unwrap_err();
            assert!(matches!(error, RssError::Untold { .. }), "{name}: {error}");
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
