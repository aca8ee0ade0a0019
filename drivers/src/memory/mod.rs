//! Links in memory: a cable between two ports, and a learning switch for many.
//!
//! Each direction of a link has a rate, a bottleneck queue, a delay and seeded faults ([`LinkConfig`]). The ports run
//! in virtual time, where the same seed and the same calls give the same frames, and in real time between threads,
//! where a frame costs no lock and no allocation: bursts change hands at [`Port::flush`] and [`Port::receive`].
//!
//! A port takes frames at once, so it reports nothing outstanding: its queue stands for one in a middle box, which
//! no sender can recall. With [`LinkConfig::ring_bytes`] the queue is the sender's own transmit ring instead. With
//! [`LinkConfig::segment_bytes_max`] the sending port completes checksums and cuts super-segments into the frames that
//! the link then carries.

mod config;
mod cutting;
mod ecn;
mod inbox;
mod link;
mod pool;
mod queues;
mod switch;
#[cfg(test)]
mod switch_tests;
#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub use self::config::{LinkConfig, LinkControl, LinkStatistics};
pub use self::queues::QueueSteering;
pub use self::switch::{ADDRESSES_MAX, Switch, SwitchStatistics};

use self::inbox::{Arrival, Inbox, Receiver};
use self::link::{ETHERNET_HEADER_BYTES, Link};
use self::pool::{Buffer, Pool, SharedPool};
use self::switch::SwitchSide;
use crate::port::{Port, PortError, PortInfo, PortStatistics, RxFrame, TransmitRoom, TxOffload};
use crate::rng::Rng;
use crate::rss::Rss;
use crate::time::Instant;

/// Frames a port takes between two flushes.
const STAGED_FRAMES_MAX: usize = 256;

/// Two ports joined by a cable; what one transmits the other receives. All faults follow from `seed`.
pub fn cable(a_to_b: LinkConfig, b_to_a: LinkConfig, seed: u64) -> (MemoryPort, MemoryPort) {
    let mut rng = Rng::new(seed);
    let pool = Arc::new(SharedPool::default());
    let inbox_a = Arc::new(Inbox::new(b_to_a.held_limit()));
    let inbox_b = Arc::new(Inbox::new(a_to_b.held_limit()));
    let (link_a, link_b) = (Link::new(a_to_b, &mut rng), Link::new(b_to_a, &mut rng));
    let (control_a, control_b) = (link_a.control().clone(), link_b.control().clone());
    let end = |index: u32, link, incoming, peer, inbox| MemoryPort {
        info: port_info(format!("cable:{index}"), seed, index, &link),
        link,
        incoming,
        outlet: Outlet::Cable(peer),
        rss: None,
        receiver: Receiver::new(inbox, None),
        staged: Vec::with_capacity(2 * STAGED_FRAMES_MAX),
        pool: Pool::new(Arc::clone(&pool)),
        uncut: Box::default(),
        statistics: PortStatistics::default(),
    };
    let a = end(0, link_a, control_b, Arc::clone(&inbox_b), Arc::clone(&inbox_a));
    let b = end(1, link_b, control_a, inbox_a, inbox_b);
    (a, b)
}

/// Names a port and gives it a locally administered address.
fn port_info(name: String, seed: u64, index: u32, link: &Link) -> PortInfo {
    let tag = Rng::new(seed).next_u64().to_be_bytes();
    let [_, high, middle, low] = index.wrapping_add(1).to_be_bytes();
    PortInfo {
        name,
        mac: [0x02, tag[0], tag[1], high, middle, low],
        mtu: link.config().mtu_clamped(),
        capabilities: cutting::capabilities(link.config().segment_bytes_max),
    }
}

/// Where the frames of a port go.
#[derive(Debug)]
enum Outlet {
    Cable(Arc<Inbox>),
    Switch(SwitchSide),
}

/// One end of a cable, or a port of a host at a switch.
#[derive(Debug)]
pub struct MemoryPort {
    info: PortInfo,
    /// The way out: to the other end, or to the switch.
    link: Link,
    /// The way in.
    incoming: LinkControl,
    outlet: Outlet,
    /// How frames are spread over the queues of which this port is one, if it tells.
    rss: Option<Rss>,
    receiver: Receiver,
    /// Frames on the link that the other side has not been shown yet.
    staged: Vec<Arrival>,
    pool: Pool,
    /// A frame that is being cut; empty until the first.
    uncut: Box<[u8]>,
    statistics: PortStatistics,
}

impl MemoryPort {
    /// Changes the outgoing link from the next frame on; see [`LinkControl::set_link`].
    pub fn set_link(&mut self, config: LinkConfig) {
        self.link.control().set_link(config);
    }

    /// Makes the outgoing link swallow every frame, or carry them again.
    pub fn set_blackhole(&mut self, swallow: bool) {
        self.link.control().set_blackhole(swallow);
    }

    /// What happened on the outgoing link.
    pub fn link_statistics(&self) -> LinkStatistics {
        *self.link.statistics()
    }

    /// A handle on the outgoing link, for use after the port was given away.
    pub fn outgoing(&self) -> LinkControl {
        self.link.control().clone()
    }

