//! Byte streams of application threads over two shards, in real time, and the endpoints that live on the shard.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrider_drivers::memory::{LinkConfig, cable};
use outrider_stack::net::{ListenOptions, StackConfig};
use outrider_stack::shard::{Polling, Shard, ShardConfig, spawn};
use outrider_stack::stream::discard::{DiscardAcceptor, DiscardCounters};
use outrider_stack::stream::echo::EchoAcceptor;
use outrider_stack::stream::{StreamConfig, TcpListener, TcpStream};
use outrider_stack::time::MonotonicClock;

/// Long enough for any machine; nothing waits this long unless it fails.
const FOREVER: Duration = Duration::from_secs(60);

fn shard(host: u8, port: outrider_drivers::memory::MemoryPort) -> Shard {
    let address: IpAddr = format!("10.0.0.{host}").parse().unwrap();
    let config = ShardConfig {
        name: format!("shard {host}"),
        stack: StackConfig::new([(address, 24)]),
        polling: Polling::default(),
        core: None,
        seed: host.into(),
        clock: Arc::new(MonotonicClock),
    };
    spawn(Box::new(port), config).unwrap()
}

fn shards(link: LinkConfig) -> (Shard, Shard) {
    let (a, b) = cable(link.clone(), link, 1);
    (shard(1, a), shard(2, b))
}

fn bind(shard: &Shard, config: StreamConfig) -> TcpListener {
    let any: SocketAddr = "10.0.0.2:0".parse().unwrap();
    TcpListener::bind(&shard.handle(), any, ListenOptions::default(), config).unwrap()
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, peer) = listener.accept_timeout(FOREVER).unwrap();
    assert_eq!(stream.peer_address(), peer);
    assert_eq!(stream.local_address(), listener.local_address());
    stream.set_read_timeout(Some(FOREVER));
    stream.set_write_timeout(Some(FOREVER));
    stream
}

fn connect(shard: &Shard, to: SocketAddr, config: StreamConfig) -> TcpStream {
    let mut stream = TcpStream::connect(&shard.handle(), to, config).unwrap();
    assert_eq!(stream.peer_address(), to);
    stream.set_read_timeout(Some(FOREVER));
    stream.set_write_timeout(Some(FOREVER));
    stream
}

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed).collect()
}

/// Writes in uneven pieces from one thread while another reads; returns what was read until the end.
fn exchange(stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = stream.into_split();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut rest = bytes;
            let mut length = 1;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(length.min(rest.len()));
                writer.write_all(piece).unwrap();
                rest = after;
                length = (length * 3) % 100_003 + 1;
            }
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        received
    })
}

#[test]
fn threads_exchange_megabytes_both_ways_and_see_the_end() {
    for link in [LinkConfig::default(), LinkConfig { loss: 0.01, reorder: 0.01, ..LinkConfig::default() }] {
        let (a, b) = shards(link);
        let listener = bind(&b, StreamConfig::default());
        let client = connect(&a, listener.local_address(), StreamConfig::default());
        let server = accept(&listener);
        let (ours, theirs) = (pattern(1, 3 << 20), pattern(2, 2 << 20));
        std::thread::scope(|scope| {
            let served = scope.spawn(|| exchange(server, &theirs));
            assert!(exchange(client, &ours) == theirs, "what the server wrote");
            assert!(served.join().unwrap() == ours, "what the client wrote");
        });
    }
}

