use super::*;

const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn report(interval: Option<Duration>) -> PingReport {
    PingReport { interval, ..PingReport::default() }
}

/// A connection with nothing wrong that heard a heartbeat every 10 ms up to 1 s.
fn calm() -> Evidence {
    let mut arrivals = Arrivals::default();
    (0..=100).for_each(|turn| arrivals.hear(at(turn * 10), &report(Some(10 * MS))));
    Evidence {
        now: at(1_005),
        is_loopback: false,
        asks: false,
        made_at: at(0),
        detached_at: None,
        arrivals,
        trouble: Trouble::default(),
        occupancy: Occupancy { at: at(1_005), ..Occupancy::default() },
        peer_report: Some(report(Some(10 * MS))),
    }
}

fn condition(evidence: &Evidence) -> Condition {
    judge(&HealthConfig::default(), evidence).condition
}

#[test]
fn suspicion_is_the_logarithm_of_how_unlikely_the_silence_is() {
    for (distance, expected) in [(0.0, 0.301), (1.0, 0.80), (2.0, 1.64), (3.0, 2.87), (5.0, 6.54)] {
        let found = suspicion(distance);
        assert!((found - expected).abs() < 0.12 * expected, "{distance} deviations: {found}, not {expected}");
    }
    assert!(suspicion(1e6).is_finite() && suspicion(-50.0) >= 0.0);
}

#[test]
fn a_regular_peer_is_silent_after_less_than_three_intervals_and_not_before_two() {
    let heard = |ms: u64| Evidence { now: at(1_000 + ms), ..calm() };
    assert_eq!(condition(&heard(19)), Condition::Healthy);
    let health = judge(&HealthConfig::default(), &heard(30));
    assert!(matches!(health.condition, Condition::Silent { suspicion } if suspicion >= 8.0));
    assert_eq!(health.since, at(1_010), "since a message was missed");
}

#[test]
fn an_irregular_peer_is_given_more_time() {
    let mut evidence = calm();
    let mut now = at(1_000);
    for turn in 0..200u32 {
        now += if turn % 2 == 0 { 2 * MS } else { 18 * MS };
        evidence.arrivals.hear(now, &report(Some(10 * MS)));
    }
    let silent = |ms: u32, evidence: &mut Evidence| {
        evidence.now = now + ms * MS;
        matches!(condition(evidence), Condition::Silent { .. })
    };
    assert!(!silent(30, &mut evidence), "what would be suspicious of a regular one");
    assert!(silent(100, &mut evidence));
}

/// How long a peer that was heard last at `last` must say nothing until it is called silent, in milliseconds.
fn silent_after(evidence: &mut Evidence, last: Instant) -> Option<u64> {
    (1..10_000).find(|ms| {
        evidence.now = last + Duration::from_millis(*ms);
        matches!(condition(evidence), Condition::Silent { .. })
    })
}

#[test]
fn one_gap_that_the_machine_made_does_not_blind_the_detector() {
    for gap_ms in [50, 500, 60_000] {
        let mut evidence = calm();
        let mut now = at(1_000 + gap_ms);
        evidence.arrivals.hear(now, &report(Some(10 * MS)));
        let found = silent_after(&mut evidence, now);
        assert!((20..=30).contains(&found.unwrap()), "right after a gap of {gap_ms} ms: {found:?}");
        now += 10 * MS;
        evidence.arrivals.hear(now, &report(Some(10 * MS)));
        // A second one is not much more.
        now += Duration::from_millis(gap_ms);
        evidence.arrivals.hear(now, &report(Some(10 * MS)));
        let found = silent_after(&mut evidence, now);
        assert!((20..=33).contains(&found.unwrap()), "after two gaps of {gap_ms} ms: {found:?}");
    }
}

#[test]
fn gaps_that_are_the_peers_manner_are_learnt_and_rare_ones_are_not() {
    for (gap_every, is_learnt) in [(3, true), (5, true), (50, false)] {
        let mut evidence = calm();
        let mut now = at(1_000);
        let mut verdicts = 0;
        for turn in 0..1_000u32 {
            let interval = if turn % gap_every == 0 { 50 * MS } else { 10 * MS };
            evidence.now = now + interval;
            let silent = matches!(condition(&evidence), Condition::Silent { .. });
            verdicts += u32::from(silent && turn >= 200);
            now += interval;
            evidence.arrivals.hear(now, &report(Some(10 * MS)));
        }
        let gaps = 800 / gap_every;
        assert_eq!(verdicts, if is_learnt { 0 } else { gaps }, "one gap in {gap_every}");
    }
}

