//! SYN cookies: what a connection would remember of a SYN, kept by the peer instead (RFC 4987 section 3.6).
//!
//! The initial sequence number of the SYN-ACK is the cookie, and the acknowledgement of it brings it back:
//!
//! ```text
//! bit  31         30..28      27..0
//!      +----------+-----------+------------------------------------------+
//!      | period & | index of  | keyed hash of the 4-tuple, the peer's    |
//!      | 1        | the MSS   | initial sequence number, period, MSS and |
//!      |          |           | options                                  |
//!      +----------+-----------+------------------------------------------+
//! ```
//!
//! A period has a key of its own and lasts 64 s; a cookie is taken in its period and the next. If both ends use
//! timestamps, the six low bits of our TSval carry the other options, and its echo brings them back:
//!
//! ```text
//! bit  5..2                           1     0
//!      peer's window scale, 15: none  ECN   SACK
//! ```
//!
//! Otherwise nothing but the MSS is agreed on. The options are part of the hash: a peer cannot claim later what it
//! did not offer, and one whose timestamps are lost on the way does not believe in a window scale that we forgot.

use core::time::Duration;
use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher24;

use super::key::FlowKey;
use crate::tcp::connection::SynParameters;
use crate::tcp::segment::Header;
use crate::tcp::sequence::SeqNumber;
use crate::time::Instant;

/// How long a key is used for new cookies, seconds.
const PERIOD_SECONDS: u64 = 64;
/// No cookie is taken when it is this old.
pub(super) const VALID_MAX: Duration = Duration::from_secs(2 * PERIOD_SECONDS);
/// The MSS that a cookie can express: the minimum, the defaults of RFC 9293 section 3.7.1 and of IPv6, tunnels, and
/// Ethernet and its jumbo frames with IPv6 and IPv4. The one next below the peer's is used.
const SEGMENT_SIZES: [u16; 8] = [88, 536, 1_220, 1_360, 1_440, 1_460, 4_016, 8_940];
const HASH_BITS: u32 = 28;
const HASH_MASK: u32 = (1 << HASH_BITS) - 1;
const OPTION_BITS: u32 = 6;
const OPTION_MASK: u32 = (1 << OPTION_BITS) - 1;
const SACK: u32 = 1;
const ECN: u32 = 1 << 1;
const SCALE_SHIFT: u32 = 2;
const NO_SCALE: u32 = 15;
/// Stands in the hash for the options of a handshake without timestamps.
const NO_OPTIONS: u32 = u32::MAX;

/// A cookie, and the parameters cut down to what it remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cookie {
    /// The initial sequence number of the SYN-ACK.
    pub(super) sequence: SeqNumber,
    /// TSval of the SYN-ACK: at most 64 below the clock, never above.
    pub(super) timestamp: u32,
    pub(super) agreed: SynParameters,
}

/// Makes cookies and knows them again. Keeps nothing but the keys of two periods.
pub(super) struct Cookies {
    seed: u64,
    /// Per parity of the period: the period and its key.
    keys: [(u64, [u64; 2]); 2],
}

impl Cookies {
    /// Cookies that only who knows `seed` can make.
    pub(super) fn new(seed: u64) -> Self {
        Cookies { seed, keys: [(0, derive(seed, 0)), (1, derive(seed, 1))] }
    }

    /// The cookie for a SYN of the 4-tuple `key` on which `agreed` would be agreed; `clock` is our timestamp clock.
    pub(super) fn make(&mut self, now: Instant, key: &FlowKey, agreed: &SynParameters, clock: u32) -> Cookie {
        let index = SEGMENT_SIZES.iter().rposition(|size| *size <= agreed.segment_size_max).unwrap_or(0);
        let agreed = SynParameters { segment_size_max: SEGMENT_SIZES[index], ..*agreed };
        let (agreed, options) = match agreed.timestamp {
            Some(_) => (agreed, to_bits(&agreed)),
            None => (
                SynParameters { window_scale: None, sack_permitted: false, ecn: false, ..agreed },
                NO_OPTIONS,
            ),
        };
        let with_options = (clock & !OPTION_MASK) | (options & OPTION_MASK);
        let timestamp = match with_options.wrapping_sub(clock) as i32 {
            // A timestamp ahead of the clock would make the connection's own seem old.
            1.. => with_options.wrapping_sub(1 << OPTION_BITS),
            _ => with_options,
        };
        let sequence = self.sequence(period(now), index, key, agreed.sequence, options);
        Cookie { sequence, timestamp, agreed }
    }

