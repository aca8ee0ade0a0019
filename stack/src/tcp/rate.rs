//! Delivery rate sampling (draft-ietf-ccwg-bbr, section 4.1).

use core::time::Duration;

use super::congestion::RateSample;
use super::flight::SentSegment;
use crate::time::Instant;

/// What a segment remembers about the connection at its departure, for the rate sample its acknowledgement gives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendStamp {
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    lost: u64,
    pipe: u64,
    app_limited: bool,
}

impl SendStamp {
    /// See [`super::connection::Connection::touch`].
    pub(crate) fn touch(&self) -> u64 {
        self.pipe
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
        SendStamp {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            lost: self.lost,
            pipe: pipe + bytes,
            app_limited: self.is_app_limited(),
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
            (segment.stamp.delivered, segment.sent_at) >= (stamp.delivered, sent_at)
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
        let sample = RateSample {
            delivered: self.delivered - stamp.delivered,
            interval,
            prior_delivered: stamp.delivered,
            lost: self.lost - stamp.lost,
            pipe_at_send: stamp.pipe,
            app_limited: stamp.app_limited,
        };
        self.latest_bytes_per_second = sample.bytes_per_second();
        Some(sample)
    }
}
