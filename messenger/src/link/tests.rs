//! The table of links, fed by hand.

use core::time::Duration;
use std::net::SocketAddr;

use outrider_stack::time::Instant;

use super::*;
use crate::features::Features;
use crate::message::Message;
use crate::name::{EntityKind, EntityName};
use crate::session::{Carry, Peer};

const SECOND: Duration = Duration::from_secs(1);

fn address(id: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, id], 6800))
}

fn table_with(id: u64, seed: u64, policy: Policy) -> Table {
    let config = TableConfig {
        name: EntityName::osd(id),
        nonce: id,
        receive_credit_bytes: 1 << 20,
        backoff: Backoff::default(),
        attempt_timeout: 10 * SECOND,
        server_standby_max: 900 * SECOND,
        seed,
    };
    Table::new(config, policy)
}

fn table(id: u64, policy: Policy) -> Table {
    table_with(id, id, policy)
}

fn peer(id: u64) -> Peer {
    Peer {
        name: EntityName::osd(id),
        nonce: id,
        addresses: vec![address(id as u8)],
        features: Features::KNOWN,
        message_bytes_max: 1 << 20,
    }
}

fn actions(table: &mut Table) -> Vec<Action> {
    core::iter::from_fn(|| table.poll_action()).collect()
}

/// The only attempt among the actions.
fn dialled(table: &mut Table) -> (TransportId, SessionTerms) {
    let actions = actions(table);
    let dials: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Dial { transport, terms, .. } => Some((*transport, *terms)),
            _ => None,
        })
        .collect();
    assert_eq!(dials.len(), 1, "{actions:?}");
    dials[0]
}

/// The peer's claim, and the answer if it was admitted at once.
fn claim(table: &mut Table, from: u64, terms: &SessionTerms) -> (TransportId, Option<Box<Admission>>) {
    let transport = table.accepted().unwrap();
    table.claim(Instant::ZERO, transport, &peer(from), terms);
    let mut admitted = None;
    for action in core::iter::from_fn(|| table.poll_action()) {
        if let Action::Admit { transport: to, admission, .. } = action {
            assert_eq!(to, transport);
            admitted = Some(admission);
        } else {
            assert!(!matches!(action, Action::Decline { .. }), "{action:?}");
        }
    }
    (transport, admitted)
}

