//! Other transports, measured as ours are: the same lab, load, heartbeats and counts.
//!
//! Each end is a thread in its host's network namespace, with a runtime of its own.

mod h2;
mod quinn;

use std::future::Future;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use outrider_drivers::netns::NetNamespace;
use tokio::sync::Notify;

use crate::error::BenchError;
use crate::lab::Lab;
use crate::node::Signal;
use crate::under_load::{
    CONNECT_PATIENCE, InOrder, Measured, PairPlan, Plan, Point, Second, Stamp, Subject, Tally, Variant,
};

/// Reads how many segments or packets the sender has had to repeat.
type Retransmits = Box<dyn Fn() -> u64 + Send>;

/// What the threads of a run share.
#[derive(Debug)]
struct Shared {
    point: Point,
    variant: Variant,
    tally: Arc<Tally>,
    lost: Signal,
    /// Why it was lost.
    fault: Mutex<Option<String>>,
}

impl Shared {
    /// Runs `task` on the runtime of the calling thread. None of them ends before the run does, unless something is lost.
    fn spawn(self: &Arc<Self>, task: impl Future<Output = Result<(), String>> + Send + 'static) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let ended = task.await.err().unwrap_or_else(|| "the peer has ended the connection".to_owned());
            shared.fault.lock().expect("nobody panics while holding it").get_or_insert(ended);
            shared.lost.raise();
        });
    }

    /// Says why the connection was lost, if it was.
    fn told(&self, error: BenchError) -> BenchError {
        match self.fault.lock().expect("nobody panics while holding it").as_deref() {
            Some(fault) => self.failed(fault),
            None => error,
        }
    }

    fn failed(&self, what: &str) -> BenchError {
        BenchError::failed(format!("{}: {what}; try less --loss, or another --variant", self.variant.name()))
    }
}

/// An end of the connection: a thread. It ends, and whatever it runs with it, when this is dropped.
struct End {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl End {
    /// Starts a thread in `namespace` and waits until `work` is ready there, with what it hands out. What `work` has
    /// spawned goes on.
    fn start<T, Work, Ready>(
        namespace: &NetNamespace,
        shared: &Arc<Shared>,
        work: Work,
    ) -> Result<(Self, T), BenchError>
    where
        T: Send + 'static,
        Work: FnOnce() -> Ready + Send + 'static,
        Ready: Future<Output = Result<T, String>>,
    {
        let stop = Arc::new(Notify::new());
        let (tell, told) = mpsc::channel();
        let (stopped, namespace) = (Arc::clone(&stop), namespace.clone());
        let thread = std::thread::Builder::new()
            .name("peer".to_owned())
            .spawn(move || run_end(&namespace, work, &tell, &stopped))
            .map_err(|error| shared.failed(&format!("cannot start a thread: {error}")))?;
        let end = End { stop, thread: Some(thread) };
        match told.recv() {
            Ok(Ok(ready)) => Ok((end, ready)),
            Ok(Err(fault)) => Err(shared.failed(&fault)),
            Err(_) => Err(shared.failed("an end panicked")),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has printed itself.
            let _ = thread.join();
        }
    }
}

/// The thread of an end, until `stopped`.
fn run_end<T, Ready: Future<Output = Result<T, String>>>(
    namespace: &NetNamespace,
    work: impl FnOnce() -> Ready,
    tell: &mpsc::Sender<Result<T, String>>,
    stopped: &Notify,
) {
    let runtime = namespace
        .enter_current_thread()
        .map_err(|error| format!("cannot enter the lab: {error}"))
        .and_then(|()| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| format!("cannot start a runtime: {error}"))
        });
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(fault) => {
            // Whoever started this waits for it.
            let _ = tell.send(Err(fault));
            return;
        }
    };
    runtime.block_on(async {
        let ready = tokio::time::timeout(CONNECT_PATIENCE, work()).await;
        let ready = ready.unwrap_or_else(|_| Err(format!("no connection within {CONNECT_PATIENCE:?}")));
        let is_ready = ready.is_ok();
        if tell.send(ready).is_ok() && is_ready {
            stopped.notified().await;
        }
    });
    // Its tasks end with the runtime.
    runtime.shutdown_timeout(Duration::ZERO);
}

/// What the end that sends heartbeats is given: each stamp in its turn, and where to say that it has gone.
struct Turns {
    stamps: tokio::sync::mpsc::Receiver<Stamp>,
    gone: mpsc::Sender<()>,
}

impl Turns {
    /// The next heartbeat. `None` when there are to be no more.
    async fn next(&mut self) -> Option<Stamp> {
        self.stamps.recv().await
    }

    /// The one before has gone: turns that came meanwhile are superseded.
    fn gone(&self) {
        // Nobody waits at the end of a run.
        let _ = self.gone.send(());
    }
}

/// The connection while it is measured. Fields end in this order.
struct Peers {
    retransmits: Retransmits,
    _sender: End,
    _receiver: End,
    shared: Arc<Shared>,
    // Last: what the sockets are in goes after them.
    lab: Lab,
}

impl Subject for Peers {
    fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    fn lost(&self) -> &Signal {
        &self.shared.lost
    }

    fn link_bytes(&self) -> u64 {
        self.lab.hosts().map_or(0, |hosts| hosts.received_bytes())
    }

    fn retransmits(&self) -> u64 {
        (self.retransmits)()
    }
}

/// Runs `plan`, whose variant is a peer's; `each_second` is called about every second.
pub(crate) fn run(plan: &Plan, each_second: &mut dyn FnMut(&Second)) -> Result<Measured, BenchError> {
    let Plan { point, variant, seed, .. } = *plan;
    let lab = PairPlan { point, variant, seed, health: None }.lab()?;
    let shared = Arc::new(Shared {
        point,
        variant,
        tally: Arc::default(),
        lost: Signal::default(),
        fault: Mutex::default(),
    });
    let (due, stamps) = tokio::sync::mpsc::channel(1);
    let (gone, went) = mpsc::channel();
    let turns = Turns { stamps, gone };
    let hosts = lab.hosts().ok_or_else(|| shared.failed("it wants --link kernel"))?;
    let (ends, retransmits) = match variant {
        Variant::H2 => h2::start(&shared, &hosts.namespaces, turns)?,
        _ => quinn::start(&shared, &hosts.namespaces, turns)?,
    };
    let [sender, receiver] = ends;
    let peers = Peers { retransmits, _sender: sender, _receiver: receiver, shared, lab };
    // As the heartbeats in order of ours do: the next turn comes when the one before has gone.
    let send = move |stamp| due.blocking_send(stamp).is_ok() && went.recv().is_ok();
    let heartbeats = InOrder::start(point.interval.0, &peers.shared.tally, send)?;
    let measured = plan.measure(&peers, each_second).map_err(|error| match error {
        BenchError::Interrupted => error,
        error => peers.shared.told(error),
    });
    // With the connection goes whatever a heartbeat waits for.
    drop(peers);
    heartbeats.stop();
    measured
}
