//! bpf(2): maps, programs and links, as far as AF_XDP needs them.
//!
//! Structures and numbers are those of linux/bpf.h; libc has none of them. The kernel takes an attribute block that is
//! shorter than its own, and reads the missing part as zero.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// The program copes with frames in several buffers.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// linux/if_link.h.
pub(super) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
pub(super) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Enough for the verifier's words on a program of some hundred instructions.
const VERIFIER_LOG_BYTES: usize = 64 << 10;
/// What of them goes into an error: the end, where the reason is.
const VERIFIER_LOG_SHOWN: usize = 400;

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct MapUpdate {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
/// Every address in `attributes` that `command` reads or writes through must be valid for that.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is writable for its whole size during the call; the caller vouches for what it points to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
/// As for [`bpf`]; besides, `command` must be one that returns a new descriptor.
unsafe fn bpf_descriptor<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: passed on to the caller.
    let fd = unsafe { bpf(command, attributes)? };
    // SAFETY: the kernel has just returned a new descriptor that nothing else owns; descriptors fit in a c_int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    // One byte less than there is: the name ends with a zero.
    for (to, from) in name[..15].iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

/// A map from queue numbers to AF_XDP sockets, for queues below `queues`.
pub(super) fn create_socket_map(queues: u32) -> io::Result<OwnedFd> {
    let mut attributes = MapCreate {
        map_type: BPF_MAP_TYPE_XSKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: queues,
        map_name: name("outrider_queues"),
        ..MapCreate::default()
    };
    // SAFETY: the block holds no addresses, and BPF_MAP_CREATE returns a descriptor.
    unsafe { bpf_descriptor(BPF_MAP_CREATE, &mut attributes) }
}

/// Puts `socket` into the map at `queue`. The kernel takes it out when the socket is closed.
pub(super) fn set_socket(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = number(socket);
    let mut attributes = MapUpdate {
        map_fd: number(map),
        key: core::ptr::from_ref(&queue) as u64,
        value: core::ptr::from_ref(&value) as u64,
        ..MapUpdate::default()
    };
    // SAFETY: `key` and `value` are addresses of four readable bytes each, which is the size of this map's keys and
    // values, and both live until the call has returned.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(|_| ())
}

/// Why a program was not loaded.
#[derive(Debug)]
pub(super) struct Refused {
    pub source: io::Error,
    /// The end of the verifier's log, on one line; empty if it said nothing.
    pub log: String,
}

/// Loads an XDP program.
pub(super) fn load_program(code: &[u64], multi_buffer: bool) -> Result<OwnedFd, Refused> {
    let license = c"MIT OR Apache-2.0";
    let mut attributes = ProgramLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: u32::try_from(code.len()).unwrap_or(u32::MAX),
        insns: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        prog_flags: if multi_buffer { BPF_F_XDP_HAS_FRAGS } else { 0 },
        prog_name: name("outrider"),
        expected_attach_type: BPF_XDP,
        ..ProgramLoad::default()
    };
    // SAFETY: `insns` is the address of `insn_cnt` instructions of eight bytes and `license` that of a string with
    // its zero; both outlive the call. There is no log buffer. BPF_PROG_LOAD returns a descriptor.
    let source = match unsafe { bpf_descriptor(BPF_PROG_LOAD, &mut attributes) } {
        Ok(program) => return Ok(program),
        Err(source) => source,
    };
    // Once more, for the verifier's words.
    let mut log = vec![0_u8; VERIFIER_LOG_BYTES];
    attributes.log_level = 1;
    attributes.log_size = VERIFIER_LOG_BYTES as u32;
    attributes.log_buf = log.as_mut_ptr() as u64;
    // SAFETY: as above; and `log_buf` is the address of `log_size` writable bytes that outlive the call.
    match unsafe { bpf_descriptor(BPF_PROG_LOAD, &mut attributes) } {
        Ok(program) => Ok(program),
        Err(_) => Err(Refused { source, log: last_words(&log) }),
    }
}

fn last_words(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log.split(|&byte| byte == 0).next().unwrap_or(log));
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let shown = line.chars().count().saturating_sub(VERIFIER_LOG_SHOWN);
    line.chars().skip(shown).collect()
}

/// Attaches `program` to an interface until the link's last descriptor is closed, also by the end of the process.
pub(super) fn create_link(program: BorrowedFd<'_>, interface: u32, mode: u32) -> io::Result<OwnedFd> {
    let mut attributes =
        LinkCreate { prog_fd: number(program), target_ifindex: interface, attach_type: BPF_XDP, flags: mode };
    // SAFETY: the block holds no addresses, and BPF_LINK_CREATE returns a descriptor.
    unsafe { bpf_descriptor(BPF_LINK_CREATE, &mut attributes) }
}

#[cfg(test)]
pub(super) mod testing {
    //! What only tests ask of bpf(2).

    use super::*;

    const BPF_PROG_TEST_RUN: libc::c_long = 10;

    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }

    /// Runs `program` over `frame` without an interface and returns its verdict.
    pub(in crate::afxdp) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
        let mut attributes = TestRun {
            prog_fd: number(program),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            ..TestRun::default()
        };
        // SAFETY: `data_in` is the address of `data_size_in` readable bytes that outlive the call; nothing is
        // written back but the fields of the block.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut attributes)? };
        Ok(attributes.retval)
    }

    /// BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_LINK_GET_NEXT_ID.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::afxdp) enum Object {
        Program = 11,
        Map = 12,
        Link = 31,
    }

    /// Identifiers of all objects of a kind, of the whole system.
    pub(in crate::afxdp) fn identifiers(object: Object) -> Vec<u32> {
        #[repr(C)]
        #[derive(Default)]
        struct NextId {
            start_id: u32,
            next_id: u32,
            open_flags: u32,
        }
        let mut found = Vec::new();
        let mut attributes = NextId::default();
        // SAFETY: the block holds no addresses.
        while unsafe { bpf(object as libc::c_long, &mut attributes) }.is_ok() {
            found.push(attributes.next_id);
            attributes.start_id = attributes.next_id;
        }
        found
    }
}
