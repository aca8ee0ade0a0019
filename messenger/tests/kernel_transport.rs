//! The kernel transport against ordinary sockets: what it tells an endpoint, and what the peer sees.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

#[path = "kernel/script.rs"]
mod script;

use core::ops::Range;
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use outrider_drivers::kernel_socket::set_reset_on_close;
use outrider_drivers::netns::{NetNamespace, NetnsError};
use outrider_messenger::transport::{Kernel, KernelConfig, KernelStartError, Transport, TransportError};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::Blocked;

use script::{Event, Opener, PATIENCE, Script};

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn kernel() -> Kernel {
    Kernel::start(&KernelConfig::default()).unwrap()
}

/// A connection dialled through the transport, established, and the socket at its other end.
fn dialled(kernel: &Kernel) -> (Script, TcpStream) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let (script, endpoint) = Script::new();
    assert!(kernel.connect(listener.local_addr().unwrap(), endpoint).is_ok());
    let peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let Event::Established(established) = script.next() else { panic!("established first") };
    assert_eq!(established.local, peer.peer_addr().unwrap());
    assert_eq!(established.remote, peer.local_addr().unwrap());
    (script, peer)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn bytes_go_both_ways_and_both_ends_finish_in_order() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    let (there, back) = (pattern(3_000_000), pattern(1_000_000));
    script.send(&there);
    let reader = std::thread::spawn({
        let mut peer = peer.try_clone().unwrap();
        move || {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).map(|_| received)
        }
    });
    peer.write_all(&back).unwrap();
    assert_eq!(script.receive(back.len()), back);
    script.wait_until_acked(there.len() as u64);
    script.finish();
    assert_eq!(reader.join().unwrap().unwrap(), there);
    drop(peer);
    assert_eq!(script.next(), Event::PeerFinished);
    assert_eq!(script.next(), Event::Closed(CloseReason::Finished));
    assert!(script.is_dropped(), "nothing follows the end");
}

#[test]
fn a_peer_may_finish_first_and_still_be_answered() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    peer.write_all(b"question").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(script.receive(8), b"question");
    assert_eq!(script.next(), Event::PeerFinished);
    script.send(b"answer");
    script.finish();
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    assert_eq!(script.next(), Event::Closed(CloseReason::Finished));
}

#[test]
fn a_listener_tells_its_port_and_ends_with_its_guard() {
    let kernel = kernel();
    let (opener, scripts) = Opener::new();
    let listening = kernel.listen_at(loopback(), Box::new(opener)).unwrap();
    assert_ne!(listening.address.port(), 0);
    let mut peer = TcpStream::connect(listening.address).unwrap();
    let script = scripts.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(script.next(), Event::Established(_)));
    let taken = kernel.listen(listening.address, Box::new(Opener::new().0));
    assert!(matches!(taken, Err(TransportError::Refused(_))), "somebody listens there");
    drop(listening.guard);
    // The worker is told, and does it soon; connections stay.
    while TcpStream::connect(listening.address).is_ok() {}
    script.send(b"still here");
    let mut read = [0; 10];
    peer.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"still here");
}

#[test]
fn an_acceptor_may_turn_a_peer_away() {
    let kernel = kernel();
    let (opener, scripts) = Opener::new();
    drop(scripts);
    let listening = kernel.listen_at(loopback(), Box::new(opener)).unwrap();
    let mut peer = TcpStream::connect(listening.address).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn nobody_at_the_address_refuses() {
    let kernel = kernel();
    let nobody = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let (script, endpoint) = Script::new();
    assert!(kernel.connect(nobody, endpoint).is_ok());
    assert_eq!(script.next(), Event::Closed(CloseReason::Refused));
    assert!(script.is_dropped());
}

#[test]
fn an_attempt_that_nobody_answers_ends_in_time_and_one_without_a_route_at_once() {
    let namespace = match NetNamespace::create() {
        Err(NetnsError::NoPrivilege { .. }) => {
            assert!(std::env::var_os("CI").is_none(), "under CI nothing is skipped: run as root");
            return println!("skipped: needs root");
        }
        namespace => namespace.unwrap(),
    };
    for line in [
        "add table inet hole",
        "add chain inet hole arriving { type filter hook input priority 0 ; }",
        "add rule inet hole arriving tcp dport 80 drop",
    ] {
        assert!(namespace.command("nft").args(line.split(' ')).status().unwrap().success(), "{line}");
    }
    let config = KernelConfig { connect_timeout: Duration::from_millis(30), ..KernelConfig::default() };
    let kernel = namespace.run(|| Kernel::start(&config)).unwrap().unwrap();
    for (address, reason) in [
        (SocketAddr::from((Ipv4Addr::LOCALHOST, 80)), CloseReason::ConnectTimeout),
        (SocketAddr::from(([10, 0, 0, 1], 80)), CloseReason::Unreachable),
    ] {
        let (script, endpoint) = Script::new();
        assert!(kernel.connect(address, endpoint).is_ok());
        assert_eq!(script.next(), Event::Closed(reason));
    }
}

#[test]
fn a_reset_by_the_peer_is_one() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    peer.write_all(b"last words").unwrap();
    assert_eq!(script.receive(10), b"last words");
    set_reset_on_close(&peer).unwrap();
    drop(peer);
    assert_eq!(script.next(), Event::Closed(CloseReason::Reset));
}

