//! netlink(7), as far as AF_XDP needs it: being told of changes of interfaces, and asking what a device offers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Generic netlink's family `netdev` and what is asked of it (linux/netdev.h).
const NETDEV_FAMILY: &[u8] = b"netdev\0";
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XSK_FEATURES: u16 = 6;
const NETDEV_XSK_FLAGS_TX_CHECKSUM: u64 = 2;

/// Bytes of the two headers of a generic netlink message.
const MESSAGE_HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// No answer to what is asked here is longer.
const ANSWER_BYTES_MAX: usize = 8192;

/// A netlink socket of the calling thread's network namespace.
#[derive(Debug)]
pub(super) struct Netlink {
    fd: OwnedFd,
}

impl Netlink {
    fn new(protocol: libc::c_int, flags: libc::c_int) -> io::Result<Self> {
        // SAFETY: socket takes no pointers; the result is checked before use.
        let fd =
            unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by the kernel as a new descriptor that nothing else owns.
        Ok(Netlink { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Polls readable when an interface has appeared, changed or gone. Never blocks.
    pub(super) fn interface_changes() -> io::Result<Self> {
        let netlink = Netlink::new(libc::NETLINK_ROUTE, libc::SOCK_NONBLOCK)?;
        // SAFETY: all zeroes is a valid value of a structure of integers.
        let mut address: libc::sockaddr_nl = unsafe { core::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = libc::RTMGRP_LINK as u32;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `address` is `length` readable bytes for the length of the call.
        let status =
            unsafe { libc::bind(netlink.fd.as_raw_fd(), core::ptr::from_ref(&address).cast(), length) };
        if status < 0 { Err(io::Error::last_os_error()) } else { Ok(netlink) }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: `buffer` is writable for its whole length during the call.
        let length = unsafe {
            libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC)
        };
        if length < 0 { Err(io::Error::last_os_error()) } else { Ok(length as usize) }
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        // SAFETY: `message` is readable for its whole length during the call.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes all that has come in and returns whether there was anything. What it says does not matter.
    pub(super) fn drain(&self) -> bool {
        let mut any = false;
        let mut scrap = [0; 64];
        loop {
            match self.receive(&mut scrap) {
                Ok(_) => any = true,
                // Messages were lost: that is news as well.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return any,
            }
        }
    }

    /// Asks generic netlink and returns the attributes of the answer; `None` if it says no.
    fn ask(&self, family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.send(&question(family, command, attribute, value))?;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let length = self.receive(&mut answer)?.min(answer.len());
        answer.truncate(length);
        let kind = field_u16(&answer, 4);
        if kind != Some(family) || answer.len() < MESSAGE_HEADER_BYTES + GENERIC_HEADER_BYTES {
            return Ok(None);
        }
        Ok(Some(answer.split_off(MESSAGE_HEADER_BYTES + GENERIC_HEADER_BYTES)))
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether the device completes checksums of AF_XDP frames sent by metadata. A kernel that cannot tell has none that
/// does: the feature and the question came with Linux 6.8.
pub(super) fn offers_tx_checksum(interface: u32) -> bool {
    xsk_features(interface).is_ok_and(|features| features & NETDEV_XSK_FLAGS_TX_CHECKSUM != 0)
}

/// `xsk-features` of the family `netdev`; zero if it does not say.
fn xsk_features(interface: u32) -> io::Result<u64> {
    let netlink = Netlink::new(libc::NETLINK_GENERIC, 0)?;
    let control = libc::GENL_ID_CTRL as u16;
    let (command, name) = (libc::CTRL_CMD_GETFAMILY as u8, libc::CTRL_ATTR_FAMILY_NAME as u16);
    let Some(answer) = netlink.ask(control, command, name, NETDEV_FAMILY)? else { return Ok(0) };
    let id = find_attribute(&answer, libc::CTRL_ATTR_FAMILY_ID as u16).and_then(|value| field_u16(value, 0));
    let Some(family) = id else { return Ok(0) };
    let index = interface.to_ne_bytes();
    let Some(answer) = netlink.ask(family, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &index)? else {
        return Ok(0);
    };
    let features = find_attribute(&answer, NETDEV_A_DEV_XSK_FEATURES).and_then(|value| value.first_chunk());
    Ok(features.map_or(0, |bytes| u64::from_ne_bytes(*bytes)))
}

/// A generic netlink request with one attribute.
fn question(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let attribute_bytes = ATTRIBUTE_HEADER_BYTES + value.len();
    let length = MESSAGE_HEADER_BYTES + GENERIC_HEADER_BYTES + attribute_bytes.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence number and sender: one question at a time needs neither.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((attribute_bytes as u16).to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(length, 0);
    message
}

fn field_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// The value of the first attribute of this type.
fn find_attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(field_u16(attributes, 0)?);
        let kind = field_u16(attributes, 2)?;
        let value = attributes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_by_type_and_broken_ones_end_the_search() {
        let message = question(1, 2, 6, &[1, 2, 3]);
        let attributes = &message[MESSAGE_HEADER_BYTES + GENERIC_HEADER_BYTES..];
        assert_eq!(message.len(), 28);
        assert_eq!(find_attribute(attributes, 6), Some(&[1, 2, 3][..]));
        assert_eq!(find_attribute(attributes, 5), None);
        assert_eq!(find_attribute(&[200, 0, 6, 0, 1], 6), None, "longer than the message");
        assert_eq!(find_attribute(&[1, 0, 5, 0, 1, 0, 6, 0], 6), None, "shorter than its header");
    }

    #[test]
    fn loopback_offers_no_checksum_and_no_interface_none_either() {
        assert!(!offers_tx_checksum(1));
        assert!(!offers_tx_checksum(u32::MAX));
        // The question itself is understood.
        assert!(xsk_features(1).is_ok());
    }
}
