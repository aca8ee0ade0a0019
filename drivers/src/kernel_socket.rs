//! What the standard library does not offer of the kernel's TCP sockets: how much of what was written is still
//! unsent, how much is not acknowledged, what TCP knows of the path, and a few options. Safe functions over ioctl(2),
//! getsockopt(2), setsockopt(2), poll(2) and readv(2), as tcp(7) and `linux/tcp.h` describe them.

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// `SIOCOUTQNSD` of `linux/sockios.h`: bytes written and not sent yet.
const SIOCOUTQNSD: libc::Ioctl = 0x894B;
/// `SIOCOUTQ` of the same, which is `TIOCOUTQ`: bytes written and not acknowledged.
const SIOCOUTQ: libc::Ioctl = libc::TIOCOUTQ;

/// Bytes written to the socket that the peer has not acknowledged, a FIN counting as one.
///
/// # Errors
/// The descriptor is no connected TCP socket.
pub fn unacknowledged_bytes(socket: impl AsFd) -> io::Result<u64> {
    count(socket.as_fd(), SIOCOUTQ)
}

/// Bytes written to the socket that have never been sent: the part of [`unacknowledged_bytes`] that still waits for
/// the congestion window, the peer's window or the pacer.
///
/// # Errors
/// The descriptor is no connected TCP socket.
pub fn unsent_bytes(socket: impl AsFd) -> io::Result<u64> {
    count(socket.as_fd(), SIOCOUTQNSD)
}

fn count(socket: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests of this module write one int, to which the pointer is valid for the length of the call;
    // on a descriptor that is no TCP socket they fail or write an int all the same.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(u64::try_from(bytes).unwrap_or(0)) }
}

/// Whether a write would take bytes now. If not, the next edge of an edge-triggered epoll tells when it would again:
/// the kernel notes that somebody asked.
///
/// With [`set_unsent_low_water`] that is: while less than half of the mark is unsent.
///
/// # Errors
/// Out of kernel memory.
pub fn is_writable(socket: impl AsFd) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: socket.as_fd().as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    loop {
        // SAFETY: the pointer is to one writable entry, and the count says one; a timeout of zero returns at once.
        if unsafe { libc::poll(&raw mut entry, 1, 0) } >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // An error or a hang-up lets a write return at once, too: with that error.
    Ok(entry.revents & (libc::POLLOUT | libc::POLLERR | libc::POLLHUP) != 0)
}

/// Sets `TCP_NOTSENT_LOWAT`: the socket takes bytes only while fewer than this many are unsent.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn set_unsent_low_water(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    set(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &bytes)
}

/// Sets `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged before the kernel ends the connection
/// (RFC 5482), to the millisecond.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn set_user_timeout(socket: impl AsFd, timeout: Duration) -> io::Result<()> {
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).min(i32::MAX as u32);
    set(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &millis)
}

/// Has the socket reset its connection when it is closed (`SO_LINGER` of zero seconds): what is unsent is dropped.
///
/// # Errors
/// The descriptor is no socket.
pub fn set_reset_on_close(socket: impl AsFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Chooses the congestion control by the kernel's name for it, such as `cubic` or `bbr` (`TCP_CONGESTION`).
///
/// # Errors
/// The kernel has no such module loaded, or keeps it for the privileged.
pub fn set_congestion_control(socket: impl AsFd, name: &str) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_fd();
    let length = libc::socklen_t::try_from(name.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the pointer is to `length` readable bytes; the kernel copies them and needs no terminator.
    let status = unsafe {
        libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_ptr().cast(), length)
    };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set<T: Copy>(socket: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to a readable value of `length` bytes, which the kernel only reads. Callers pass plain
    // C structures without padding.
    let status = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, core::ptr::from_ref(value).cast(), length)
    };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads what has arrived: first at most `appended_max` bytes to the end of `appended`, into capacity that it has, and
/// then into `rest`. Returns how many bytes were read in all; zero once the peer has finished and everything is read.
///
/// # Errors
/// As of read(2): nothing has arrived, or the connection is lost. Nothing was read then.
pub fn read_appending(
    socket: impl AsFd,
    appended: &mut Vec<u8>,
    appended_max: usize,
    rest: &mut [u8],
) -> io::Result<usize> {
    let spare = appended.spare_capacity_mut();
    let appended_max = appended_max.min(spare.len());
    let parts = [
        libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: appended_max },
        libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() },
    ];
    // SAFETY: the pointer is to two entries, and the count says two; each is of memory that is borrowed mutably for the
    // length of the call and at least as long as it says.
    let read = unsafe { libc::readv(socket.as_fd().as_raw_fd(), parts.as_ptr(), 2) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    let length = appended.len() + read.min(appended_max);
    // SAFETY: the kernel fills the entries in order, so it has written the first `read.min(appended_max)` bytes of the
    // spare capacity, which is no shorter.
    unsafe { appended.set_len(length) };
    Ok(read)
}