#[test]
fn a_peer_that_announces_another_interval_is_judged_by_that_one() {
    for (interval_ms, last_ms) in [(1_000u32, 3_000), (1, 3)] {
        let mut evidence = calm();
        let mut now = at(1_002);
        for _ in 0..3 {
            evidence.arrivals.hear(now, &report(Some(interval_ms * MS)));
            let found = silent_after(&mut evidence, now).unwrap();
            assert!((2 * u64::from(interval_ms)..=last_ms).contains(&found), "{interval_ms} ms: {found}");
            now += interval_ms * MS;
        }
    }
}

#[test]
fn nothing_is_expected_of_a_peer_that_announces_nothing_and_is_asked_nothing() {
    let mut evidence = calm();
    evidence.arrivals.hear(at(1_010), &report(None));
    evidence.now = at(60_000);
    assert_eq!(condition(&evidence), Condition::Healthy);
    evidence.asks = true;
    assert!(matches!(condition(&evidence), Condition::Silent { .. }), "echoes are missing");
}

#[test]
fn without_a_transport_a_connection_is_silent() {
    let evidence = Evidence { detached_at: Some(at(900)), ..calm() };
    let health = judge(&HealthConfig::default(), &evidence);
    assert_eq!(health, Health { condition: Condition::Silent { suspicion: f64::INFINITY }, since: at(900) });
}

#[test]
fn congestion_is_named_with_what_blocks_once_it_lasts() {
    let mut evidence = calm();
    evidence.occupancy.send.unsent_bytes = 1_000_000;
    evidence.occupancy.send.blocked = Blocked::PeerWindow;
    evidence.trouble.note(at(980), &evidence.occupancy);
    assert_eq!(condition(&evidence), Condition::Healthy, "not yet");
    evidence.trouble.note(at(1_000), &evidence.occupancy);
    evidence.now = at(1_030);
    evidence.arrivals.hear(at(1_029), &report(Some(10 * MS)));
    let health = judge(&HealthConfig::default(), &evidence);
    let condition = Condition::Congested { blocked: Blocked::PeerWindow, unsent_bytes: 1_000_000 };
    assert_eq!(health, Health { condition, since: at(980) });
    evidence.occupancy.send.blocked = Blocked::Nothing;
    evidence.trouble.note(at(1_030), &evidence.occupancy);
    assert_eq!(
        judge(&HealthConfig::default(), &evidence),
        health,
        "a segment leaves, and the queue still stands"
    );
    evidence.occupancy.send.unsent_bytes = 0;
    evidence.trouble.note(at(1_030), &evidence.occupancy);
    assert_eq!(judge(&HealthConfig::default(), &evidence).condition, Condition::Healthy);
}

#[test]
fn a_stalled_consumer_is_named_on_both_sides() {
    let mut evidence = calm();
    evidence.occupancy.receive.undispatched_messages = 3;
    evidence.occupancy.receive.undispatched_bytes = 3_000;
    evidence.occupancy.receive.oldest_age = 50 * MS;
    let health = judge(&HealthConfig::default(), &evidence);
    assert!(matches!(
        health.condition,
        Condition::ConsumerStalled { side: Side::Own, undispatched_bytes: 3_000, undispatched_messages: 3 }
    ));
    assert_eq!(health.since, at(955));
    let mut evidence = calm();
    let mut theirs = report(Some(10 * MS));
    theirs.receive.undispatched_messages = 2;
    theirs.receive.oldest_age = 15 * MS;
    evidence.peer_report = Some(theirs);
    assert_eq!(condition(&evidence), Condition::Healthy, "everybody may wait a little");
    theirs.receive.oldest_age = 25 * MS;
    evidence.peer_report = Some(theirs);
    assert!(matches!(condition(&evidence), Condition::ConsumerStalled { side: Side::Peer, .. }));
}