#[test]
fn a_slow_reader_holds_the_writer_back_and_loses_nothing() {
    let (a, b) = shards(LinkConfig::default());
    let small = StreamConfig {
        receive_buffer_bytes: 64 << 10,
        send_buffer_bytes: 64 << 10,
        ..StreamConfig::default()
    };
    let listener = bind(&b, small);
    let mut client = connect(&a, listener.local_address(), small);
    let mut server = accept(&listener);
    client.set_write_timeout(Some(Duration::from_millis(100)));
    let piece = pattern(3, 10_000);
    let mut written = 0;
    let error = loop {
        match client.write(&piece[written % piece.len()..]) {
            Ok(length) => written += length,
            Err(error) => break error,
        }
        assert!(written < 2 << 20, "the buffers are bounded");
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    client.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    let mut byte = [0; 7];
    loop {
        let length = server.read(&mut byte).unwrap();
        if length == 0 {
            break;
        }
        received.extend_from_slice(&byte[..length]);
    }
    assert_eq!(received.len(), written);
    assert!(received.iter().enumerate().all(|(at, byte)| *byte == piece[at % piece.len()]));
}

#[test]
fn half_close_leaves_the_other_direction_open() {
    let (a, b) = shards(LinkConfig::default());
    let listener = bind(&b, StreamConfig::default());
    let mut client = connect(&a, listener.local_address(), StreamConfig::default());
    let mut server = accept(&listener);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write);
    assert_eq!(client.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut question = String::new();
    server.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    server.write_all(b"answer").unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the end stays the end");
}

#[test]
fn reads_time_out_and_streams_go_on_after_it() {
    let (a, b) = shards(LinkConfig::default());
    let listener = bind(&b, StreamConfig::default());
    let mut client = connect(&a, listener.local_address(), StreamConfig::default());
    let mut server = accept(&listener);
    client.set_read_timeout(Some(Duration::from_millis(1)));
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::TimedOut);
    server.write_all(b"!").unwrap();
    client.set_read_timeout(Some(FOREVER));
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"!");
}

#[test]
fn failures_have_the_error_kinds_of_sockets() {
    let (a, b) = shards(LinkConfig::default());
    let to = |text: &str| {
        TcpStream::connect(&a.handle(), text.parse().unwrap(), StreamConfig::default()).err().unwrap()
    };
    assert_eq!(to("10.0.0.2:9").kind(), ErrorKind::ConnectionRefused);
    assert_eq!(to("9.9.9.9:9").kind(), ErrorKind::HostUnreachable);
    let impatient =
        StreamConfig { connect_timeout: Some(Duration::from_millis(1)), ..StreamConfig::default() };
    let error = TcpStream::connect(&a.handle(), "10.0.0.77:9".parse().unwrap(), impatient).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);

    let listener = bind(&b, StreamConfig::default());
    let mut client = connect(&a, listener.local_address(), StreamConfig::default());
    let server = accept(&listener);
    b.stop();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(server);
    assert_eq!(listener.accept().err().unwrap().kind(), ErrorKind::NetworkDown);
    a.stop();
    let error = client.write(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the reason stays");
}

#[test]
fn a_reader_that_is_gone_resets_a_peer_that_goes_on_writing() {
    let (a, b) = shards(LinkConfig::default());
    let listener = bind(&b, StreamConfig::default());
    let mut client = connect(&a, listener.local_address(), StreamConfig::default());
    drop(accept(&listener));
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the peer has finished");
    let error = loop {
        if let Err(error) = client.write(&[0; 1_000]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn echo_sends_everything_back_and_then_ends() {
    let (a, b) = shards(LinkConfig::default());
    let acceptor = Box::new(EchoAcceptor { ring_bytes: 1 << 17 });
    let guard = b.handle().listen("10.0.0.2:7".parse().unwrap(), ListenOptions::default(), acceptor).unwrap();
    let client = connect(&a, guard.local(), StreamConfig::default());
    let bytes = pattern(4, 4 << 20);
    assert!(exchange(client, &bytes) == bytes);
}

#[test]
fn discard_counts() {
    let (a, b) = shards(LinkConfig::default());
    let counters = Arc::new(DiscardCounters::default());
    let acceptor = Box::new(DiscardAcceptor { counters: Arc::clone(&counters), room_bytes: 1 << 20 });
    let guard = b.handle().listen("10.0.0.2:9".parse().unwrap(), ListenOptions::default(), acceptor).unwrap();
    for _ in 0..3 {
        let client = connect(&a, guard.local(), StreamConfig::default());
        assert_eq!(exchange(client, &pattern(5, 100_000)), b"");
    }
    assert_eq!(counters.bytes.load(Ordering::Relaxed), 300_000);
    assert_eq!(counters.connections.load(Ordering::Relaxed), 3);
    assert_eq!(counters.finished.load(Ordering::Relaxed), 3);
}
