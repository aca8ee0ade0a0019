//! [`Switch`]: a learning Ethernet switch with a queue per output.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::LinkConfig;
use super::inbox::{Arrival, Inbox, Receiver};
use super::link::{ETHERNET_HEADER_BYTES, Link};
use super::pool::{Pool, SharedPool};
use super::queues::{Hosts, QueueSteering};
use super::{MemoryPort, Outlet, STAGED_FRAMES_MAX, port_info};
use crate::port::PortStatistics;
use crate::rng::Rng;

/// Addresses a switch remembers; frames to others are flooded.
pub const ADDRESSES_MAX: usize = 8192;

/// What a switch did. A frame is counted once, whatever number of ports it goes to, except in the drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchStatistics {
    /// Frames sent to the one port where their address was last seen.
    pub forwarded_frames: u64,
    /// Frames sent to all other ports: broadcast, multicast, or to an address not known.
    pub flooded_frames: u64,
    /// Frames to an address at the port they came from.
    pub filtered_frames: u64,
    /// Frames too short for an Ethernet header.
    pub dropped_malformed_frames: u64,
    /// Frames dropped at an output whose receiver had not fetched what came before.
    pub dropped_overrun_frames: u64,
    /// Addresses not learned because the table was full.
    pub unlearned: u64,
    /// Addresses known now.
    pub addresses: usize,
}

type MacAddress = [u8; 6];

#[derive(Debug, Default)]
struct State {
    /// Where each address was last seen. Only looked up, never iterated for an effect, so its order does not matter.
    table: HashMap<MacAddress, usize>,
    /// The way to each port; `None` for one that was dropped, whose place the next may take.
    outputs: Vec<Option<Arc<Inbox>>>,
    /// Ports that are queues of one host.
    hosts: Hosts,
    rng: Option<Rng>,
    connected: u32,
    statistics: SwitchStatistics,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    state: Mutex<State>,
    pool: Arc<SharedPool>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A learning switch: hosts are connected to it, each by a link of its own. Cheap to clone; lives as long as its ports.
///
/// A frame travels its sender's link to the switch, waits in the queue of the receiver's link, and travels that. An
/// address is learned when a frame from it is flushed.
#[derive(Clone, Debug)]
pub struct Switch {
    shared: Arc<Shared>,
}

impl Switch {
    /// A switch without ports. All faults on its links follow from `seed` and the order in which ports are connected.
    pub fn new(seed: u64) -> Switch {
        let state = State { rng: Some(Rng::new(seed)), ..State::default() };
        Switch { shared: Arc::new(Shared { seed, state: Mutex::new(state), pool: Arc::default() }) }
    }

    /// Connects one more host by a link that is `config` both ways.
    pub fn connect(&self, config: LinkConfig) -> MemoryPort {
        let mut state = self.shared.lock();
        let number = state.take_number();
        self.plug(&mut state, config, format!("switch:{number}"), number)
    }

    /// Connects one more host, whose NIC has `queues` queues: ports of the same address, over which `steering` spreads
    /// the frames to the host. Each queue has a link of its own, `config` both ways, at whose rate it sends and
    /// receives. A frame to all goes to one queue.
    ///
    /// # Panics
    /// Without any queue.
    pub fn connect_queues(
        &self,
        config: &LinkConfig,
        steering: QueueSteering,
        queues: usize,
    ) -> Vec<MemoryPort> {
        assert!(queues > 0, "a host has at least one queue");
        let mut state = self.shared.lock();
        let number = state.take_number();
        let name = |queue| format!("switch:{number}.{queue}");
        let rss = steering.told();
        let plug = |queue| {
            let mut port = self.plug(&mut state, config.clone(), name(queue), number);
            port.rss = rss.clone();
            port
        };
        let ports: Vec<MemoryPort> = (0..queues).map(plug).collect();
        let places = ports.iter().filter_map(|port| match &port.outlet {
            Outlet::Switch(side) => Some(side.place),
            Outlet::Cable(_) => None,
        });
        state.hosts.add(places.collect(), steering);
        ports
    }

    /// A port at the next free place.
    fn plug(&self, state: &mut State, config: LinkConfig, name: String, number: u32) -> MemoryPort {
        let inbox = Arc::new(Inbox::new(config.held_limit()));
        let rng = state.rng.get_or_insert_with(|| Rng::new(self.shared.seed));
        let (uplink, downlink) = (Link::new(config.clone(), rng), Link::of_switch(config, rng));
        let place = state.outputs.iter().position(Option::is_none).unwrap_or(state.outputs.len());
        if place == state.outputs.len() {
            state.outputs.push(None);
        }
        state.outputs[place] = Some(Arc::clone(&inbox));
        MemoryPort {
            info: port_info(name, self.shared.seed, number, &uplink),
            link: uplink,
            incoming: downlink.control().clone(),
            outlet: Outlet::Switch(SwitchSide::new(Arc::clone(&self.shared), place)),
            rss: None,
            receiver: Receiver::new(inbox, Some(downlink)),
            staged: Vec::with_capacity(2 * STAGED_FRAMES_MAX),
            pool: Pool::new(Arc::clone(&self.shared.pool)),
            uncut: Box::default(),
            statistics: PortStatistics::default(),
        }
    }

