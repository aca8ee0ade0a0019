//! Every way to fail, by its own variant and a line that says what to do.

use std::net::IpAddr;

use super::*;
use crate::afxdp::{Attach, CopyMode, Take};

/// Numbers of capabilities (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Runs `work` on a thread of `namespace` that has given up `capabilities`.
fn without<T: Send>(namespace: &NetNamespace, capabilities: &[u32], work: impl FnOnce() -> T + Send) -> T {
    namespace
        .run(|| {
            drop_capabilities(capabilities);
            work()
        })
        .unwrap()
}

/// Takes capabilities from the calling thread (capset(2), version 3: two blocks of 32).
fn drop_capabilities(capabilities: &[u32]) {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: the header is eight bytes and the sets are two blocks of three words, as version 3 has them; both are
    // valid for the length of the call. It concerns the calling thread only.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0);
    for capability in capabilities {
        let [effective, permitted, _] = &mut sets[*capability as usize / 32];
        let bit = 1 << (capability % 32);
        *effective &= !bit;
        *permitted &= !bit;
    }
    // SAFETY: as above; the call only reads.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0);
}

#[test]
fn what_is_not_there_or_not_up_is_named() {
    let Some(lab) = Lab::new(2, 1500) else { return };
    let open = |name| lab.near.run(|| AfXdp::open(name, &AfXdpOptions::default())).unwrap().unwrap_err();
    let error = open("nosuch0");
    assert!(matches!(&error, AfXdpError::NoSuchInterface { interface } if interface == "nosuch0"), "{error}");
    assert!(matches!(open("a-name-of-more-than-15-bytes"), AfXdpError::NoSuchInterface { .. }));
    lab.near("link set near0 down");
    let error = open("near0");
    assert!(matches!(error, AfXdpError::InterfaceDown { .. }), "{error}");
    assert!(error.to_string().contains("ip link set near0 up"), "{error}");
    lab.near("link set near0 up");
    let options = AfXdpOptions { queues: vec![1, 2], ..AfXdpOptions::default() };
    let error = lab.open_near(&options).unwrap_err();
    assert!(matches!(error, AfXdpError::NoSuchQueue { queue: 2, queues: Some(2), .. }), "{error}");
}

#[test]
fn a_second_user_is_refused_and_the_first_goes_on() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let (mut near, mut far) = lab.pair(&AfXdpOptions::default());
    let error = lab.open_near(&AfXdpOptions::default()).unwrap_err();
    assert!(matches!(error, AfXdpError::ProgramAttached { .. }), "{error}");
    let generic = AfXdpOptions { attach: Attach::Generic, ..AfXdpOptions::default() };
    let error = lab.open_near(&generic).unwrap_err();
    assert!(matches!(error, AfXdpError::ProgramAttached { .. }), "{error}");
    assert!(send(&mut far, &numbered(1, 60)));
    wait_for(&mut near, "a frame", |frame| number_of(frame) == Some(1));
}

#[test]
fn a_queue_with_a_socket_of_somebody_else_is_taken() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    // A socket without a program, as another tool may leave it.
    let ports = lab.open_near(&AfXdpOptions::default()).unwrap();
    let ports: Vec<_> = ports.into_iter().map(AfXdpPort::without_program).collect();
    let error = lab.open_near(&AfXdpOptions::default()).unwrap_err();
    assert!(matches!(error, AfXdpError::QueueTaken { queue: 0, .. }), "{error}");
    drop(ports);
    lab.open_near(&AfXdpOptions::default()).unwrap();
}

#[test]
fn each_missing_capability_is_named() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let cases: [(&[u32], &str); 3] = [
        (&[CAP_NET_RAW], "CAP_NET_RAW"),
        (&[CAP_BPF, CAP_SYS_ADMIN], "CAP_BPF"),
        (&[CAP_NET_ADMIN, CAP_SYS_ADMIN], "CAP_NET_ADMIN"),
    ];
    for (dropped, named) in cases {
        let opened = without(&lab.near, dropped, || AfXdp::open("near0", &AfXdpOptions::default()));
        match opened.unwrap_err() {
            AfXdpError::MissingCapability { capability, .. } => {
                assert!(capability.contains(named), "{capability}");
            }
            other => panic!("{named}: {other}"),
        }
    }
    // What the documentation names is enough.
    let dropped: Vec<u32> =
        (0..=40).filter(|bit| ![CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK, CAP_BPF].contains(bit)).collect();
    for take in [Take::Dedicated, Take::Shared(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()])]
    {
        let options = AfXdpOptions { take, ..AfXdpOptions::default() };
        without(&lab.near, &dropped, || AfXdp::open("near0", &options)).unwrap();
    }
}

/// Lowers the limit of locked memory where it is large or missing, and returns it. It is the whole process's, but
/// concerns only threads without CAP_IPC_LOCK: those of the one test that gives it up.
fn lower_locked_limit() -> u64 {
    const LIMIT_BYTES: u64 = 8 << 20;
    let now = crate::afxdp::umem::locked_bytes_max();
    if now <= LIMIT_BYTES {
        return now;
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable for the length of the call.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) }, 0);
    limit.rlim_cur = LIMIT_BYTES;
    // SAFETY: `limit` is readable for the length of the call, which only reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
    LIMIT_BYTES
}

#[test]
fn frame_memory_beyond_the_limit_is_told_in_bytes() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let limit = lower_locked_limit();
    let options = AfXdpOptions { rx_frames: 1 << 16, huge_pages: false, ..AfXdpOptions::default() };
    let needed = (u64::from(options.rx_frames) + u64::from(options.tx_frames)) * 2048;
    let opened = without(&lab.near, &[CAP_IPC_LOCK], || AfXdp::open("near0", &options));
    match opened.unwrap_err() {
        AfXdpError::LockedMemory { needed_bytes, limit_bytes, .. } => {
            assert_eq!((needed_bytes, limit_bytes), (needed, limit));
        }
        other => panic!("{other}"),
    }
    lab.open_near(&options).unwrap();
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_is_touched() {
    let addresses = vec![IpAddr::from([10, 0, 0, 1]); 65];
    let base = AfXdpOptions::default;
    let cases = [
        AfXdpOptions { rx_frames: 100, ..base() },
        AfXdpOptions { tx_frames: 0, ..base() },
        AfXdpOptions { chunk_bytes: Some(1024), ..base() },
        AfXdpOptions { queues: vec![1, 0, 1], ..base() },
        AfXdpOptions { take: Take::Shared(Vec::new()), ..base() },
        AfXdpOptions { take: Take::Shared(addresses), ..base() },
        AfXdpOptions { attach: Attach::Generic, copy: CopyMode::ZeroCopy, ..base() },
    ];
    for options in cases {
        let error = AfXdp::open("nosuch0", &options).unwrap_err();
        assert!(matches!(error, AfXdpError::InvalidOptions { .. }), "{options:?}: {error}");
    }
}