    /// What was agreed on in the handshake that `ack`, a segment without SYN, completes; `None` if it brings no valid
    /// cookie. `timestamps` says whether we use them.
    pub(super) fn check(
        &mut self,
        now: Instant,
        key: &FlowKey,
        ack: &Header,
        timestamps: bool,
    ) -> Option<SynParameters> {
        let cookie = ack.ack?.add(u32::MAX);
        let peer = ack.seq.add(u32::MAX);
        let timestamps = ack.options.timestamps.filter(|_| timestamps);
        let options = timestamps.map_or(NO_OPTIONS, |timestamps| timestamps.echo & OPTION_MASK);
        let index = (cookie.0 >> HASH_BITS & 7) as usize;
        let present = period(now);
        let given =
            if present & 1 == u64::from(cookie.0 >> 31) { present } else { present.checked_sub(1)? };
        if self.sequence(given, index, key, peer, options) != cookie {
            return None;
        }
        let scale = options >> SCALE_SHIFT & NO_SCALE;
        Some(SynParameters {
            sequence: peer,
            segment_size_max: SEGMENT_SIZES[index],
            window_scale: (scale != NO_SCALE).then_some(scale as u8),
            sack_permitted: options != NO_OPTIONS && options & SACK != 0,
            ecn: options != NO_OPTIONS && options & ECN != 0,
            timestamp: timestamps.map(|timestamps| timestamps.value),
        })
    }

    fn sequence(
        &mut self,
        period: u64,
        index: usize,
        key: &FlowKey,
        peer: SeqNumber,
        options: u32,
    ) -> SeqNumber {
        let parity = (period & 1) as usize;
        if self.keys[parity].0 != period {
            self.keys[parity] = (period, derive(self.seed, period));
        }
        let [first, second] = self.keys[parity].1;
        let mut hasher = SipHasher24::new_with_keys(first, second);
        key.hash(&mut hasher);
        hasher.write_u32(peer.0);
        hasher.write_u32(options);
        hasher.write_u8(index as u8);
        let hash = hasher.finish() as u32 & HASH_MASK;
        SeqNumber((parity as u32) << 31 | (index as u32) << HASH_BITS | hash)
    }
}

fn period(now: Instant) -> u64 {
    now.as_micros() / 1_000_000 / PERIOD_SECONDS
}

/// The key of a period. The halves of the SipHash key keep it apart from all other hashes of the seed.
fn derive(seed: u64, period: u64) -> [u64; 2] {
    [0, 1].map(|half: u64| {
        let mut hasher = SipHasher24::new_with_keys(seed, u64::from_be_bytes(*b"cookies\0") | half);
        hasher.write_u64(period);
        hasher.finish()
    })
}

fn to_bits(agreed: &SynParameters) -> u32 {
    let scale = agreed.window_scale.map_or(NO_SCALE, |scale| u32::from(scale).min(NO_SCALE - 1));
    let flag = |set, bit| if set { bit } else { 0 };
    scale << SCALE_SHIFT | flag(agreed.ecn, ECN) | flag(agreed.sack_permitted, SACK)
}

#[cfg(test)]
mod tests {
    use super::{Cookie, Cookies, OPTION_MASK};
    use crate::net::key::FlowKey;
    use crate::tcp::connection::SynParameters;
    use crate::tcp::segment::{Header, Options, Timestamps};
    use crate::tcp::sequence::SeqNumber;
    use crate::time::Instant;

    const AGREED: SynParameters = SynParameters {
        sequence: SeqNumber(u32::MAX),
        segment_size_max: 1_460,
        window_scale: Some(7),
        sack_permitted: true,
        ecn: false,
        timestamp: Some(1_000),
    };