    /// Counters so far.
    pub fn statistics(&self) -> SwitchStatistics {
        let state = self.shared.lock();
        SwitchStatistics { addresses: state.table.len(), ..state.statistics }
    }
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    To(usize),
    Flood,
    Nowhere,
}

impl State {
    fn take_number(&mut self) -> u32 {
        let number = self.connected;
        self.connected = self.connected.wrapping_add(1);
        number
    }

    /// Learns where the sender is and finds the receiver.
    fn route(&mut self, frame: &[u8], from: usize) -> Route {
        let (Some(destination), Some(source)) =
            (frame.first_chunk::<6>(), frame[6.min(frame.len())..].first_chunk())
        else {
            self.statistics.dropped_malformed_frames += 1;
            return Route::Nowhere;
        };
        if frame.len() < ETHERNET_HEADER_BYTES {
            self.statistics.dropped_malformed_frames += 1;
            return Route::Nowhere;
        }
        self.learn(source, from);
        match self.table.get(destination) {
            Some(&to) if self.hosts.are_one(to, from) => {
                self.statistics.filtered_frames += 1;
                Route::Nowhere
            }
            Some(&to) => {
                self.statistics.forwarded_frames += 1;
                Route::To(self.hosts.queue(to, frame))
            }
            None => {
                self.statistics.flooded_frames += 1;
                Route::Flood
            }
        }
    }

    fn learn(&mut self, source: &MacAddress, from: usize) {
        // A group address is nobody's source.
        if source[0] & 1 != 0 {
            return;
        }
        if let Some(place) = self.table.get_mut(source) {
            *place = from;
        } else if self.table.len() < ADDRESSES_MAX {
            self.table.insert(*source, from);
        } else {
            self.statistics.unlearned += 1;
        }
    }

    /// Leaves `burst` at an output; returns whether its receiver was woken.
    fn output(&mut self, to: usize, burst: impl Iterator<Item = Arrival>, pool: &mut Pool) -> bool {
        match &self.outputs[to] {
            Some(inbox) => {
                let delivery = inbox.leave(burst, pool);
                self.statistics.dropped_overrun_frames += delivery.overrun_frames;
                delivery.rung
            }
            None => {
                burst.for_each(|arrival| pool.give(arrival.buffer));
                false
            }
        }
    }
}

/// A port's place at a switch.
#[derive(Debug)]
pub(super) struct SwitchSide {
    shared: Arc<Shared>,
    place: usize,
    /// Frames in a row for the same output.
    run: Vec<Arrival>,
}

impl SwitchSide {
    fn new(shared: Arc<Shared>, place: usize) -> Self {
        SwitchSide { shared, place, run: Vec::with_capacity(2 * STAGED_FRAMES_MAX) }
    }

    /// Sends a burst on, runs of frames for one output together; returns how many receivers were woken.
    pub(super) fn forward(&mut self, burst: &mut Vec<Arrival>, pool: &mut Pool) -> u64 {
        let mut state = self.shared.lock();
        let mut rung = 0;
        let mut run_to = self.place;
        for arrival in burst.drain(..) {
            let route = state.route(arrival.bytes(), self.place);
            if route != Route::To(run_to) && !self.run.is_empty() {
                rung += u64::from(state.output(run_to, self.run.drain(..), pool));
            }
            match route {
                Route::To(to) => {
                    run_to = to;
                    self.run.push(arrival);
                }
                Route::Flood => {
                    for to in 0..state.outputs.len() {
                        if state.hosts.floods(to, self.place, arrival.bytes()) {
                            let copy = arrival.copy(pool);
                            rung += u64::from(state.output(to, core::iter::once(copy), pool));
                        }
                    }
                    pool.give(arrival.buffer);
                }
                Route::Nowhere => pool.give(arrival.buffer),
            }
        }
        if !self.run.is_empty() {
            rung += u64::from(state.output(run_to, self.run.drain(..), pool));
        }
        rung
    }

    /// The port is gone: forget the way to it.
    pub(super) fn leave(&self) {
        let mut state = self.shared.lock();
        state.outputs[self.place] = None;
        state.hosts.leave(self.place);
        state.table.retain(|_, place| *place != self.place);
    }
}
