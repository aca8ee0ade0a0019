//! An acknowledgement is processed: delivery, loss detection, recovery, congestion control.

use core::time::Duration;

use super::{Connection, Recovery, Undo, timestamp_of};
use crate::tcp::congestion::{AckSample, CongestionEvent};
use crate::tcp::rate::Sampling;
use crate::tcp::recovery::RateReduction;
use crate::tcp::segment::Header;
use crate::tcp::timers::Timer;
use crate::time::Instant;

/// Duplicate acknowledgements that mean loss where there is no SACK (RFC 5681 section 3.2).
const DUPLICATE_ACKS_MAX: u32 = 3;

/// Timeouts in a row after which the silence was an outage and not a delay: what was sent before it may have arrived
/// although its acknowledgements were lost, and that says nothing of the rest of the flight.
const SPURIOUS_TIMEOUTS_MAX: u16 = 2;

/// What one incoming acknowledgement delivered, while it is being processed.
#[derive(Clone, Copy, Debug, Default)]
struct Delivery {
    /// Departure of the newest delivered segment that was sent only once: it tells the round trip.
    newest_sent_at: Option<Instant>,
    /// Something marked lost and never sent again was delivered: the mark was wrong.
    was_not_lost: bool,
    /// First departure of the newest delivered segment that was sent more than once.
    newest_retransmitted: Option<Instant>,
    /// Bytes that its D-SACK says came twice; zero without one.
    duplicate_bytes: u64,
    /// The delivery rate that it shows.
    sampling: Sampling,
}

impl Connection {
    /// SND.UNA moves to `ack` (at most SND.NXT) and SACK blocks of `header` are taken.
    pub(super) fn process_ack(&mut self, now: Instant, ack: u64, header: &Header) {
        if self.flight.is_empty() && !self.tail_probe_out && header.options.sack.as_slice().is_empty() {
            // The receiver of a bulk transfer sends nothing that could be acknowledged.
            return;
        }
        let pipe_before = self.flight.pipe();
        let delivered_before = self.rate.delivered();
        let una_before = self.una;
        let may_be_spurious = self.backoff <= SPURIOUS_TIMEOUTS_MAX;
        let delivery = self.take_delivery(now, ack, header);
        let rtt = delivery.newest_sent_at.map(|sent_at| now - sent_at);
        if let Some(rtt) = rtt {
            self.rtt.sample(rtt);
            // Only a sample that cannot be ambiguous ends the back-off (Karn; RFC 6298 section 5.7).
            self.backoff = 0;
        }
        let advanced = self.una > una_before;
        let newly_delivered = self.rate.delivered() - delivered_before;
        // Bytes of this acknowledgement that earlier ones, duplicate or selective, have told of already.
        let departed = self.departed_by_duplicates();
        let known = (self.una - una_before).saturating_sub(newly_delivered) + departed;
        if advanced {
            self.timeout_base = now;
            self.progress_at = now;
            self.duplicate_acks = 0;
            self.check_mtu_probe_delivered(now);
        }
        if newly_delivered > 0 {
            self.probe_base = now;
        }
        if advanced && may_be_spurious {
            self.check_spurious(now, header, &delivery);
        }
        if delivery.was_not_lost && may_be_spurious {
            self.check_late_originals(now);
        }
        if delivery.duplicate_bytes > 0 {
            let segments = delivery.duplicate_bytes.div_ceil(self.segment_size() as u64);
            self.check_needless(now, segments);
        }
        self.check_tail_probe(now, ack, &delivery, advanced);
        let newly_lost = self.detect_loss(now, advanced);
        if una_before == 0 {
            // Our SYN: it gives a round-trip time, but its one byte says nothing about the path's capacity.
            self.rate.take_sample(&delivery.sampling, None);
            return;
        }
        if newly_delivered == 0 && newly_lost == 0 {
            return;
        }
        let newly_acked = (self.una - una_before).saturating_sub(known);
        let ce_marked = self.note_congestion_echo(now, header, newly_acked);
        let was_recovering = self.recovery == Recovery::Fast;
        self.advance_recovery(now);
        self.report_ack(
            now,
            AckReport {
                newly_delivered,
                departed,
                newly_acked,
                advanced,
                newly_lost,
                pipe_before,
                rtt,
                sampling: delivery.sampling,
                ce_marked,
                was_recovering,
            },
        );
    }