#[test]
fn a_reset_is_noticed_even_while_the_endpoint_takes_nothing() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    script.set_room(0);
    peer.write_all(b"unread").unwrap();
    set_reset_on_close(&peer).unwrap();
    drop(peer);
    assert_eq!(script.next(), Event::Closed(CloseReason::Reset));
}

#[test]
fn an_endpoint_that_aborts_resets_its_peer() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    script.abort();
    assert_eq!(script.next(), Event::Closed(CloseReason::Aborted));
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_stream_that_the_endpoint_cannot_use_is_reset() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    script.refuse_bytes();
    peer.write_all(b"nonsense").unwrap();
    assert_eq!(script.next(), Event::Closed(CloseReason::Unusable));
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_endpoint_without_room_stops_the_peer_and_loses_nothing() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    script.set_room(0);
    peer.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    let chunk = pattern(100_000);
    let mut written = Vec::new();
    // The kernel's buffers fill up, and then the peer waits.
    while let Ok(bytes) = peer.write(&chunk) {
        written.extend_from_slice(&chunk[..bytes]);
        assert!(written.len() < 1 << 30, "the peer is never stopped");
    }
    assert!(script.nothing_happened());
    // Pieces as small as the endpoint likes, whatever the kernel holds.
    script.set_room(1_000);
    script.wake();
    assert_eq!(script.receive(written.len()), written);
    assert!(script.largest_delivery() <= 1_000);
}

#[test]
fn of_long_chunks_that_come_one_by_one_no_more_than_their_heads_goes_through_a_buffer() {
    const CHUNK_BYTES: usize = 100_000;
    const HEAD_BYTES_MAX: usize = 4 << 10;
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    let chunk = pattern(CHUNK_BYTES);
    let exchange = |peer: &mut TcpStream, range: Range<usize>| {
        peer.write_all(&chunk[range.clone()]).unwrap();
        assert!(script.receive(range.len()) == chunk[range]);
    };
    script.place_chunks_of(CHUNK_BYTES);
    // That there are long ones shows when the first has come in part.
    exchange(&mut peer, 0..CHUNK_BYTES / 2);
    exchange(&mut peer, CHUNK_BYTES / 2..CHUNK_BYTES);
    script.place_chunks_of(CHUNK_BYTES);
    for _ in 0..20 {
        exchange(&mut peer, 0..CHUNK_BYTES);
    }
    assert!(script.largest_delivery() <= HEAD_BYTES_MAX, "{} bytes", script.largest_delivery());
}

#[test]
fn acknowledgements_are_told_without_anything_else_happening() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    script.send(&pattern(10));
    peer.read_exact(&mut [0; 10]).unwrap();
    script.wait_until_acked(10);
    assert_eq!(script.last_cut().bytes_in_flight, 0);
    script.send(&pattern(20));
    script.wait_until_acked(30);
    assert_eq!(script.last_cut().stream_offset, 11);
}

#[test]
fn little_is_left_to_the_kernel_and_what_is_urgent_overtakes_once() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    // More than all buffers hold, to a peer that does not read.
    let bulk = pattern(64 << 20);
    script.send(&bulk);
    script.wait_until_blocked();
    script.send_urgent(b"FIRST!");
    script.wake();
    script.wait_until_urgent_cut();
    let state = script.last_cut();
    assert_eq!(state.blocked, Blocked::PeerWindow, "{state:?}");
    assert!(state.bytes_in_flight > 0 && state.oldest_unacked_age > Duration::ZERO, "{state:?}");
    assert!(state.congestion_window > 0 && state.smoothed_rtt.is_some(), "{state:?}");
    // The window of the peer and the mark, with the chunk that crossed it.
    let most = state.peer_window + (16 << 10) + KernelConfig::default().chunk_bytes_max as u64;
    assert!(state.bytes_in_flight <= most, "{} of {most}", state.bytes_in_flight);
    // A second one must wait: the first has not left.
    script.send_urgent(b"SECOND");
    script.wake();
    let ahead = script.cut_bytes();
    let mut received = vec![0; bulk.len() + 12];
    peer.read_exact(&mut received).unwrap();
    let urgent = |word: &[u8]| received.windows(6).position(|window| window == word).unwrap();
    assert_eq!(urgent(b"FIRST!") as u64 + 6, ahead, "cut behind what the kernel had, and nothing after it");
    assert!(urgent(b"SECOND") as u64 >= ahead, "the second was cut later");
}

