//! Stories about TAPs with offloads and with several queues, each in a network namespace of its own.

use std::net::UdpSocket;

use super::tests::{NOW, await_datagram, ip, named, udp_frame};
use super::*;
use crate::doorbell::poll_fds;
use crate::netns::{self, NetNamespace};
use crate::offload::tests::tcp_frame;
use crate::offload::{Headers, SuperSegment, complete_checksum};

/// What fits into 1500 bytes with IPv6 and timestamps.
const SEGMENT_SIZE: u16 = 1428;

fn offloading(name: &str) -> TapOptions {
    TapOptions { offload: true, ..named(name) }
}

fn opened(namespace: &NetNamespace, options: &TapOptions) -> Tap {
    namespace.run(|| Tap::open(options)).unwrap().unwrap()
}

/// Gives `or0` of the kernel the address 10.7.0.1 and makes it know `tap` as 10.7.0.2.
fn address(namespace: &NetNamespace, tap: &Tap) {
    let mac = tap.info().mac.map(|byte| format!("{byte:02x}")).join(":");
    ip(namespace, "addr add 10.7.0.1/24 dev or0");
    ip(namespace, &format!("neigh add 10.7.0.2 lladdr {mac} dev or0"));
}

fn send(tap: &mut Tap, frame: &[u8], offload: TxOffload) {
    let mut fill = |buffer: &mut [u8]| {
        buffer.copy_from_slice(frame);
        frame.len()
    };
    assert!(tap.transmit(NOW, frame.len(), offload, &mut fill).unwrap());
}

/// Puts the sum over the pseudo-header in place of the checksum, as for a device.
fn without_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let headers = Headers::locate(&frame).unwrap();
    let at = headers.transport + headers.checksum_offset();
    let complete = u16::from_be_bytes([frame[at], frame[at + 1]]);
    frame[at..at + 2].fill(0);
    // What is missing from the sum of the segment is that of the pseudo-header (RFC 1071).
    let segment = crate::checksum::sum(&frame[headers.transport..]);
    let pseudo = crate::checksum::fold(u64::from(!complete) + u64::from(!segment));
    frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    frame
}

/// Frames as they were received.
type Received = (Vec<u8>, ReceiveChecksum, TxOffload);

/// Sleeps on the TAP until `count` TCP frames have come.
fn await_tcp(tap: &mut Tap, count: usize) -> Vec<Received> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let mut keep = |frame: RxFrame<'_>| {
            if Headers::locate(frame.bytes).is_some_and(|headers| headers.is_tcp) {
                frames.push((frame.bytes.to_vec(), frame.checksum, frame.left));
            }
        };
        if tap.receive(NOW, 64, &mut keep).unwrap() == 0 {
            poll_fds(&[tap.readiness().unwrap()], None).unwrap();
        }
    }
    frames
}

#[test]
fn the_kernel_completes_our_checksums_and_leaves_its_own_to_us() {
    let Some(namespace) = netns::for_test() else { return };
    let mut tap = opened(&namespace, &offloading("or0"));
    assert!(tap.info().capabilities.tx_checksum);
    assert_eq!(tap.info().capabilities.tx_segment_bytes_max, 65_535);
    address(&namespace, &tap);
    let socket = namespace.run(|| UdpSocket::bind("10.7.0.1:0").unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let complete = udp_frame(&tap, port, &[5; 301]);
    let left = without_checksum(complete.clone());
    assert_ne!(complete, left);
    let mut buffer = [0; 512];
    for (frame, checksum) in [(&complete, false), (&left, true)] {
        send(&mut tap, frame, TxOffload { checksum, segment_size: 0 });
        assert_eq!(socket.recv_from(&mut buffer).unwrap().0, 301);
    }
    socket.send_to(&[6; 200], "10.7.0.2:9").unwrap();
    let mut found = None;
    while found.is_none() {
        poll_fds(&[tap.readiness().unwrap()], None).unwrap();
        let mut look = |frame: RxFrame<'_>| {
            if frame.bytes.ends_with(&[6; 200]) {
                found = Some((frame.bytes.to_vec(), frame.checksum, frame.left));
            }
        };
        tap.receive(NOW, 1, &mut look).unwrap();
    }
    let (mut frame, checksum, left) = found.unwrap();
    assert_eq!(checksum, ReceiveChecksum::Valid);
    assert_eq!(left, TxOffload { checksum: true, segment_size: 0 });
    let before = frame.clone();
    assert!(complete_checksum(&mut frame));
    assert_eq!(without_checksum(frame), before);
}