/// What the kernel's TCP knows of a connection (`TCP_INFO`). What an older kernel does not tell is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpInformation {
    /// Payload bytes of a segment that is sent.
    pub segment_bytes: u32,
    /// Congestion window, segments.
    pub congestion_window_segments: u32,
    /// Segments sent and not acknowledged.
    pub unacknowledged_segments: u32,
    /// Segments sent again since the connection began.
    pub retransmits: u32,
    /// Smoothed round-trip time (RFC 6298); `None` before the first sample.
    pub smoothed_rtt: Option<Duration>,
    /// Smallest round-trip time of late (the kernel forgets after minutes).
    pub rtt_min: Option<Duration>,
    /// Delivery rate, bytes per second; zero before the first estimate (Linux 4.9).
    pub delivery_rate: u64,
    /// Bytes that the peer's window allows beyond the first one not acknowledged (Linux 5.4).
    pub peer_window: Option<u64>,
}

/// Bytes of `struct tcp_info` that are asked for; a kernel gives as many of them as it knows.
const INFORMATION_BYTES: usize = 256;

/// Where the fields are in `struct tcp_info` of `linux/tcp.h`. They never move: the structure only grows at its end.
mod offset {
    pub(super) const SND_MSS: usize = 16;
    pub(super) const UNACKED: usize = 24;
    pub(super) const RTT: usize = 68;
    pub(super) const SND_CWND: usize = 80;
    pub(super) const TOTAL_RETRANS: usize = 100;
    pub(super) const MIN_RTT: usize = 148;
    pub(super) const DELIVERY_RATE: usize = 160;
    pub(super) const SND_WND: usize = 228;
}

/// Reads [`TcpInformation`]. Takes the socket's lock: for heartbeats, not for every segment.
///
/// # Errors
/// The descriptor is no TCP socket.
pub fn tcp_information(socket: impl AsFd) -> io::Result<TcpInformation> {
    let mut bytes = [0_u8; INFORMATION_BYTES];
    let mut length = INFORMATION_BYTES as libc::socklen_t;
    // SAFETY: the pointers are to `length` writable bytes and to `length` itself; the kernel writes no more than that
    // and says how many it wrote.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    let known = bytes.get(..length as usize).unwrap_or(&bytes);
    Ok(read_information(known))
}