/// What a claim is refused with.
fn refusal(table: &mut Table, from: u64, terms: &SessionTerms) -> CloseCode {
    let transport = table.accepted().unwrap();
    table.claim(Instant::ZERO, transport, &peer(from), terms);
    match actions(table).pop() {
        Some(Action::Decline { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

fn answer(admission: &Admission, to: &SessionTerms) -> SessionTerms {
    SessionTerms {
        lossy: admission.lossy,
        resumed: admission.resumed,
        cookie: admission.cookie,
        peer_cookie: to.cookie,
        attempt: admission.attempt,
        ..SessionTerms::default()
    }
}

/// osd.1 has dialled osd.2, and both are ready.
struct Pair {
    one: Table,
    two: Table,
    link: LinkId,
    dialled: TransportId,
    accepted: TransportId,
    carries: [Box<Carry>; 2],
}

fn pair(policy: Policy, mate: Policy) -> Pair {
    let (mut one, mut two) = (table(1, policy), table(2, mate));
    let link = one.open(Instant::ZERO, address(2), policy);
    let (dialled, terms) = dialled(&mut one);
    let (accepted, admission) = claim(&mut two, 1, &terms);
    let mut admission = admission.expect("admitted at once");
    let first = one.answered(dialled, &peer(2), &answer(&admission, &terms)).expect("it counts");
    one.opened(Instant::ZERO, dialled);
    two.opened(Instant::ZERO, accepted);
    actions(&mut one);
    actions(&mut two);
    let carries = [first, admission.carry.take().expect("a session")];
    Pair { one, two, link, dialled, accepted, carries }
}

#[test]
fn each_link_is_dialled_once_and_found_again_if_it_is_lossless() {
    let mut table = table(1, Policy::lossy_client());
    let lossy = table.open(Instant::ZERO, address(2), Policy::lossy_client());
    assert_ne!(table.open(Instant::ZERO, address(2), Policy::lossy_client()), lossy);
    let lossless = table.open(Instant::ZERO, address(2), Policy::lossless_peer());
    assert_eq!(table.open(Instant::ZERO, address(2), Policy::lossless_peer()), lossless);
    assert_eq!(table.link_count(), 3);
    table.set_policy(EntityKind::Mon, Policy::lossless_peer_reuse());
    assert_eq!(table.policy(Some(EntityKind::Mon)), Policy::lossless_peer_reuse());
    assert_eq!(table.policy(Some(EntityKind::Osd)), Policy::lossy_client());
}

#[test]
fn a_session_is_resumed_with_the_cookies_of_both() {
    let Pair { mut one, mut two, dialled: t1, accepted: t2, carries: [c1, c2], .. } =
        pair(Policy::lossless_client(), Policy::stateful_server());
    let now = Instant::ZERO + 2 * SECOND;
    one.down(now, t1, Some(c1), Cause::Lost, false);
    two.down(now, t2, Some(c2), Cause::Lost, false);
    assert!(actions(&mut two).is_empty(), "a server waits");
    let (again, terms) = dialled(&mut one);
    assert!(terms.peer_cookie != 0 && terms.attempt == 2);
    let (_, admission) = claim(&mut two, 1, &terms);
    let admission = admission.unwrap();
    assert!(admission.resumed);
    assert!(one.answered(again, &peer(2), &answer(&admission, &terms)).is_some());
}

#[test]
fn the_transport_before_lets_go_first() {
    let Pair { mut one, mut two, dialled: t1, accepted: t2, carries: [c1, c2], .. } =
        pair(Policy::lossless_peer(), Policy::lossless_peer());
    one.down(Instant::ZERO, t1, Some(c1), Cause::Lost, true);
    let (_, terms) = dialled(&mut one);
    // The other side has noticed nothing.
    let newer = two.accepted().unwrap();
    two.claim(Instant::ZERO, newer, &peer(1), &terms);
    assert!(matches!(actions(&mut two)[..], [Action::Release { transport }] if transport == t2));
    two.down(Instant::ZERO, t2, Some(c2), Cause::Lost, false);
    assert!(matches!(&actions(&mut two)[..], [Action::Admit { transport, .. }] if *transport == newer));
}

#[test]
fn an_older_attempt_of_the_same_life_is_stale() {
    let Pair { mut two, .. } = pair(Policy::lossless_peer(), Policy::lossless_peer());
    let old = SessionTerms { cookie: 99, attempt: 1, ..SessionTerms::default() };
    assert_eq!(refusal(&mut two, 1, &old), CloseCode::Stale(1));
}

#[test]
fn of_two_attempts_that_cross_the_lower_names_counts() {
    let policy = Policy::lossless_peer();
    let (mut one, mut two) = (table(1, policy), table(2, policy));
    one.open(Instant::ZERO, address(2), policy);
    two.open(Instant::ZERO, address(1), policy);
    let ((t1, terms1), (t2, terms2)) = (dialled(&mut one), dialled(&mut two));
    assert_eq!(refusal(&mut one, 2, &terms2), CloseCode::Wait);
    two.down(Instant::ZERO, t2, None, Cause::Closed(Some(CloseCode::Wait)), false);
    assert!(actions(&mut two).is_empty(), "it waits for the other's");
    let (_, admission) = claim(&mut two, 1, &terms1);
    assert!(one.answered(t1, &peer(2), &answer(&admission.unwrap(), &terms1)).is_some());
    // The loser's attempt comes late once more.
    assert!(matches!(refusal(&mut one, 2, &terms2), CloseCode::Stale(_)));
}

#[test]
fn a_loser_whose_winner_never_comes_dials_again() {
    let policy = Policy::lossless_peer();
    let mut two = table(2, policy);
    two.open(Instant::ZERO, address(1), policy);
    let (t2, _) = dialled(&mut two);
    two.down(Instant::ZERO, t2, None, Cause::Closed(Some(CloseCode::Wait)), false);
    let at = two.next_timeout().expect("its patience ends");
    two.on_timer(at);
    dialled(&mut two);
}

#[test]
fn a_session_that_the_peer_does_not_know_begins_anew() {
    for (policy, told) in [(Policy::lossless_peer(), false), (Policy::lossless_peer_reuse(), true)] {
        let Pair { mut one, dialled: t1, carries: [mut c1, _], .. } = pair(policy, policy);
        c1.queue_for_test(Message::new(1, vec![0; 100]));
        one.down(Instant::ZERO, t1, Some(c1), Cause::Lost, false);
        let (again, before) = dialled(&mut one);
        one.down(Instant::ZERO, again, None, Cause::Closed(Some(CloseCode::UnknownSession)), false);
        let actions: Vec<_> = actions(&mut one);
        let is_told = |action: &Action| matches!(action, Action::Notify { notice: Notice::RemoteReset, .. });
        assert_eq!(actions.iter().any(is_told), told);
        let Some(Action::Dial { terms, .. }) = actions.last() else { panic!("{actions:?}") };
        assert!(terms.peer_cookie == 0 && terms.cookie != before.cookie);
    }
}

#[test]
fn a_restarted_peer_is_known_by_its_cookie_even_with_the_same_nonce() {
    let policy = Policy::lossless_peer_reuse();
    let Pair { mut two, accepted, carries: [_, c2], .. } = pair(policy, policy);
    two.down(Instant::ZERO, accepted, Some(c2), Cause::Lost, false);
    actions(&mut two);
    // It counts its attempts from one again, and is told the number that it must exceed.
    let mut reborn = table_with(1, 77, policy);
    reborn.open(Instant::ZERO, address(2), policy);
    let (first, terms) = dialled(&mut reborn);
    let CloseCode::Stale(last) = refusal(&mut two, 1, &terms) else { panic!("not stale") };
    reborn.down(Instant::ZERO, first, None, Cause::Closed(Some(CloseCode::Stale(last))), false);
    let (_, terms) = dialled(&mut reborn);
    assert!(terms.attempt > last);
    let (_, admission) = claim(&mut two, 1, &terms);
    assert!(!admission.unwrap().resumed);
}

#[test]
fn an_answer_that_was_lost_does_not_cost_the_session() {
    let policy = Policy::lossless_peer();
    let (mut one, mut two) = (table(1, policy), table(2, policy));
    one.open(Instant::ZERO, address(2), policy);
    let (t1, terms) = dialled(&mut one);
    let (t2, admission) = claim(&mut two, 1, &terms);
    let carry = admission.unwrap().carry;
    one.down(Instant::ZERO, t1, None, Cause::Lost, true);
    two.down(Instant::ZERO, t2, carry, Cause::Lost, false);
    actions(&mut two);
    let at = one.next_timeout().unwrap();
    one.on_timer(at);
    let (_, terms) = dialled(&mut one);
    assert_eq!(terms.peer_cookie, 0, "it never learned one");
    assert!(claim(&mut two, 1, &terms).1.unwrap().resumed);
}

#[test]
fn a_server_forgets_a_client_that_does_not_come_back_or_says_goodbye() {
    for (cause, at_once) in [(Cause::Lost, false), (Cause::Closed(Some(CloseCode::Finished)), true)] {
        let Pair { mut two, accepted, carries: [_, c2], .. } =
            pair(Policy::lossless_client(), Policy::stateful_server());
        two.down(Instant::ZERO, accepted, Some(c2), cause, false);
        let ended = |actions: &[Action]| {
            actions.iter().any(|action| matches!(action, Action::Ended { notice: Some(Notice::Reset), .. }))
        };
        assert_eq!(ended(&actions(&mut two)), at_once);
        if let Some(at) = two.next_timeout() {
            assert_eq!(at, Instant::ZERO + 900 * SECOND);
            two.on_timer(at);
            assert!(ended(&actions(&mut two)));
        }
        assert_eq!((two.link_count(), two.next_timeout()), (0, None));
    }
}

#[test]
fn a_registered_lossy_client_that_comes_again_replaces_itself() {
    let server = Policy::stateless_registered_server();
    let Pair { mut two, accepted, .. } = pair(Policy::lossy_client(), server);
    let transport = two.accepted().unwrap();
    let terms = SessionTerms { lossy: true, cookie: 5, attempt: 2, ..SessionTerms::default() };
    two.claim(Instant::ZERO, transport, &peer(1), &terms);
    let actions = actions(&mut two);
    assert!(
        matches!(
            &actions[..],
            [Action::Ended { notice: Some(Notice::Reset), .. }, Action::Release { transport: old }, Action::Admit { .. }]
                if *old == accepted
        ),
        "{actions:?}"
    );
    assert_eq!(two.link_count(), 1);
    let Pair { mut two, .. } = pair(Policy::lossy_client(), Policy::stateless_server());
    claim(&mut two, 1, &terms);
    assert_eq!(two.link_count(), 2, "one that does not register them has as many as come");
}

#[test]
fn attempts_that_fail_are_made_again_with_growing_pauses() {
    let policy = Policy::lossless_client();
    let mut table = table(1, policy);
    table.open(Instant::ZERO, address(2), policy);
    let mut now = Instant::ZERO;
    let mut waits = Vec::new();
    for attempt in 0..12 {
        let (transport, terms) = dialled(&mut table);
        assert_eq!(terms.attempt, attempt + 1);
        table.down(now, transport, None, Cause::Lost, false);
        let next = table.next_timeout().unwrap();
        waits.push(next.since(now).as_millis());
        now = next;
        table.on_timer(now);
    }
    assert!((200..=400).contains(&waits[0]), "{waits:?}");
    assert!(waits[8..].iter().all(|wait| (7_500..=15_000).contains(wait)), "{waits:?}");
}

#[test]
fn an_attempt_that_hangs_is_given_up_in_time() {
    let policy = Policy::lossless_client();
    let mut table = table(1, policy);
    table.open(Instant::ZERO, address(2), policy);
    let (transport, _) = dialled(&mut table);
    let limit = table.next_timeout().unwrap();
    assert_eq!(limit, Instant::ZERO + 10 * SECOND);
    table.on_timer(limit);
    assert!(matches!(actions(&mut table)[..], [Action::Release { transport: hung }] if hung == transport));
    assert!(table.answered(transport, &peer(2), &SessionTerms::default()).is_none(), "it no longer counts");
}

#[test]
fn a_refusal_is_told_once_until_the_link_is_ready() {
    let policy = Policy::lossless_peer();
    let mut table = table(1, policy);
    table.open(Instant::ZERO, address(2), policy);
    let mut told = 0;
    for _ in 0..5 {
        let (transport, _) = dialled(&mut table);
        table.down(Instant::ZERO, transport, None, Cause::Refused, false);
        let refused = |action: &Action| matches!(action, Action::Notify { notice: Notice::Refused, .. });
        told += actions(&mut table).iter().filter(|action| refused(action)).count();
        let at = table.next_timeout().unwrap();
        table.on_timer(at);
    }
    assert_eq!(told, 1);
}

#[test]
fn a_disposable_link_ends_with_its_transport() {
    let Pair { mut one, link, dialled, carries: [c1, _], .. } =
        pair(Policy::lossless_client(), Policy::stateful_server());
    one.mark_disposable(link);
    one.down(Instant::ZERO, dialled, Some(c1), Cause::Lost, true);
    assert!(matches!(actions(&mut one)[..], [Action::Ended { notice: Some(Notice::Reset), .. }]));
    assert_eq!(one.link_count(), 0);
}