#[test]
fn who_does_not_finish_is_given_up() {
    let config = KernelConfig { finish_timeout: Duration::from_millis(20), ..KernelConfig::default() };
    let kernel = Kernel::start(&config).unwrap();
    let (script, mut peer) = dialled(&kernel);
    script.finish();
    assert_eq!(script.next(), Event::Closed(CloseReason::UserTimeout));
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the end of the stream came first");
}

/// A session that had said its last word was not asked any more, so its own time limit had no effect.
#[test]
fn time_limits_of_an_endpoint_hold_after_it_has_finished() {
    let kernel = kernel();
    let (script, mut peer) = dialled(&kernel);
    script.finish();
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    script.abort_at(kernel.clock().now() + Duration::from_millis(20));
    assert_eq!(script.next(), Event::Closed(CloseReason::Aborted));
}

#[test]
fn dropping_the_transport_ends_its_connections_and_its_threads() {
    let kernel = kernel();
    let (opener, _scripts) = Opener::new();
    let listening = kernel.listen_at(loopback(), Box::new(opener)).unwrap();
    let (script, mut peer) = dialled(&kernel);
    drop(kernel);
    assert_eq!(script.next(), Event::Closed(CloseReason::Aborted));
    assert!(script.is_dropped());
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(TcpStream::connect(listening.address).is_err(), "nobody listens any more");
}

#[test]
fn a_transport_that_is_dropped_on_its_own_thread_does_not_wait_for_itself() {
    let kernel = kernel();
    let (script, peer) = dialled(&kernel);
    script.drop_at_end(kernel);
    drop(peer);
    assert_eq!(script.next(), Event::PeerFinished);
    script.finish();
    assert_eq!(script.next(), Event::Closed(CloseReason::Finished));
    script.wait_until_dropped();
}

#[test]
fn connections_are_shared_out_and_each_stays_on_one_thread() {
    let kernel = Kernel::start(&KernelConfig { workers: 3, ..KernelConfig::default() }).unwrap();
    let (opener, accepted) = Opener::new();
    let listening = kernel.listen_at(loopback(), Box::new(opener)).unwrap();
    let mut scripts = Vec::new();
    for _ in 0..60 {
        let (script, endpoint) = Script::new();
        assert!(kernel.connect(listening.address, endpoint).is_ok());
        script.send(&pattern(1_000));
        scripts.push(script);
    }
    for _ in 0..60 {
        let script = accepted.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(script.next(), Event::Established(_)));
        assert_eq!(script.receive(1_000), pattern(1_000));
        scripts.push(script);
    }
    let mut threads = HashSet::new();
    for script in &scripts {
        let own = script.threads();
        assert_eq!(own.len(), 1, "an endpoint was called on several threads");
        threads.extend(own);
    }
    assert_eq!(threads.len(), 3);
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    let start = |config: KernelConfig| Kernel::start(&config).map(|_| ()).unwrap_err();
    let sound = KernelConfig::default;
    assert!(matches!(start(KernelConfig { workers: 0, ..sound() }), KernelStartError::Workers(0)));
    assert!(matches!(start(KernelConfig { workers: 10_000, ..sound() }), KernelStartError::Workers(10_000)));
    let chunks =
        |chunk_bytes_min, chunk_bytes_max| KernelConfig { chunk_bytes_min, chunk_bytes_max, ..sound() };
    for config in [chunks(1, 64_000), chunks(64_000, 32_000), chunks(16_000, 1 << 30)] {
        assert!(matches!(start(config), KernelStartError::ChunkBytes { .. }));
    }
    let unknown = KernelConfig { congestion: Some("no-such-thing".into()), ..sound() };
    let kernel = Kernel::start(&unknown).unwrap();
    let listener = TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).unwrap();
    let (script, endpoint) = Script::new();
    assert!(kernel.connect(listener.local_addr().unwrap(), endpoint).is_ok());
    assert_eq!(script.next(), Event::Closed(CloseReason::NoResources));
}