fn read_information(known: &[u8]) -> TcpInformation {
    let word = |at: usize| known.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
    let long = |at: usize| known.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes);
    // The kernel says zero before the first sample of the one, and all ones before the first of the other.
    let time = |at: usize| word(at).filter(|micros| !matches!(*micros, 0 | u32::MAX));
    let time = |at: usize| time(at).map(|micros| Duration::from_micros(micros.into()));
    TcpInformation {
        segment_bytes: word(offset::SND_MSS).unwrap_or(0),
        congestion_window_segments: word(offset::SND_CWND).unwrap_or(0),
        unacknowledged_segments: word(offset::UNACKED).unwrap_or(0),
        retransmits: word(offset::TOTAL_RETRANS).unwrap_or(0),
        smoothed_rtt: time(offset::RTT),
        rtt_min: time(offset::MIN_RTT),
        delivery_rate: long(offset::DELIVERY_RATE).unwrap_or(0),
        peer_window: word(offset::SND_WND).map(u64::from),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialled, listener.accept().unwrap().0)
    }

    /// Waits for what the other thread of the kernel does; the test's own time limit is the limit.
    fn until(mut done: impl FnMut() -> bool) {
        while !done() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_written_is_unacknowledged_until_the_peer_has_it() {
        let (mut here, mut there) = pair();
        here.write_all(&[1; 1000]).unwrap();
        there.read_exact(&mut [0; 1000]).unwrap();
        until(|| unacknowledged_bytes(&here).unwrap() == 0);
        assert_eq!(unsent_bytes(&here).unwrap(), 0);
    }

    #[test]
    fn what_is_read_fills_the_capacity_asked_for_and_then_the_rest() {
        let (mut here, there) = pair();
        let mut appended = Vec::with_capacity(10);
        appended.extend_from_slice(b"ab");
        let mut rest = [0; 4];
        let mut read = |bytes: &[u8], most: usize, appended: &mut Vec<u8>| {
            here.write_all(bytes).unwrap();
            let read = read_appending(&there, appended, most, &mut rest).unwrap();
            (read, rest)
        };
        assert_eq!(read(b"cd", 3, &mut appended), (2, [0; 4]), "less than asked for");
        assert_eq!(read(b"efg", 1, &mut appended), (3, *b"fg\0\0"));
        assert_eq!(appended, b"abcde");
        let (read, rest) = read(b"fghijkl", usize::MAX, &mut appended);
        assert_eq!(
            (read, &rest[..2], &appended[..]),
            (7, &b"kl"[..], &b"abcdefghij"[..]),
            "no more than capacity"
        );
    }

    #[test]
    fn nothing_to_read_appends_nothing() {
        let (here, there) = pair();
        there.set_nonblocking(true).unwrap();
        let (mut appended, mut rest) = (Vec::with_capacity(8), [0; 8]);
        let error = read_appending(&there, &mut appended, 8, &mut rest).unwrap_err();
        assert_eq!((error.kind(), appended.len()), (io::ErrorKind::WouldBlock, 0));
        drop(here);
        there.set_nonblocking(false).unwrap();
        assert_eq!(read_appending(&there, &mut appended, 8, &mut rest).unwrap(), 0);
        assert!(appended.is_empty());
    }

    #[test]
    fn a_low_mark_stops_the_writer_while_the_peer_does_not_read() {
        let (here, mut there) = pair();
        here.set_nonblocking(true).unwrap();
        set_unsent_low_water(&here, 16 << 10).unwrap();
        assert!(is_writable(&here).unwrap());
        let mut written = 0;
        while is_writable(&here).unwrap() {
            written += (&here).write(&[1; 4096]).unwrap_or(0) as u64;
        }
        let unsent = unsent_bytes(&here).unwrap();
        assert!((1..=20 << 10).contains(&unsent), "{unsent}");
        assert!(unacknowledged_bytes(&here).unwrap() >= unsent);
        let mut buffer = vec![0; 1 << 20];
        let mut read = 0;
        until(|| {
            read += there.read(&mut buffer).unwrap() as u64;
            read == written
        });
        until(|| is_writable(&here).unwrap() && unacknowledged_bytes(&here).unwrap() == 0);
    }

    #[test]
    fn tcp_tells_what_it_knows_of_the_path() {
        let (mut here, mut there) = pair();
        here.write_all(&[1; 100_000]).unwrap();
        there.read_exact(&mut [0; 100_000]).unwrap();
        until(|| unacknowledged_bytes(&here).unwrap() == 0);
        let information = tcp_information(&here).unwrap();
        assert!(information.smoothed_rtt.is_some_and(|rtt| rtt < Duration::from_secs(1)), "{information:?}");
        assert!(information.congestion_window_segments >= 2, "{information:?}");
        assert!((500..=65_536).contains(&information.segment_bytes), "{information:?}");
        assert_eq!(information.unacknowledged_segments, 0);
        assert!(information.delivery_rate > 0, "{information:?}");
        assert!(information.peer_window.is_some_and(|window| window > 1000), "{information:?}");
    }

    #[test]
    fn what_a_kernel_does_not_tell_is_not_made_up() {
        let mut old = [0_u8; 104];
        old[offset::RTT..offset::RTT + 4].copy_from_slice(&250_u32.to_ne_bytes());
        let information = read_information(&old);
        assert_eq!(information.smoothed_rtt, Some(Duration::from_micros(250)));
        assert_eq!((information.rtt_min, information.peer_window), (None, None));
        assert_eq!(read_information(&[]), TcpInformation::default());
    }

    #[test]
    fn a_socket_that_resets_on_close_leaves_the_peer_an_error() {
        let (here, mut there) = pair();
        set_user_timeout(&here, Duration::from_secs(5)).unwrap();
        set_reset_on_close(&here).unwrap();
        drop(here);
        let error = there.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn congestion_control_goes_by_name() {
        let (here, _there) = pair();
        set_congestion_control(&here, "reno").unwrap();
        assert!(set_congestion_control(&here, "no-such-thing").is_err());
    }

    #[test]
    fn what_is_no_socket_is_an_error() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(unacknowledged_bytes(&file).is_err());
        assert!(tcp_information(&file).is_err());
        assert!(set_unsent_low_water(&file, 1).is_err());
    }
}
