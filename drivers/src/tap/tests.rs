//! Stories about a TAP and the kernel behind it, each in a network namespace of its own.

use core::time::Duration;
use std::net::UdpSocket;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr,
    UdpPacket, UdpRepr,
};

use super::*;
use crate::doorbell::poll_fds;
use crate::netns::{self, NetNamespace};

pub(super) const NOW: Instant = Instant::ZERO;

pub(super) fn named(name: &str) -> TapOptions {
    TapOptions { name: Some(name.to_owned()), ..TapOptions::default() }
}

pub(super) fn ip(namespace: &NetNamespace, arguments: &str) {
    let status = namespace.command("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A TAP `or0` whose kernel side is 10.7.0.1 and knows this side as 10.7.0.2.
fn open_with_address(namespace: &NetNamespace) -> Tap {
    let tap = namespace.run(|| Tap::open(&named("or0"))).unwrap().unwrap();
    let mac = tap.info().mac.map(|byte| format!("{byte:02x}")).join(":");
    ip(namespace, "addr add 10.7.0.1/24 dev or0");
    ip(namespace, &format!("neigh add 10.7.0.2 lladdr {mac} dev or0"));
    tap
}

pub(super) fn udp_frame(tap: &Tap, port: u16, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: 9, dst_port: port };
    let (us, kernel) = (Ipv4Address::new(10, 7, 0, 2), Ipv4Address::new(10, 7, 0, 1));
    let udp_bytes = udp.header_len() + payload.len();
    let ipv4 = Ipv4Repr {
        src_addr: us,
        dst_addr: kernel,
        next_header: IpProtocol::Udp,
        payload_len: udp_bytes,
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + 20 + udp_bytes];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(EthernetAddress(tap.info().mac));
    frame.set_dst_addr(EthernetAddress(tap.kernel_mac()));
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ipv4.emit(&mut packet, &ChecksumCapabilities::default());
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &us.into(),
        &kernel.into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    bytes
}

fn send(tap: &mut Tap, frame: &[u8]) -> Result<bool, PortError> {
    tap.transmit(NOW, frame.len(), TxOffload::default(), &mut |buffer| {
        buffer.copy_from_slice(frame);
        frame.len()
    })
}

/// Sleeps on the TAP until the kernel has sent a UDP datagram with `payload`.
pub(super) fn await_datagram(tap: &mut Tap, payload: &[u8]) -> Vec<u8> {
    loop {
        let mut found = None;
        tap.receive(NOW, 8, &mut |frame| {
            // The kernel chatters (neighbour discovery); only the datagram counts.
            if frame.bytes.len() >= 42 && frame.bytes[12..14] == [8, 0] && &frame.bytes[42..] == payload {
                found = Some(frame.bytes.to_vec());
            }
        })
        .unwrap();
        if let Some(frame) = found {
            return frame;
        }
        poll_fds(&[tap.readiness().unwrap()], None).unwrap();
    }
}

#[test]
fn datagrams_go_to_the_kernel_and_come_back() {
    let Some(namespace) = netns::for_test() else { return };
    let mut tap = open_with_address(&namespace);
    let socket = namespace.run(|| UdpSocket::bind("10.7.0.1:0").unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    for number in 0..100_u8 {
        let frame = udp_frame(&tap, port, &[number; 300]);
        assert!(send(&mut tap, &frame).unwrap());
        tap.flush(NOW).unwrap();
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.to_string().as_str()), (&[number; 300][..], "10.7.0.2:9"));
        socket.send_to(&[number; 200], "10.7.0.2:9").unwrap();
        let answer = await_datagram(&mut tap, &[number; 200]);
        assert_eq!(answer[..6], tap.info().mac);
        assert_eq!(answer[6..12], tap.kernel_mac());
    }
    assert_eq!(tap.statistics().tx_frames, 100);
    assert!(tap.statistics().rx_frames >= 100);
    assert_eq!((tap.statistics().tx_dropped, tap.statistics().rx_dropped), (0, 0));
}