    /// Without SACK a duplicate acknowledgement tells that some segment has left the network: in recovery another may
    /// follow (RFC 5681 section 3.2, step 4; counted as RFC 9937 section 6 counts it).
    #[cold]
    pub(super) fn replace_departed(&mut self) {
        if self.sack || self.recovery != Recovery::Fast {
            return;
        }
        let (pipe, target) = (self.pipe_estimate(), self.congestion.window());
        let segment_size = self.segment_size() as u64;
        self.rare_mut().reduction.on_ack(segment_size, pipe, target, segment_size, false);
    }

    /// Marks what the acknowledgement delivers.
    fn take_delivery(&mut self, now: Instant, ack: u64, header: &Header) -> Delivery {
        let mut delivery = Delivery::default();
        let delivered_end = self.flight.delivered_end();
        // The echo belongs to the segment that moved the cumulative acknowledgement; with SACK alone it is older than
        // what it acknowledges (RFC 7323 section 4.3) and says nothing.
        let echo = self
            .timestamps
            .and(header.options.timestamps)
            .filter(|_| ack > self.una)
            .map(|timestamps| timestamps.echo);
        let clock_offset = self.timestamp_offset;
        let before = self.rate.delivered();
        let (rack, rate, rtt) = (&mut self.rack, &mut self.rate, &self.rtt);
        let mut delivered = |segment: &crate::tcp::flight::SentSegment| {
            if segment.was_retransmitted() {
                let sent = timestamp_of(segment.sent_at, clock_offset);
                let precedes = echo.is_some_and(|echo| (echo.wrapping_sub(sent) as i32) < 0);
                rack.on_delivered(now, segment, (delivered_end, before), rtt, precedes);
                delivery.newest_retransmitted =
                    delivery.newest_retransmitted.max(Some(segment.first_sent_at));
            } else {
                rack.on_delivered(now, segment, (delivered_end, before), rtt, false);
                delivery.was_not_lost |= segment.lost;
                delivery.newest_sent_at = delivery.newest_sent_at.max(Some(segment.sent_at));
            }
            rate.on_delivered(now, segment, &mut delivery.sampling);
        };
        if ack > self.una {
            self.flight.acknowledge_to(ack, &mut delivered);
            self.una = ack;
        }
        if self.sack {
            let blocks = header.options.sack.as_slice();
            for (index, block) in blocks.iter().enumerate() {
                let start = self.initial.offset_near(block.start, self.una);
                let end = self.initial.offset_near(block.end, self.una);
                let (Some(start), Some(end)) = (start, end) else { continue };
                let within_next = blocks.get(1).is_some_and(|next| {
                    let (left, right) = (next.start.distance(block.start), block.end.distance(next.end));
                    left <= 0 && right <= 0
                });
                // RFC 2883 section 4: the first block below the cumulative ACK or inside the second is a D-SACK.
                if index == 0 && start < end && (end <= self.una || within_next) {
                    delivery.duplicate_bytes = end - start;
                } else if start < end && start >= self.una && end <= self.next {
                    self.flight.sack(start, end, &mut delivered);
                }
            }
        }
        if delivery.duplicate_bytes > 0 {
            self.rare_count().dsacks_received += 1;
            self.rack.on_dsack(self.una, self.next);
        }
        // Without SACK the retransmission may have filled a gap before originals that came long ago.
        delivery.was_not_lost &= self.sack || delivery.newest_retransmitted.is_none();
        delivery
    }