    /// A handle on the link that leads to this port: the other end's outgoing one, or the switch's output.
    pub fn incoming(&self) -> LinkControl {
        self.incoming.clone()
    }

    fn frame_bytes_max(&self) -> usize {
        self.info.mtu + ETHERNET_HEADER_BYTES
    }

    /// Takes over what was changed through a handle.
    fn refresh(&mut self, now: Instant) {
        if self.link.refresh(now)
            && let Outlet::Cable(peer) = &self.outlet
        {
            peer.set_held_bytes_max(self.link.config().held_limit());
        }
    }

    /// Sends the frame of `length` bytes in `buffer` on its way.
    fn stage(&mut self, now: Instant, mut buffer: Buffer, length: usize) {
        let Some(passage) = self.link.offer(now, &mut buffer[..length]) else {
            return self.pool.give(buffer);
        };
        let arrival = Arrival { at: passage.at, buffer, length: length as u32, checksum: passage.checksum };
        if passage.twice {
            self.staged.push(arrival.copy(&mut self.pool));
        }
        self.staged.push(arrival);
    }

    /// Hands the staged frames over.
    fn hand_over(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        match &mut self.outlet {
            Outlet::Cable(peer) if peer.receiver_gone() => {
                let bytes: usize = self.staged.iter().map(|arrival| arrival.bytes().len()).sum();
                let frames = self.staged.len() as u64;
                self.link.count_unreachable(frames, bytes as u64);
                self.statistics.tx_dropped += frames;
                self.staged.drain(..).for_each(|arrival| self.pool.give(arrival.buffer));
            }
            Outlet::Cable(peer) => {
                let delivery = peer.leave(self.staged.drain(..), &mut self.pool);
                self.link.count_overrun(delivery.overrun_frames, delivery.overrun_bytes);
                self.statistics.doorbells += u64::from(delivery.rung);
            }
            Outlet::Switch(switch) => {
                self.statistics.doorbells += switch.forward(&mut self.staged, &mut self.pool);
            }
        }
        self.link.publish();
    }
}

impl Port for MemoryPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        accept: &mut dyn FnMut(RxFrame<'_>),
    ) -> Result<usize, PortError> {
        let fetched = self.receiver.receive(now, budget, &mut self.pool, accept);
        self.statistics.rx_frames += fetched.frames as u64;
        self.statistics.rx_bytes += fetched.bytes as u64;
        if fetched.frames == 0 && self.receiver.exhausted() {
            return Err(PortError::Gone { port: self.info.name.clone() });
        }
        Ok(fetched.frames)
    }

    fn show_next(&mut self, now: Instant, budget: usize, show: &mut dyn FnMut(&[u8])) {
        self.receiver.show_next(now, budget, show);
    }

    fn transmit_room(&mut self, now: Instant) -> TransmitRoom {
        self.refresh(now);
        let staged_room = STAGED_FRAMES_MAX.saturating_sub(self.staged.len());
        let Some(ring_bytes) = self.link.config().ring_bytes else {
            return TransmitRoom { frames: staged_room, bytes_outstanding: 0 };
        };
        let bytes_outstanding = self.link.backlog_bytes(now);
        let fitting = ring_bytes.saturating_sub(bytes_outstanding) / self.frame_bytes_max();
        let fitting = if bytes_outstanding == 0 { fitting.max(1) } else { fitting };
        TransmitRoom { frames: staged_room.min(fitting), bytes_outstanding }
    }

    fn transmit(
        &mut self,
        now: Instant,
        length_max: usize,
        offload: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError> {
        if offload != TxOffload::default() {
            self.refresh(now);
            return Ok(self.transmit_uncut(now, length_max, offload, fill));
        }
        let frame_bytes_max = self.frame_bytes_max();
        assert!(
            length_max <= frame_bytes_max,
            "{length_max} bytes are more than a frame on {}",
            self.info.name
        );
        self.refresh(now);
        if self.staged.len() >= STAGED_FRAMES_MAX || !self.link.ring_has_room(now, frame_bytes_max) {
            return Ok(false);
        }
        let mut buffer = self.pool.take(frame_bytes_max);
        let length = fill(&mut buffer[..length_max]);
        assert!(length <= length_max, "{length} bytes were written into a buffer of {length_max}");
        if length == 0 {
            self.pool.give(buffer);
            return Ok(false);
        }
        self.statistics.tx_frames += 1;
        self.statistics.tx_bytes += length as u64;
        self.stage(now, buffer, length);
        Ok(true)
    }

    fn flush(&mut self, _now: Instant) -> Result<(), PortError> {
        self.hand_over();
        Ok(())
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.receiver.readiness()
    }

    fn next_arrival(&self, _now: Instant) -> Option<Instant> {
        self.receiver.next_arrival()
    }

    fn next_room(&self, now: Instant) -> Option<Instant> {
        self.link.ring_room_at(now, self.frame_bytes_max())
    }

    fn rss(&self) -> Option<Rss> {
        self.rss.clone()
    }

    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        self.hand_over();
        self.receiver.inbox().close_receiver();
        match &self.outlet {
            Outlet::Cable(peer) => peer.close_sender(),
            Outlet::Switch(switch) => switch.leave(),
        }
    }
}