#[test]
fn what_the_kernel_sends_while_nobody_reads_is_kept_up_to_the_queue() {
    let Some(namespace) = netns::for_test() else { return };
    let received = |queue_frames| {
        let options = TapOptions { queue_frames: Some(queue_frames), ..TapOptions::default() };
        let mut tap = namespace.run(|| Tap::open(&options).unwrap()).unwrap();
        let name = tap.interface_name().to_owned();
        let ip = |arguments: &str| {
            assert!(
                namespace.command("ip").args(arguments.split(' ')).status().unwrap().success(),
                "{arguments}"
            );
        };
        ip(&format!("address add 10.7.0.1/24 dev {name}"));
        ip(&format!("neighbour add 10.7.0.2 lladdr 02:00:00:00:00:02 dev {name}"));
        let socket = namespace.run(|| UdpSocket::bind("10.7.0.1:0").unwrap()).unwrap();
        for _ in 0..1500 {
            socket.send_to(&[7; 100], "10.7.0.2:9").unwrap();
        }
        let mut datagrams = 0;
        let mut count = |frame: RxFrame<'_>| datagrams += usize::from(frame.bytes.ends_with(&[7; 100]));
        while tap.receive(Instant::ZERO, 256, &mut count).unwrap() > 0 {}
        datagrams
    };
    assert!(received(64) < 1500, "a short queue overflows");
    assert_eq!(received(2048), 1500);
}

#[test]
fn options_are_applied_and_addresses_differ() {
    let Some(namespace) = netns::for_test() else { return };
    let (own, kernel) = ([2, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2]);
    let (a, b) = namespace
        .run(|| {
            let options = TapOptions {
                mtu: Some(9000),
                mac: Some(own),
                kernel_mac: Some(kernel),
                ..TapOptions::default()
            };
            (Tap::open(&options).unwrap(), Tap::open(&TapOptions::default()).unwrap())
        })
        .unwrap();
    assert_eq!((a.info().mtu, a.info().mac, a.kernel_mac()), (9000, own, kernel));
    assert_eq!((a.interface_name(), b.interface_name()), ("or0", "or1"));
    assert_eq!((a.info().name.as_str(), b.info().mtu), ("tap:or0", 1500));
    assert_ne!(b.info().mac, b.kernel_mac());
    assert_eq!(b.info().mac[0] & 0b11, 0b10, "locally administered, unicast");
    let again = namespace.run(|| {
        drop(b);
        Tap::open(&named("or1")).unwrap().info().mac
    });
    let renamed = namespace.run(|| Tap::open(&named("or7")).unwrap().info().mac);
    let reseeded = namespace.run(|| Tap::open(&TapOptions { seed: 1, ..named("or1") }).unwrap().info().mac);
    let macs = [again.unwrap(), renamed.unwrap(), reseeded.unwrap()];
    assert!(macs[0] != macs[1] && macs[0] != macs[2] && macs[1] != macs[2], "{macs:?}");
}

#[test]
fn a_persistent_tap_is_attached_to_and_stays() {
    let Some(namespace) = netns::for_test() else { return };
    ip(&namespace, "tuntap add dev keep mode tap");
    for _ in 0..2 {
        let tap = namespace.run(|| Tap::open(&named("keep"))).unwrap().unwrap();
        assert_eq!(tap.interface_name(), "keep");
    }
    ip(&namespace, "-o link set dev keep down"); // it would fail if it were gone
}

#[test]
fn a_tap_whose_kernel_side_is_down_drops_and_counts() {
    let Some(namespace) = netns::for_test() else { return };
    let mut tap = open_with_address(&namespace);
    ip(&namespace, "link set or0 down");
    let frame = udp_frame(&tap, 9, b"nobody");
    assert!(send(&mut tap, &frame).unwrap());
    assert_eq!(tap.tap_statistics().tx_down, 1);
    assert_eq!(tap.statistics().tx_dropped, 1);
    tap.receive(NOW, 100, &mut |_| ()).unwrap();
    ip(&namespace, "link set or0 up");
    assert!(send(&mut tap, &frame).unwrap());
    assert_eq!(tap.statistics().tx_dropped, 1, "up again, taken again");
}