    /// RFC 8985 section 7.4.2.
    fn check_tail_probe(&mut self, now: Instant, ack: u64, delivery: &Delivery, advanced: bool) {
        let Some(probe) = self.tail_probe().filter(|probe| ack >= probe.end) else { return };
        if !probe.is_retransmission || delivery.duplicate_bytes > 0 {
            self.tail_probe_out = false;
        } else if ack > probe.end {
            // The probe repaired a loss: the controller must hear of it although no recovery was needed.
            self.tail_probe_out = false;
            self.congestion.on_event(now, CongestionEvent::Loss, self.flight.pipe());
            self.congestion.on_event(now, CongestionEvent::RecoveryEnd, self.flight.pipe());
        } else if !advanced {
            self.tail_probe_out = false;
        }
    }

    /// Whether the last recovery was for nothing: the peer's echo is older than our first retransmission
    /// (RFC 3522 section 3.2).
    fn check_spurious(&mut self, now: Instant, header: &Header, delivery: &Delivery) {
        let Some(rare) = &mut self.rare else { return };
        let Some(Undo::Retransmitted { timestamp, end }) = rare.undo else { return };
        if self.una < end {
            return;
        }
        rare.undo = None;
        let (Some(_), Some(timestamps)) = (self.timestamps, header.options.timestamps) else { return };
        let older = (timestamps.echo.wrapping_sub(timestamp) as i32) < 0;
        if older && self.recovery != Recovery::Open {
            self.undo_recovery(now);
            // The acknowledgement is of the original, so its round trip is known after all (RFC 4015 section 3.2):
            // without it a path that became slower would time out for ever.
            if let Some(first_sent_at) = delivery.newest_retransmitted {
                self.rtt.restart(now - first_sent_at);
                self.backoff = 0;
            }
        }
    }

    /// F-RTO (RFC 5682 section 3.1): the first acknowledgements after a timeout are of originals that were only late, so
    /// nothing was lost but time.
    fn check_late_originals(&mut self, now: Instant) {
        if self.recovery == Recovery::Timeout && self.config.timeout_undo {
            self.undo_recovery(now);
        }
    }

    /// Every retransmission was reported a duplicate, so nothing had been lost (RFC 3708). A report may be of several.
    fn check_needless(&mut self, now: Instant, segments: u64) {
        let segments = u32::try_from(segments).unwrap_or(u32::MAX);
        let Some(rare) = &mut self.rare else { return };
        let Some(balance) = rare.undo_balance.filter(|balance| *balance > 0) else { return };
        rare.undo_balance = Some(balance.saturating_sub(segments));
        if balance <= segments {
            self.undo_recovery(now);
        }
    }

    fn undo_recovery(&mut self, now: Instant) {
        self.trace.undo(now);
        let rare = self.rare_mut();
        rare.statistics.spurious_recoveries += 1;
        rare.undo = None;
        rare.undo_balance = None;
        self.flight.unmark_lost();
        self.recovery = Recovery::Open;
        self.congestion.on_event(now, CongestionEvent::Undo, self.flight.pipe());
    }

    /// Marks lost what the latest news condemns, and enters recovery for it. Returns the bytes.
    pub(super) fn detect_loss(&mut self, now: Instant, advanced: bool) -> u64 {
        let in_recovery = self.recovery != Recovery::Open;
        let pipe_before = self.flight.pipe();
        let lost = if self.sack {
            let (lost, again) = self.rack.detect(now, &mut self.flight, in_recovery, &self.rtt);
            match again {
                Some(at) => self.timers.arm(Timer::Reorder, at),
                None => self.timers.disarm(Timer::Reorder),
            }
            lost
        } else {
            self.detect_loss_by_duplicates(advanced)
        };
        if lost > 0 {
            self.trace.loss(now, lost);
            self.rate.on_lost(lost);
            if !self.is_mtu_probe_lost(now, lost) && !in_recovery {
                self.enter_recovery(now, pipe_before);
            }
        }
        lost
    }

    /// NewReno (RFC 6582): the third duplicate, and each partial acknowledgement, condemn the first segment.
    fn detect_loss_by_duplicates(&mut self, advanced: bool) -> u64 {
        let partial = match self.recovery {
            Recovery::Fast => advanced && self.una < self.recovery_until(),
            _ => false,
        };
        let third = self.recovery == Recovery::Open && !advanced && self.duplicate_acks == DUPLICATE_ACKS_MAX;
        let Some(first) = self.flight.front().map(|segment| segment.offset) else { return 0 };
        if !partial && !third {
            return 0;
        }
        self.flight.mark_lost(|segment| (segment.offset == first).then_some(true))
    }

