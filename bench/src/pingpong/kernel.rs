//! The kernel's TCP: two hosts on the same middle as the AF_XDP ports.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use outrider_drivers::busy_poll::BusyPoll;

use super::{ANSWER_MAX, Plan, Rounds, Wait};
use crate::error::BenchError;
use crate::lab::afxdp::KernelEnds;
use crate::measure::Latencies;
use crate::node::now;

const ADDRESSES: [&str; 2] = ["10.77.0.1/24", "10.77.0.2/24"];
const ANSWERING: &str = "10.77.0.2:7";

pub(super) fn run(plan: &Plan<'_>) -> Result<Latencies, BenchError> {
    let ends = KernelEnds::build(plan.point, ADDRESSES)?;
    let [asking, answering] = &ends.hosts;
    let failed =
        |error: std::io::Error| BenchError::failed(format!("kernel TCP over the lab failed: {error}"));
    let inside = |error| BenchError::failed(format!("cannot enter the lab: {error}"));
    let address: SocketAddr = ANSWERING.parse().expect("a constant that is an address");
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