#[test]
fn a_frame_that_the_kernel_cannot_finish_is_dropped_and_counted() {
    let Some(namespace) = netns::for_test() else { return };
    let mut tap = opened(&namespace, &offloading("or0"));
    send(&mut tap, &[0; 60], TxOffload { checksum: true, segment_size: 0 });
    assert_eq!((tap.statistics().tx_dropped, tap.tap_statistics().tx_refused), (1, 1));
}

/// Two TAPs on a bridge, the first with offloads.
fn bridged(namespace: &NetNamespace, second: &TapOptions) -> [Tap; 2] {
    ip(namespace, "link add orbr type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
    let taps = [opened(namespace, &offloading("or0")), opened(namespace, second)];
    for device in ["or0", "or1"] {
        ip(namespace, &format!("link set {device} master orbr up"));
    }
    ip(namespace, "link set orbr up");
    taps
}

#[test]
fn across_a_bridge_a_super_segment_arrives_uncut_and_valid_where_the_receiver_has_offloads() {
    let Some(namespace) = netns::for_test() else { return };
    let [mut a, mut b] = bridged(&namespace, &offloading("or1"));
    for is_ipv6 in [false, true] {
        for length in [60_000, 65_000, 1429, 1428, 1] {
            let whole = tcp_frame(is_ipv6, 12, 0x18, &vec![3; length]);
            send(&mut a, &whole, TxOffload { checksum: true, segment_size: SEGMENT_SIZE });
            let (frame, checksum, left) = await_tcp(&mut b, 1).remove(0);
            assert!(frame == whole, "{length}");
            assert_eq!(checksum, ReceiveChecksum::Valid);
            let segment_size = if length > usize::from(SEGMENT_SIZE) { SEGMENT_SIZE } else { 0 };
            assert_eq!(left, TxOffload { checksum: true, segment_size }, "{length}");
        }
    }
    assert_eq!(a.tap_statistics().tx_super_segments, 10);
    assert_eq!(b.tap_statistics().rx_super_segments, 6);
    assert_eq!(b.statistics().rx_dropped, 0);
}

#[test]
fn across_a_bridge_the_kernel_cuts_for_a_receiver_without_offloads_as_we_do() {
    let Some(namespace) = netns::for_test() else { return };
    let [mut a, mut b] = bridged(&namespace, &named("or1"));
    for is_ipv6 in [false, true] {
        // FIN, PSH, ACK and CWR.
        let whole = tcp_frame(is_ipv6, 12, 0x99, &[9; 60_001]);
        send(&mut a, &whole, TxOffload { checksum: true, segment_size: SEGMENT_SIZE });
        let cut = SuperSegment::new(&whole, SEGMENT_SIZE).unwrap();
        let mut buffer = vec![0; cut.frame_bytes_max()];
        for (index, (frame, checksum, left)) in await_tcp(&mut b, cut.frames()).iter().enumerate() {
            let length = cut.write(index, &mut buffer);
            assert_eq!(frame[..], buffer[..length], "frame {index}");
            assert_eq!((*checksum, *left), (ReceiveChecksum::Unverified, TxOffload::default()));
        }
    }
}

#[test]
fn a_user_without_offloads_is_not_left_what_the_one_before_took() {
    let Some(namespace) = netns::for_test() else { return };
    ip(&namespace, "tuntap add dev or0 mode tap");
    drop(opened(&namespace, &offloading("or0")));
    let mut tap = opened(&namespace, &named("or0"));
    address(&namespace, &tap);
    let socket = namespace.run(|| UdpSocket::bind("10.7.0.1:0").unwrap()).unwrap();
    socket.send_to(&[8; 200], "10.7.0.2:9").unwrap();
    let frame = await_datagram(&mut tap, &[8; 200]);
    let mut again = without_checksum(frame.clone());
    complete_checksum(&mut again);
    assert_eq!(again, frame, "the checksum is complete");
}

#[test]
fn each_flow_stays_with_the_queue_that_sent_it() {
    const QUEUES: usize = 3;
    let Some(namespace) = netns::for_test() else { return };
    let options = TapOptions { queues: QUEUES, ..offloading("or0") };
    let mut taps = namespace.run(|| Tap::open_queues(&options)).unwrap().unwrap();
    let names: Vec<&str> = taps.iter().map(|tap| tap.info().name.as_str()).collect();
    assert_eq!(names, ["tap:or0/0", "tap:or0/1", "tap:or0/2"]);
    assert!(taps.iter().all(|tap| tap.info().mac == taps[0].info().mac));
    address(&namespace, &taps[0]);
    let sockets: Vec<UdpSocket> =
        (0..30).map(|_| namespace.run(|| UdpSocket::bind("10.7.0.1:0").unwrap()).unwrap()).collect();
    for (number, socket) in sockets.iter().enumerate() {
        let queue = number % QUEUES;
        let content = [number as u8; 100];
        let frame = udp_frame(&taps[queue], socket.local_addr().unwrap().port(), &content);
        send(&mut taps[queue], &frame, TxOffload::default());
        let (length, from) = socket.recv_from(&mut [0; 512]).unwrap();
        assert_eq!(length, 100);
        socket.send_to(&content, from).unwrap();
        // It would sleep for ever if the answer came to another.
        await_datagram(&mut taps[queue], &content);
    }
    drop(taps.drain(1..));
    let tap = &mut taps[0];
    let frame = udp_frame(tap, sockets[0].local_addr().unwrap().port(), &[99; 100]);
    send(tap, &frame, TxOffload::default());
    assert_eq!(sockets[0].recv_from(&mut [0; 512]).unwrap().0, 100, "the interface lives as long as a queue");
    drop(taps);
    let again = namespace.run(|| Tap::open(&named("or0"))).unwrap();
    assert!(again.is_ok(), "and no longer: {again:?}");
}

#[test]
fn queues_that_cannot_be_had_are_told() {
    for queues in [0, 257] {
        let error = Tap::open_queues(&TapOptions { queues, ..named("or0") }).unwrap_err();
        assert!(matches!(error, TapError::InvalidQueues { .. }), "{error}");
    }
    let Some(namespace) = netns::for_test() else { return };
    ip(&namespace, "tuntap add dev one mode tap");
    ip(&namespace, "tuntap add dev several mode tap multi_queue");
    let open = |name: &str, queues| {
        let options = TapOptions { queues, ..named(name) };
        namespace.run(|| Tap::open_queues(&options)).unwrap()
    };
    let error = open("one", 2).unwrap_err();
    assert!(matches!(&error, TapError::SingleQueue { queues: 2, .. }), "{error}");
    let held = open("one", 1).unwrap();
    let error = open("one", 2).unwrap_err();
    assert!(matches!(&error, TapError::SingleQueue { .. }), "{error}");
    let error = open("one", 1).unwrap_err();
    assert!(matches!(&error, TapError::Busy { .. }), "{error}");
    drop(held);
    assert_eq!(open("several", 1).unwrap().len(), 1);
    let all = open("several", 256).unwrap();
    assert_eq!(all.len(), 256);
    let error = open("several", 1).unwrap_err();
    assert!(matches!(&error, TapError::QueuesTaken { .. }), "{error}");
    let error = open("lo", 2).unwrap_err();
    assert!(matches!(&error, TapError::NotATap { .. }), "{error}");
}
