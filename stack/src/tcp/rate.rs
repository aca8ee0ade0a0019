//! Delivery rate sampling (draft-ietf-ccwg-bbr, section 4.1).

use core::time::Duration;

use super::congestion::RateSample;
use super::flight::SentSegment;
use crate::time::Instant;

/// What a segment remembers about the connection at its departure, for the rate sample its acknowledgement gives.
///
/// Counts of bytes are kept by their low bits: no more than twice the largest window, 2^31 bytes, are delivered between
/// departure and delivery of a segment, nor lost. Packed, for there is one with each segment in flight.
#[derive(Clone, Copy, Debug, Default)]
#[repr(Rust, packed(4))]
pub(crate) struct SendStamp {
    delivered_at: Instant,
    first_sent_at: Instant,
    delivered: u32,
    lost: u32,
    /// Bytes, of which there are less than 2^31, and above them whether the connection was app-limited.
    pipe: u32,
}

/// See [`SendStamp::pipe`].
const APP_LIMITED: u32 = 1 << 31;

impl SendStamp {
    /// Bytes of `delivered`, which the connection has delivered by now, since the departure.
    fn delivered_since(&self, delivered: u64) -> u32 {
        (delivered as u32).wrapping_sub(self.delivered)
    }
}

/// Connection-wide delivery accounting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RateSampler {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    lost: u64,
    /// `delivered` at which the pipe will no longer be app-limited; zero if it is not.
    app_limited_until: u64,
    latest_bytes_per_second: u64,
}

/// The sample that is made while one incoming segment is processed: the stamp of the newest segment that it delivers, and
/// when that was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sampling(Option<(SendStamp, Instant)>);

impl RateSampler {
    /// Bytes delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The most recent valid estimate, bytes per second; zero before the first.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.latest_bytes_per_second
    }

    pub(crate) fn is_app_limited(&self) -> bool {
        self.app_limited_until > 0
    }

    /// A segment of `bytes` leaves; `pipe` is what was out before it.
    pub(crate) fn stamp(&mut self, now: Instant, pipe: u64, bytes: u64) -> SendStamp {
        if pipe == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        let pipe = u32::try_from(pipe + bytes).map_or(APP_LIMITED - 1, |pipe| pipe.min(APP_LIMITED - 1));
        SendStamp {
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            delivered: self.delivered as u32,
            lost: self.lost as u32,
            pipe: pipe | if self.is_app_limited() { APP_LIMITED } else { 0 },
        }
    }

    /// The sender had nothing to send although the window was open, with `pipe` bytes out.
    pub(crate) fn mark_app_limited(&mut self, pipe: u64) {
        self.app_limited_until = (self.delivered + pipe).max(1);
    }

    /// `segment` was delivered for the first time.
    pub(crate) fn on_delivered(&mut self, now: Instant, segment: &SentSegment, sampling: &mut Sampling) {
        self.delivered += u64::from(segment.length);
        self.delivered_at = now;
        let newer = sampling.0.is_none_or(|(stamp, sent_at)| {
            let since = |stamp: &SendStamp| stamp.delivered_since(self.delivered);
            (since(&stamp), segment.sent_at) >= (since(&segment.stamp), sent_at)
        });
        if newer {
            sampling.0 = Some((segment.stamp, segment.sent_at));
            self.first_sent_at = segment.sent_at;
        }
    }

    pub(crate) fn on_lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// Closes the processing of one incoming segment: the sample that `sampling` gives, if any. An interval shorter than the
    /// smallest round trip comes from compressed acknowledgements and would overstate the rate; it gives none.
    pub(crate) fn take_sample(
        &mut self,
        sampling: &Sampling,
        rtt_min: Option<Duration>,
    ) -> Option<RateSample> {
        if self.app_limited_until > 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let (stamp, sent_at) = sampling.0?;
        let send_elapsed = sent_at - stamp.first_sent_at;
        let ack_elapsed = self.delivered_at - stamp.delivered_at;
        let interval = send_elapsed.max(ack_elapsed);
        if interval.is_zero() || rtt_min.is_some_and(|min| interval < min) {
            return None;
        }
        let delivered = u64::from(stamp.delivered_since(self.delivered));
        let sample = RateSample {
            delivered,
            interval,
            prior_delivered: self.delivered - delivered,
            lost: u64::from((self.lost as u32).wrapping_sub(stamp.lost)),
            pipe_at_send: u64::from(stamp.pipe & !APP_LIMITED),
            app_limited: stamp.pipe & APP_LIMITED != 0,
        };
        self.latest_bytes_per_second = sample.bytes_per_second();
        Some(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::flight;

    fn segment(offset: u64, length: u32, sent_at: Instant, stamp: SendStamp) -> SentSegment {
        SentSegment { sent_at, first_sent_at: sent_at, stamp, ..flight::tests::segment(offset, length) }
    }

    /// A sample is the same wherever the counters of the connection are, also where their low bits begin anew.
    #[test]
    fn samples_do_not_depend_on_how_much_was_delivered_before() {
        let samples = |delivered: u64, lost: u64| {
            let mut sampler = RateSampler { delivered, lost, ..RateSampler::default() };
            let at = Instant::from_micros;
            let first = segment(0, 3_000, at(10), sampler.stamp(at(10), 0, 3_000));
            let second = segment(3_000, 2_000, at(20), sampler.stamp(at(20), 3_000, 2_000));
            sampler.on_lost(500);
            let mut sampling = Sampling::default();
            sampler.on_delivered(at(110), &first, &mut sampling);
            let third = segment(5_000, 1_000, at(111), sampler.stamp(at(111), 2_000, 1_000));
            let early = sampler.take_sample(&sampling, None);
            let mut sampling = Sampling::default();
            sampler.on_delivered(at(230), &third, &mut sampling);
            // What left before and has nothing newer to say does not take its place.
            sampler.on_delivered(at(230), &second, &mut sampling);
            let late = sampler.take_sample(&sampling, None);
            [early, late].map(|sample| {
                let sample = sample.expect("time has passed");
                assert_eq!(sample.interval, Duration::from_micros(if sample.lost > 0 { 100 } else { 120 }));
                let prior = sample.prior_delivered - delivered;
                (sample.delivered, prior, sample.lost, sample.pipe_at_send, sample.app_limited)
            })
        };
        let expected = [(3_000, 0, 500, 3_000, false), (3_000, 3_000, 0, 3_000, false)];
        for start in [0, u64::from(u32::MAX) - 1_000, u64::from(u32::MAX) - 4_000, 1 << 40] {
            assert_eq!(samples(start, start), expected, "from {start} on");
        }
    }

    #[test]
    fn a_stamp_keeps_whether_the_application_was_the_limit() {
        let mut sampler = RateSampler::default();
        sampler.mark_app_limited(0);
        let stamp = sampler.stamp(Instant::from_micros(1), u64::MAX / 2, 0);
        let sent = segment(0, 100, Instant::from_micros(1), stamp);
        let mut sampling = Sampling::default();
        sampler.on_delivered(Instant::from_micros(9), &sent, &mut sampling);
        let sample = sampler.take_sample(&sampling, None).expect("time has passed");
        assert!(sample.app_limited);
        assert_eq!(sample.pipe_at_send, u64::from(APP_LIMITED - 1), "the most that a stamp can say");
    }
}
