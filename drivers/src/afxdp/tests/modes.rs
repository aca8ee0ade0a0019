//! What is chosen, and what can be forced.

use super::*;
use crate::afxdp::{Attach, Attached, CopyMode};
use crate::busy_poll::BusyPoll;

#[test]
fn veth_gets_native_mode_with_a_copy_and_says_so() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let ports = lab.open_near(&AfXdpOptions::default()).unwrap();
    let details = ports[0].details();
    assert_eq!(details.attached, Attached::Native);
    assert!(!details.zero_copy && !details.multi_buffer && !details.tx_checksum, "{details}");
    assert_eq!(details.chunk_bytes, 2048);
    assert_eq!(details.native_refused, None);
    assert_eq!(ports[0].info().name, "afxdp:near0:0");
    assert_eq!(ports[0].info().mtu, 1500);
}

#[test]
fn an_interface_whose_driver_takes_no_program_gets_generic_mode() {
    let Some(namespace) = netns::for_test() else { return };
    run(namespace.command("ip"), "link add bridge0 type bridge");
    run(namespace.command("ip"), "link set bridge0 up");
    let open = |attach| {
        let options = AfXdpOptions { attach, ..AfXdpOptions::default() };
        namespace.run(|| AfXdp::open("bridge0", &options)).unwrap()
    };
    let ports = open(Attach::Automatic).unwrap();
    assert_eq!(ports[0].details().attached, Attached::Generic);
    assert!(ports[0].details().native_refused.is_some(), "{}", ports[0].details());
    // The generic program goes away while the native one is asked for: that is waited for, not reported. (A process
    // that forks at the wrong moment holds it just so.)
    let error = std::thread::scope(|scope| {
        let asking = scope.spawn(|| open(Attach::Native).unwrap_err());
        drop(ports);
        asking.join().unwrap()
    });
    assert!(matches!(error, AfXdpError::NativeRefused { .. }), "{error}");
}

#[test]
fn zero_copy_that_is_demanded_and_not_there_is_an_error() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let options = AfXdpOptions { copy: CopyMode::ZeroCopy, ..AfXdpOptions::default() };
    let error = lab.open_near(&options).unwrap_err();
    assert!(matches!(error, AfXdpError::ZeroCopyRefused { .. }), "{error}");
    let options = AfXdpOptions { copy: CopyMode::Copy, ..AfXdpOptions::default() };
    assert!(!lab.open_near(&options).unwrap()[0].details().zero_copy);
}

#[test]
fn frames_pass_with_busy_polling_and_with_large_chunks() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let options = AfXdpOptions {
        busy_poll: Some(BusyPoll::default()),
        chunk_bytes: Some(4096),
        huge_pages: false,
        ..AfXdpOptions::default()
    };
    let (mut near, mut far) = lab.pair(&options);
    assert!(near.details().busy_poll && near.details().chunk_bytes == 4096);
    for number in 0..100 {
        assert!(send(&mut near, &numbered(number, 1514)));
        wait_for(&mut far, "a frame", |frame| number_of(frame) == Some(number));
    }
}

#[test]
fn a_frame_of_several_chunks_may_be_forbidden() {
    let Some(lab) = Lab::new(1, 9000) else { return };
    let options = AfXdpOptions { multi_buffer: false, ..AfXdpOptions::default() };
    match lab.open_near(&options).unwrap_err() {
        AfXdpError::MtuTooLarge { mtu: 9000, chunk_bytes: 4096, mtu_max: 3822, .. } => {}
        other => panic!("{other}"),
    }
}