    fn flow(port: u16) -> FlowKey {
        FlowKey::new("10.0.0.1:80".parse().unwrap(), format!("10.0.0.2:{port}").parse().unwrap())
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    /// The acknowledgement of a peer that got `cookie`.
    fn answer(cookie: &Cookie) -> Header {
        let timestamps = cookie.agreed.timestamp.map(|value| Timestamps { value, echo: cookie.timestamp });
        Header {
            seq: cookie.agreed.sequence.add(1),
            ack: Some(cookie.sequence.add(1)),
            options: Options { timestamps, ..Options::default() },
            ..Header::default()
        }
    }

    #[test]
    fn what_was_agreed_comes_back_whatever_it_was() {
        let mut cookies = Cookies::new(1);
        for bits in 0..64u8 {
            let agreed = SynParameters {
                window_scale: (bits >> 2 < 15).then_some(bits >> 2),
                sack_permitted: bits & 1 != 0,
                ecn: bits & 2 != 0,
                ..AGREED
            };
            for clock in [0, 5, 63, 64, 1_000_003, u32::MAX] {
                let cookie = cookies.make(at(5), &flow(1), &agreed, clock);
                let behind = clock.wrapping_sub(cookie.timestamp);
                assert!(behind <= OPTION_MASK, "{behind} behind, never ahead");
                assert_eq!(cookies.check(at(5), &flow(1), &answer(&cookie), true), Some(agreed));
            }
        }
    }

    #[test]
    fn without_timestamps_only_the_mss_is_agreed_on() {
        let mut cookies = Cookies::new(1);
        for (offered, kept) in [(0, 88), (535, 88), (1_300, 1_220), (1_459, 1_440), (65_535, 8_940)] {
            let offer = SynParameters { segment_size_max: offered, timestamp: None, ..AGREED };
            let cookie = cookies.make(at(5), &flow(1), &offer, 0);
            let expected =
                SynParameters { segment_size_max: kept, window_scale: None, sack_permitted: false, ..offer };
            assert_eq!(cookie.agreed, expected);
            assert_eq!(cookies.check(at(5), &flow(1), &answer(&cookie), true), Some(expected));
        }
    }

    #[test]
    fn a_cookie_lives_for_one_to_two_periods() {
        let mut cookies = Cookies::new(1);
        for made in [0, 63, 64, 640] {
            let cookie = cookies.make(at(made), &flow(1), &AGREED, 0);
            let mut taken = |now| cookies.check(at(now), &flow(1), &answer(&cookie), true).is_some();
            assert!(taken(made) && taken(made + 64), "made at {made} s");
            assert!(!taken(made + 128) && !taken(made + 256), "made at {made} s");
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_flow_its_peer_and_its_options_only() {
        let mut cookies = Cookies::new(1);
        let cookie = cookies.make(at(5), &flow(1), &AGREED, 0);
        let good = answer(&cookie);
        let mut taken = |flow: &FlowKey, ack: &Header| cookies.check(at(5), flow, ack, true).is_some();
        assert!(taken(&flow(1), &good));
        assert!(!taken(&flow(2), &good), "another port");
        assert!(!taken(&flow(1), &Header { seq: good.seq.add(1), ..good }), "another sequence number");
        assert!(!taken(&flow(1), &Header { ack: good.ack.map(|ack| ack.add(1)), ..good }), "guessed");
        assert!(!taken(&flow(1), &Header { ack: None, ..good }), "no acknowledgement");
        assert!(!taken(&flow(1), &Header { options: Options::default(), ..good }), "timestamps lost");
        let timestamps = good.options.timestamps.map(|stamps| Timestamps { echo: stamps.echo ^ 1, ..stamps });
        let claimed = Options { timestamps, ..good.options };
        assert!(!taken(&flow(1), &Header { options: claimed, ..good }), "an option that was not offered");
        assert_eq!(Cookies::new(2).check(at(5), &flow(1), &good, true), None, "another stack's");
    }

    #[test]
    fn no_guess_in_a_million_is_taken() {
        let mut cookies = Cookies::new(1);
        let good = answer(&cookies.make(at(5), &flow(1), &AGREED, 0));
        let mut taken = 0;
        for guess in 0..1_000_000u32 {
            let ack = Some(SeqNumber(guess.wrapping_mul(0x9e37_79b1)));
            taken += u32::from(cookies.check(at(70), &flow(1), &Header { ack, ..good }, true).is_some());
        }
        // 16 of the 2^32 numbers are good.
        assert_eq!(taken, 0);
    }
}