#[test]
fn a_deleted_tap_is_gone() {
    let Some(namespace) = netns::for_test() else { return };
    let mut tap = open_with_address(&namespace);
    ip(&namespace, "link del or0");
    let frame = udp_frame(&tap, 9, b"nobody");
    let received = tap.receive(NOW, 100, &mut |_| ()).unwrap_err();
    assert!(matches!(received, PortError::Gone { .. }), "{received}");
    let sent = send(&mut tap, &frame).unwrap_err();
    assert!(matches!(sent, PortError::Gone { .. }), "{sent}");
}

#[test]
fn frames_longer_than_the_mtu_of_this_side_are_dropped_and_counted() {
    let Some(namespace) = netns::for_test() else { return };
    let mut tap = open_with_address(&namespace);
    ip(&namespace, "link set or0 mtu 4000");
    let socket = namespace.run(|| UdpSocket::bind("10.7.0.1:0").unwrap()).unwrap();
    socket.send_to(&[1; 3000], "10.7.0.2:9").unwrap();
    socket.send_to(&[2; 100], "10.7.0.2:9").unwrap();
    await_datagram(&mut tap, &[2; 100]);
    assert_eq!((tap.statistics().rx_dropped, tap.tap_statistics().rx_too_long), (1, 1));
}

#[test]
fn what_cannot_be_opened_says_why() {
    for (name, reason) in [
        ("", "empty"),
        ("sixteen-bytes-ab", "longer than 15"),
        ("a/b", "contains"),
        ("a b", "white space"),
        ("or%d", "contains"),
        ("..", "directory"),
    ] {
        let error = Tap::open(&named(name)).unwrap_err();
        assert!(
            matches!(error, TapError::InvalidName { .. }) && error.to_string().contains(reason),
            "{error}"
        );
    }
    for mtu in [0, 67, 65_522, usize::MAX] {
        let error = Tap::open(&TapOptions { mtu: Some(mtu), ..TapOptions::default() }).unwrap_err();
        assert!(matches!(error, TapError::InvalidMtu { .. }), "{error}");
    }
    let Some(namespace) = netns::for_test() else { return };
    namespace
        .run(|| {
            let held = Tap::open(&named("or0")).unwrap();
            let busy = Tap::open(&named("or0")).unwrap_err();
            assert!(matches!(&busy, TapError::Busy { name } if name == held.interface_name()), "{busy}");
            let other = Tap::open(&named("lo")).unwrap_err();
            assert!(matches!(&other, TapError::NotATap { name } if name == "lo"), "{other}");
        })
        .unwrap();
}

#[test]
fn without_the_privilege_the_error_names_it_and_the_way_round() {
    let Some(namespace) = netns::for_test() else { return };
    let error = namespace
        .run(|| {
            const NOBODY: libc::c_long = 65_534;
            // SAFETY: the raw system call changes the identity of the calling thread only (the C library's wrapper
            // would change all threads), takes no pointers, and the thread ends with this closure.
            let status = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(status, 0);
            Tap::open(&named("or0")).unwrap_err()
        })
        .unwrap();
    assert!(matches!(error, TapError::NoPrivilege { .. }), "{error}");
    let line = error.to_string();
    assert!(
        line.contains("CAP_NET_ADMIN") && line.contains("--link memory") && !line.contains('\n'),
        "{line}"
    );
}

#[test]
fn an_idle_tap_has_nothing_and_a_timeout_passes() {
    let Some(namespace) = netns::for_test() else { return };
    // Down, so that the kernel has nothing to say.
    let options = TapOptions { bring_up: false, ..named("or0") };
    let mut tap = namespace.run(|| Tap::open(&options)).unwrap().unwrap();
    assert_eq!(tap.receive(NOW, 100, &mut |_| ()).unwrap(), 0);
    poll_fds(&[tap.readiness().unwrap()], Some(Duration::from_nanos(1))).unwrap();
    assert_eq!(tap.transmit_room(NOW), TransmitRoom { frames: BURST_FRAMES_MAX, bytes_outstanding: 0 });
}
