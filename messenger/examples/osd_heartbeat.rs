//! Three storage daemons on a switch in this process. On each connection three users share one out-of-band message: the
//! daemons' own heartbeat, a client's lingering operations, its watches. None of them has a timer. A daemon that is not
//! heard of for a grace is marked down, as Ceph does it (there: a heartbeat every 6 s, a grace of 20 s).

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use outrider_drivers::memory::{LinkConfig, MemoryPort, Switch};
use outrider_drivers::time::Instant;
use outrider_messenger::transport::Userspace;
use outrider_messenger::{
    Connection, Dispatcher, EntityName, Message, Messenger, OobMessage, OobOp, OobRegistration, OobTurn,
    Policy,
};
use outrider_stack::net::StackConfig;

const INTERVAL: Duration = Duration::from_millis(60);
const GRACE: Duration = Duration::from_millis(200);

/// What a daemon knows of the others: when each was last heard, and whether it counts as down.
struct Osd {
    name: EntityName,
    peers: Mutex<BTreeMap<u64, (Instant, bool)>>,
    news: mpsc::Sender<String>,
}

impl Dispatcher for Osd {
    fn ms_dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        Err(message)
    }

    /// Every heartbeat that arrives is the occasion to look for those that did not.
    fn ms_dispatch_oob(&self, connection: &Connection, beat: OobMessage) {
        let Some(from) = connection.peer_name() else { return };
        let now = beat.arrived_at;
        let mut peers = self.peers.lock().expect("nobody panics with it");
        let (heard, down) = peers.entry(from.id).or_insert((now, true));
        *heard = now;
        if std::mem::replace(down, false) {
            let users: Vec<_> = beat.parts.iter().map(|part| format!("{:?}", part.op)).collect();
            let _ =
                self.news.send(format!("{}: {from} is up; one message for {}", self.name, users.join(", ")));
        }
        for (id, (heard, down)) in &mut *peers {
            if now.since(*heard) > GRACE && !std::mem::replace(down, true) {
                let _ = self.news.send(format!(
                    "{}: osd.{id} is down: not heard for {:?}",
                    self.name,
                    now.since(*heard)
                ));
            }
        }
    }
}

/// One user's part of the heartbeat, fresh at the instant it leaves.
fn part(user: OobOp) -> impl FnMut(&OobTurn) -> Option<bytes::Bytes> {
    move |turn| Some(format!("{user:?} at {:?}", turn.now).into())
}

fn start(id: u8, port: MemoryPort, news: &mpsc::Sender<String>) -> Result<Messenger, Box<dyn Error>> {
    let name = EntityName::osd(id.into());
    let transport = Userspace::on_port(port, StackConfig::new([(IpAddr::from([10, 0, 0, id]), 24)]))?;
    let osd = Osd { name, peers: Mutex::default(), news: news.clone() };
    let builder =
        Messenger::builder(name).transport(Arc::new(transport)).default_policy(Policy::lossless_peer());
    Ok(builder.bind(SocketAddr::from(([10, 0, 0, id], 6800))).dispatcher(Arc::new(osd)).start()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let switch = Switch::new(1);
    let (news, heard) = mpsc::channel();
    let ports: Vec<_> = (0..3).map(|_| switch.connect(LinkConfig::default())).collect();
    let cables: Vec<_> = ports.iter().map(MemoryPort::outgoing).collect();
    let osds: Result<Vec<Messenger>, _> =
        ports.into_iter().zip(1..).map(|(port, id)| start(id, port, &news)).collect();
    let osds = osds?;
    let mut registrations: Vec<OobRegistration> = Vec::new();
    for osd in &osds {
        for peer in osds.iter().filter(|peer| peer.name() != osd.name()) {
            // One connection for each pair, whoever dials first.
            let connection = osd.connect_to(peer.addresses()[0])?;
            for user in [OobOp::OSD_PING, OobOp::LINGER_PING, OobOp::WATCH_PING] {
                registrations.push(connection.register_oob_message(user, part(user), INTERVAL)?);
            }
        }
    }
    // Each of the three sees two others; then the third one's cable is cut, which the two others notice.
    for count in 0..8 {
        if count == 6 {
            cables[2].set_blackhole(true);
        }
        println!("{}", heard.recv_timeout(Duration::from_secs(10))?);
    }
    Ok(())
}
