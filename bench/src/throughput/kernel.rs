//! The kernel's ends: sockets that send without end, or read and count.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use outrider_drivers::netns::NetNamespace;

use super::flow::{CONTENT, Meter};
use crate::error::BenchError;
use crate::node::now;

/// How long a call on a socket waits before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);
/// How long a connection may take to open.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// What a socket does once it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Send,
    Receive,
}

/// A thread with a socket in a namespace. Ends when dropped.
pub(super) struct KernelEnd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), BenchError>>>,
}

impl KernelEnd {
    /// Listens on `local` in `namespace` and serves the first peer.
    pub(super) fn listen(
        namespace: &NetNamespace,
        local: SocketAddr,
        part: Part,
        meter: &Arc<Meter>,
    ) -> Result<Self, BenchError> {
        let listener = namespace
            .run(|| TcpListener::bind(local))
            .map_err(|error| failed("enter the lab", &error))?
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| failed("listen", &error))?;
        let meter = Arc::clone(meter);
        KernelEnd::spawn(move |stop| match accept(&listener, stop)? {
            Some(stream) => transfer(&stream, part, &meter, stop),
            None => Ok(()),
        })
    }

    /// Connects to `remote` from `namespace`.
    pub(super) fn connect(
        namespace: &NetNamespace,
        remote: SocketAddr,
        part: Part,
        meter: &Arc<Meter>,
    ) -> Result<Self, BenchError> {
        let stream = namespace
            .run(|| TcpStream::connect_timeout(&remote, OPEN_MAX))
            .map_err(|error| failed("enter the lab", &error))?
            .map_err(|error| failed("connect", &error))?;
        let meter = Arc::clone(meter);
        KernelEnd::spawn(move |stop| transfer(&stream, part, &meter, stop))
    }

    fn spawn(
        work: impl FnOnce(&AtomicBool) -> Result<(), BenchError> + Send + 'static,
    ) -> Result<Self, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let raised = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("kernel-end".to_owned())
            .spawn(move || work(&raised))
            .map_err(|error| failed("start a thread", &error))?;
        Ok(KernelEnd { stop, thread: Some(thread) })
    }

    /// Ends it, and says what went wrong.
    pub(super) fn finish(mut self) -> Result<(), BenchError> {
        self.join().unwrap_or(Ok(()))
    }

    fn join(&mut self) -> Option<Result<(), BenchError>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for KernelEnd {
    fn drop(&mut self) {
        // What went wrong is told by `finish`; here the run has failed already.
        let _ = self.join();
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> BenchError {
    BenchError::failed(format!("the kernel's end cannot {what}: {error}"))
}

fn accept(listener: &TcpListener, stop: &AtomicBool) -> Result<Option<TcpStream>, BenchError> {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(|error| failed("set up its socket", &error))?;
                return Ok(Some(stream));
            }
            Err(error) if is_nothing(&error) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(failed("accept", &error)),
        }
    }
    Ok(None)
}

fn is_nothing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn transfer(mut stream: &TcpStream, part: Part, meter: &Meter, stop: &AtomicBool) -> Result<(), BenchError> {
    let limits = stream.set_read_timeout(Some(LOOK)).and(stream.set_write_timeout(Some(LOOK)));
    limits.map_err(|error| failed("set up its socket", &error))?;
    let mut buffer = vec![0; 256 << 10];
    while !stop.load(Ordering::Relaxed) {
        let moved = match part {
            Part::Send => stream.write(&CONTENT),
            Part::Receive => stream.read(&mut buffer),
        };
        match moved {
            Ok(0) => break,
            Ok(bytes) if part == Part::Receive => meter.delivered(now(), bytes),
            Ok(_) => {}
            Err(error) if is_nothing(&error) => {}
            // The other end goes first at the end of a run; any sooner and nothing was delivered, which is told.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
            Err(error) => return Err(failed("go on", &error)),
        }
    }
    Ok(())
}