    fn enter_recovery(&mut self, now: Instant, pipe: u64) {
        self.recovery = Recovery::Fast;
        let until = self.next;
        let flight_bytes = self.next - self.una;
        let segment_size = self.segment_size() as u64;
        let rare = self.rare_mut();
        rare.recovery_until = until;
        rare.statistics.recoveries += 1;
        rare.undo = Some(Undo::Waiting);
        rare.undo_balance = Some(0);
        rare.reduction = RateReduction::start(flight_bytes, segment_size);
        self.tail_probe_out = false;
        self.congestion.on_event(now, CongestionEvent::Loss, pipe);
    }

    /// Recovery ends when all that was out when it began is acknowledged.
    fn advance_recovery(&mut self, now: Instant) {
        if self.recovery != Recovery::Open && self.una >= self.recovery_until() {
            self.recovery = Recovery::Open;
            self.duplicate_acks = 0;
            self.rack.on_recovery_end();
            self.congestion.on_event(now, CongestionEvent::RecoveryEnd, self.flight.pipe());
        }
    }

    /// ECE: the controller hears of it once a round trip (RFC 3168 section 6.1.2), and of the bytes every time.
    fn note_congestion_echo(&mut self, now: Instant, header: &Header, newly_acked: u64) -> u64 {
        let Some(ecn) = self.ecn.as_mut().filter(|_| header.flags.ece) else { return 0 };
        if self.una >= ecn.reduced_until && self.recovery == Recovery::Open {
            ecn.reduced = true;
            ecn.reduced_until = self.next;
            self.congestion.on_event(now, CongestionEvent::EcnEcho, self.flight.pipe());
        }
        self.rare_count().congestion_echoes += 1;
        newly_acked
    }

    fn report_ack(&mut self, now: Instant, report: AckReport) {
        let pipe = self.flight.pipe();
        let app_limited = self.rate.is_app_limited();
        let rate = self.rate.take_sample(&report.sampling, self.rtt.min());
        let round_start = rate.is_some_and(|sample| sample.prior_delivered >= self.next_round_delivered);
        if round_start {
            self.next_round_delivered = self.rate.delivered();
        }
        self.congestion.on_ack(&AckSample {
            now,
            newly_delivered: report.newly_delivered,
            newly_acked: report.newly_acked,
            newly_lost: report.newly_lost,
            rtt: report.rtt,
            rtt_min: self.rtt.min(),
            smoothed_rtt: self.rtt.smoothed(),
            pipe_before: report.pipe_before,
            pipe,
            rate,
            delivered: self.rate.delivered(),
            round_start,
            app_limited,
            ce_marked: report.ce_marked,
            in_recovery: report.was_recovering,
        });
        if self.recovery == Recovery::Fast {
            let target = self.congestion.window();
            let segment_size = self.segment_size() as u64;
            let safe = report.advanced && report.newly_lost == 0;
            let delivered = report.newly_delivered.saturating_sub(report.departed);
            // RFC 6582 section 3.2, step 3: a partial acknowledgement has the next hole filled at once.
            let fills_hole = !self.sack && report.advanced && report.newly_lost > 0;
            let reduction = &mut self.rare_mut().reduction;
            reduction.on_ack(delivered, pipe, target, segment_size, safe);
            if fills_hole {
                reduction.allow(segment_size);
            }
        }
    }
}

/// Arguments of [`Connection::report_ack`].
#[derive(Clone, Copy, Debug)]
struct AckReport {
    newly_delivered: u64,
    /// Of them, told of by duplicate acknowledgements before.
    departed: u64,
    newly_acked: u64,
    /// SND.UNA has moved.
    advanced: bool,
    newly_lost: u64,
    pipe_before: u64,
    rtt: Option<Duration>,
    sampling: Sampling,
    ce_marked: u64,
    was_recovering: bool,
}
