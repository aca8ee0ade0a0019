//! The kernel's TCP: two hosts on the same middle as the AF_XDP ports.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use outrider_drivers::busy_poll::BusyPoll;

use super::{ANSWER_MAX, Plan, Rounds, Wait};
use crate::error::BenchError;
use crate::lab::Lab;
use crate::lab::middle::cannot_enter;
use crate::measure::Latencies;
use crate::node::now;

const PREFIX: u8 = 24;
const ASKING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const ANSWERING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
const PORT: u16 = 7;

pub(super) fn run(plan: &Plan<'_>) -> Result<Latencies, BenchError> {
    let lab = Lab::between_hosts(plan.point, [(ASKING, PREFIX), (ANSWERING, PREFIX)])?;
    let hosts = lab.hosts().expect("a lab between hosts has them");
    let [asking, answering] = &hosts.namespaces;
    let failed =
        |error: std::io::Error| BenchError::failed(format!("kernel TCP over the lab failed: {error}"));
    let inside = |error| cannot_enter(&error);
    let address = SocketAddr::new(ANSWERING, PORT);
    let listener = answering.run(|| TcpListener::bind(address)).map_err(inside)?.map_err(failed)?;
    let mut asker =
        asking.run(|| TcpStream::connect_timeout(&address, ANSWER_MAX)).map_err(inside)?.map_err(failed)?;
    let (mut answerer, _) = listener.accept().map_err(failed)?;
    for stream in [&asker, &answerer] {
        prepare(stream, plan.wait).map_err(failed)?;
    }
    std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let mut buffer = vec![0; plan.bytes];
            // The end of the stream, or of its peer, is the end of the run.
            while fill(&mut answerer, &mut buffer, plan.wait).is_ok() {
                if write_all(&mut answerer, &buffer).is_err() {
                    break;
                }
            }
        });
        let asked = ask(&mut asker, plan);
        drop(asker);
        answers.join().expect("answering does not panic");
        asked.map(|rounds| rounds.latencies).map_err(failed)
    })
}

/// No Nagle; and for busy waiting a socket that does not block, whose queue the kernel polls.
fn prepare(stream: &TcpStream, wait: Wait) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    if wait == Wait::Busy {
        BusyPoll::default().prefer_on(stream)?;
        stream.set_nonblocking(true)?;
    }
    Ok(())
}

fn ask(stream: &mut TcpStream, plan: &Plan<'_>) -> std::io::Result<Rounds> {
    let mut buffer = vec![0x5a; plan.bytes];
    let mut rounds = Rounds::start(plan.length);
    loop {
        let began = now();
        write_all(stream, &buffer)?;
        fill(stream, &mut buffer, plan.wait)?;
        if !rounds.record(began, now()) {
            return Ok(rounds);
        }
    }
}

/// Fills `buffer` from the stream.
fn fill(stream: &mut TcpStream, buffer: &mut [u8], wait: Wait) -> std::io::Result<()> {
    let (began, mut filled) = (now(), 0);
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => filled += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && wait == Wait::Busy => {
                if now() - began > ANSWER_MAX {
                    return Err(ErrorKind::TimedOut.into());
                }
                // As our shards do: the peer may be waiting for this very core.
                std::thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes`, also to a socket that does not block.
fn write_all(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(length) => rest = &rest[length..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                std::thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
