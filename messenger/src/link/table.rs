//! The table of logical connections: opening, claims of accepted transports, answers to dialled ones, timers.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use outrider_stack::time::Instant;

use super::transports::Transports;
use super::{Action, Backoff, LinkId, Notice, Policy, TransportId};
use crate::codec::{CloseCode, SessionTerms};
use crate::name::EntityName;
use crate::random::SplitMix;
use crate::session::{Admission, Carry, Peer};

/// Parameters of a table.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// This end's name.
    pub name: EntityName,
    /// This end's nonce.
    pub nonce: u64,
    /// Receive credit of each session, bytes.
    pub receive_credit_bytes: u64,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// From the dial to the peer's answer.
    pub attempt_timeout: Duration,
    /// How long a server keeps the session of a client that does not come back.
    pub server_standby_max: Duration,
    /// Seed of cookies and jitter.
    pub seed: u64,
}

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is under way.
    Standby,
    /// The next attempt waits for its time.
    Backoff,
    /// An attempt of ours is under way.
    Dialling(TransportId),
    /// The peer's attempt counts, not ours; ours is made again if it does not come.
    Waiting,
    /// A transport of the peer's has the session, or will have it when the one before has let go.
    Entering(TransportId),
    /// Both sides are ready.
    Open(TransportId),
}

/// How a session is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It begins.
    Fresh,
    /// It goes on.
    Resumed,
    /// The peer has lost its side: it begins anew.
    Renewed,
}

/// A claim that waits until the transport before has let go of the session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) transport: TransportId,
    pub(super) start: Start,
    pub(super) peer_cookie: u64,
}

pub(super) struct Link {
    pub(super) policy: Policy,
    pub(super) lossy: bool,
    pub(super) state: State,
    /// Where to dial; `None` if the peer listens nowhere.
    pub(super) address: Option<SocketAddr>,
    pub(super) cookie: u64,
    /// 0: the peer has not told one.
    pub(super) peer_cookie: u64,
    pub(super) peer_nonce: Option<u64>,
    /// Attempts of the peer up to this one are void.
    pub(super) peer_attempt: u64,
    /// The number of the last attempt of our own.
    pub(super) attempt: u64,
    pub(super) carry: Option<Box<Carry>>,
    /// The transport that has the carry.
    pub(super) holder: Option<TransportId>,
    pub(super) pending: Option<Pending>,
    pub(super) failures: u32,
    /// The application knows it: it dialled it, or it was ready once.
    pub(super) shown: bool,
    /// It was ready once.
    pub(super) opened_once: bool,
    /// A refusal has been told and no transport was ready since.
    pub(super) refusal_told: bool,
    /// Somebody has something to send that no session has taken yet.
    pub(super) wanted: bool,
    pub(super) opened_at: Option<Instant>,
    pub(super) timer: Option<Instant>,
    addresses: Vec<SocketAddr>,
    instance: Option<(EntityName, u64)>,
}

impl Link {
    pub(super) fn may_dial(&self) -> bool {
        !self.policy.server && self.address.is_some()
    }

    pub(super) fn wants_transport(&self) -> bool {
        self.wanted || self.carry.as_ref().is_some_and(|carry| carry.wants_connection())
    }
}

/// All logical connections of a messenger.
///
/// - Input: [`Self::open`], [`Self::want`], [`Self::mark_down`], [`Self::mark_disposable`], [`Self::stop`] from the
///   application; [`Self::accepted`], [`Self::claim`], [`Self::answered`], [`Self::opened`], [`Self::down`] from the
///   transports; [`Self::on_timer`].
/// - Output: [`Self::poll_action`] until `None` after every input; [`Self::next_timeout`].
pub struct Table {
    pub(super) config: TableConfig,
    pub(super) random: SplitMix,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) transports: Transports,
    by_address: BTreeMap<SocketAddr, LinkId>,
    by_instance: BTreeMap<(EntityName, u64), LinkId>,
    policies: Vec<(crate::EntityKind, Policy)>,
    default_policy: Policy,
    timers: BTreeSet<(Instant, LinkId)>,
    pub(super) actions: VecDeque<Action>,
    next_link: u64,
    next_transport: u64,
    attempts: u64,
    stopping: bool,
}

impl Table {
    /// A table without links.
    pub fn new(config: TableConfig, default_policy: Policy) -> Self {
        Table {
            random: SplitMix::new(config.seed),
            config,
            links: BTreeMap::new(),
            transports: Transports::default(),
            by_address: BTreeMap::new(),
            by_instance: BTreeMap::new(),
            policies: Vec::new(),
            default_policy,
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            next_link: 0,
            next_transport: 0,
            attempts: 0,
            stopping: false,
        }
    }

    /// Sets the policy for peers of a kind.
    pub fn set_policy(&mut self, kind: crate::EntityKind, policy: Policy) {
        self.policies.retain(|(other, _)| *other != kind);
        self.policies.push((kind, policy));
    }

    /// The policy for peers of a kind; `None`: one that is not known yet.
    pub fn policy(&self, kind: Option<crate::EntityKind>) -> Policy {
        let known = self.policies.iter().find(|(other, _)| Some(*other) == kind);
        known.map_or(self.default_policy, |(_, policy)| *policy)
    }

    /// Output. What is to be done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Output. When [`Self::on_timer`] is to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many links there are.
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    /// Input. The application connects to `address`: a link that is dialled at once, or the lossless one there is.
    pub fn open(&mut self, now: Instant, address: SocketAddr, policy: Policy) -> LinkId {
        if !policy.lossy
            && let Some(id) = self.by_address.get(&address).copied()
        {
            self.want(now, id);
            return id;
        }
        let id = self.create(policy, policy.lossy, Some(address));
        if let Some(link) = self.links.get_mut(&id) {
            link.shown = true;
        }
        if !policy.lossy {
            self.key_address(id, address);
        }
        self.dial(now, id);
        id
    }

    fn create(&mut self, policy: Policy, lossy: bool, address: Option<SocketAddr>) -> LinkId {
        self.next_link += 1;
        let id = LinkId(self.next_link);
        let carry = Box::new(Carry::new(self.config.receive_credit_bytes, self.random.next_u64()));
        let link = Link {
            policy,
            lossy,
            state: State::Standby,
            address,
            cookie: self.new_cookie(),
            peer_cookie: 0,
            peer_nonce: None,
            peer_attempt: 0,
            attempt: 0,
            carry: Some(carry),
            holder: None,
            pending: None,
            failures: 0,
            shown: false,
            opened_once: false,
            refusal_told: false,
            wanted: false,
            opened_at: None,
            timer: None,
            addresses: Vec::new(),
            instance: None,
        };
        self.links.insert(id, link);
        id
    }

    pub(super) fn new_cookie(&mut self) -> u64 {
        self.random.next_u64().max(1)
    }

    fn new_transport(&mut self) -> TransportId {
        self.next_transport += 1;
        TransportId(self.next_transport)
    }

    pub(super) fn set_timer(&mut self, id: LinkId, at: Option<Instant>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(old) = core::mem::replace(&mut link.timer, at) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    fn key_address(&mut self, id: LinkId, address: SocketAddr) {
        if let Some(link) = self.links.get_mut(&id)
            && !self.by_address.contains_key(&address)
        {
            self.by_address.insert(address, id);
            link.addresses.push(address);
        }
    }

    /// Makes the link known under all that the peer says of itself.
    fn register(&mut self, id: LinkId, peer: &Peer) {
        for address in &peer.addresses {
            self.key_address(id, *address);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        link.peer_nonce = Some(peer.nonce);
        link.address = link.address.or(peer.addresses.first().copied());
        let key = (peer.name, peer.nonce);
        if let Some(old) = link.instance.replace(key) {
            self.by_instance.remove(&old);
        }
        self.by_instance.insert(key, id);
    }

    fn find(&self, peer: &Peer) -> Option<LinkId> {
        let by_address = peer.addresses.iter().find_map(|address| self.by_address.get(address));
        by_address.or_else(|| self.by_instance.get(&(peer.name, peer.nonce))).copied()
    }

    /// Begins an attempt.
    pub(super) fn dial(&mut self, now: Instant, id: LinkId) {
        let transport = self.new_transport();
        let Some(link) = self.links.get_mut(&id) else { return };
        let (Some(address), Some(carry)) = (link.address, link.carry.as_mut()) else { return };
        self.attempts += 1;
        link.attempt = self.attempts;
        link.state = State::Dialling(transport);
        let mut terms = SessionTerms {
            lossy: link.policy.lossy,
            cookie: link.cookie,
            peer_cookie: link.peer_cookie,
            attempt: link.attempt,
            ..SessionTerms::default()
        };
        carry.state_in(&mut terms);
        self.transports.insert(transport, id);
        self.actions.push_back(Action::Dial { link: id, transport, address, terms });
        self.set_timer(id, Some(now + self.config.attempt_timeout));
    }

    /// A dialler's attempt numbers go up beyond `attempt`.
    pub(super) fn raise_attempts(&mut self, attempt: u64) {
        self.attempts = self.attempts.max(attempt);
    }

    /// Input. A transport was accepted; its name.
    pub fn accepted(&mut self) -> Option<TransportId> {
        (!self.stopping).then(|| self.new_transport())
    }

    fn decline(&mut self, transport: TransportId, code: CloseCode) {
        self.actions.push_back(Action::Decline { transport, code });
    }

    /// Input. The peer on an accepted transport says which session it comes for. The answer is an action, at once or
    /// when the transport before has let go.
    pub fn claim(&mut self, now: Instant, transport: TransportId, peer: &Peer, terms: &SessionTerms) {
        if self.stopping {
            return self.decline(transport, CloseCode::Finished);
        }
        let policy = self.policy(Some(peer.name.kind));
        let lossy = policy.lossy || terms.lossy;
        let known = if lossy && !policy.registered { None } else { self.find(peer) };
        match known {
            Some(id) if lossy || self.links[&id].lossy => {
                self.end(id, Some(Notice::Reset));
                self.admit_new(transport, peer, terms, policy, lossy);
            }
            Some(id) => self.claim_known(now, transport, peer, terms, id),
            None => self.admit_new(transport, peer, terms, policy, lossy),
        }
    }

    fn admit_new(
        &mut self,
        transport: TransportId,
        peer: &Peer,
        terms: &SessionTerms,
        policy: Policy,
        lossy: bool,
    ) {
        if terms.peer_cookie != 0 {
            return self.decline(transport, CloseCode::UnknownSession);
        }
        let id = self.create(policy, lossy, peer.addresses.first().copied());
        if !lossy || policy.registered {
            self.register(id, peer);
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.peer_attempt = terms.attempt;
        }
        self.enter(id, Pending { transport, start: Start::Fresh, peer_cookie: terms.cookie });
    }

    fn claim_known(
        &mut self,
        now: Instant,
        transport: TransportId,
        peer: &Peer,
        terms: &SessionTerms,
        id: LinkId,
    ) {
        let own_wins = (self.config.name, self.config.nonce) < (peer.name, peer.nonce);
        let Some(link) = self.links.get_mut(&id) else { return };
        let same_life = link.peer_nonce == Some(peer.nonce);
        if same_life && terms.attempt <= link.peer_attempt {
            let last = link.peer_attempt;
            return self.decline(transport, CloseCode::Stale(last));
        }
        if let State::Dialling(own) = link.state {
            if own_wins {
                return self.decline(transport, CloseCode::Wait);
            }
            self.transports.remove(own);
            self.actions.push_back(Action::Release { transport: own });
        }
        let known_to_peer = terms.peer_cookie == link.cookie;
        let start = match terms.peer_cookie {
            0 if link.peer_cookie == terms.cookie => Start::Resumed,
            0 if link.peer_cookie == 0 => Start::Fresh,
            0 => Start::Renewed,
            // The peer may have had our cookie from an answer whose sender, this end, never learned that it came.
            _ if known_to_peer && [0, terms.cookie].contains(&link.peer_cookie) => Start::Resumed,
            _ => {
                // The peer comes back without the session that it thinks of.
                link.state = if let State::Dialling(_) = link.state { State::Waiting } else { link.state };
                if link.state == State::Waiting {
                    self.set_timer(id, Some(now + self.config.backoff.max));
                }
                return self.decline(transport, CloseCode::UnknownSession);
            }
        };
        link.peer_attempt = terms.attempt;
        self.register(id, peer);
        self.enter(id, Pending { transport, start, peer_cookie: terms.cookie });
    }

    /// An accepted transport gets the session, as soon as nobody else has it.
    fn enter(&mut self, id: LinkId, pending: Pending) {
        self.set_timer(id, None);
        let Some(link) = self.links.get_mut(&id) else { return };
        self.transports.insert(pending.transport, id);
        link.state = State::Entering(pending.transport);
        if let Some(replaced) = link.pending.replace(pending) {
            self.transports.remove(replaced.transport);
            self.actions
                .push_back(Action::Decline { transport: replaced.transport, code: CloseCode::Replaced });
        }
        match link.holder {
            Some(holder) => self.actions.push_back(Action::Release { transport: holder }),
            None => self.admit_pending(id),
        }
    }

    /// The carry is here: the transport that waits for it gets it.
    pub(super) fn admit_pending(&mut self, id: LinkId) {
        let Some(Pending { transport, start, peer_cookie }) =
            self.links.get_mut(&id).and_then(|link| link.pending.take())
        else {
            return;
        };
        if start == Start::Renewed {
            self.renew(id);
        }
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(carry) = link.carry.take() else { return };
        link.holder = Some(transport);
        link.peer_cookie = peer_cookie;
        let admission = Admission {
            carry: Some(carry),
            lossy: link.lossy,
            resumed: start == Start::Resumed,
            cookie: link.cookie,
            attempt: self.attempts,
        };
        self.actions.push_back(Action::Admit { transport, link: id, admission: Box::new(admission) });
    }

    /// The peer has lost its side of the session: ours begins anew too.
    pub(super) fn renew(&mut self, id: LinkId) {
        let cookie = self.new_cookie();
        let Some(link) = self.links.get_mut(&id) else { return };
        link.cookie = cookie;
        link.peer_cookie = 0;
        let Some(carry) = link.carry.as_mut() else { return };
        if link.policy.reset_check {
            carry.discard();
            let released = carry.take_released();
            self.actions.push_back(Action::Discarded { link: id, released });
            // One that never was ready has lost nothing that the application knows of.
            if link.opened_once {
                self.actions.push_back(Action::Notify { link: id, notice: Notice::RemoteReset });
            }
        } else {
            carry.renew();
        }
    }

    /// Input. The peer has taken up the session of a dialled transport. What the transport goes on with; `None` if it
    /// no longer counts and must be reset.
    pub fn answered(
        &mut self,
        transport: TransportId,
        peer: &Peer,
        terms: &SessionTerms,
    ) -> Option<Box<Carry>> {
        let id = self.transports.link(transport)?;
        let link = self.links.get_mut(&id).filter(|link| link.state == State::Dialling(transport))?;
        link.lossy |= terms.lossy;
        link.peer_cookie = terms.cookie;
        link.peer_attempt = terms.attempt;
        let carry = link.carry.take()?;
        link.holder = Some(transport);
        if !link.lossy {
            self.register(id, peer);
        }
        Some(carry)
    }

    /// Input. Both sides are ready on a transport.
    pub fn opened(&mut self, now: Instant, transport: TransportId) {
        let Some(id) = self.transports.link(transport) else { return };
        let Some(link) = self.links.get_mut(&id).filter(|link| link.holder == Some(transport)) else {
            return;
        };
        let notice = match link.state {
            State::Dialling(own) if own == transport => Notice::Connected,
            State::Entering(theirs) if theirs == transport => Notice::Accepted,
            _ => return,
        };
        link.state = State::Open(transport);
        link.opened_at = Some(now);
        link.shown = true;
        link.opened_once = true;
        link.wanted = false;
        link.refusal_told = false;
        self.set_timer(id, None);
        self.actions.push_back(Action::Notify { link: id, notice });
    }

    /// Input. There is something to send on the link.
    pub fn want(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.wanted = true;
        if link.state == State::Standby && link.may_dial() {
            self.dial(now, id);
        }
    }

    /// Input. The application has no more use for the link. Its transport, if there is one, closes in order by itself.
    pub fn mark_down(&mut self, id: LinkId) {
        self.forget(id, None);
    }

    /// Input. The link shall end with its transport from here on.
    pub fn mark_disposable(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.lossy = true;
            if link.state == State::Standby {
                self.end(id, Some(Notice::Reset));
            }
        }
    }

    /// The transports that are for a link.
    pub fn transports_of(&self, id: LinkId) -> Vec<TransportId> {
        self.transports.of(id)
    }

    /// Whether the peer of a link is still to get messages, as far as is known here: what a session has on a transport
    /// counts as some.
    pub fn has_messages(&self, id: LinkId) -> bool {
        let carry = self.links.get(&id).map(|link| link.carry.as_ref());
        carry.is_some_and(|carry| carry.is_none_or(|carry| carry.has_messages()))
    }

    /// Input. No more links.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Input. Time has passed.
    pub fn on_timer(&mut self, now: Instant) {
        while let Some((_, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.set_timer(id, None);
            self.on_link_timer(now, id);
        }
    }

    /// The link has ended: forgets it, resets its transports, tells the application.
    pub(super) fn end(&mut self, id: LinkId, notice: Option<Notice>) {
        let transports = self.transports_of(id);
        let shown = self.links.get(&id).is_some_and(|link| link.shown);
        self.forget(id, notice.filter(|_| shown));
        for transport in transports {
            self.actions.push_back(Action::Release { transport });
        }
    }

    fn forget(&mut self, id: LinkId, notice: Option<Notice>) {
        self.set_timer(id, None);
        let Some(link) = self.links.remove(&id) else { return };
        for address in &link.addresses {
            self.by_address.remove(address);
        }
        if let Some(instance) = link.instance.filter(|key| self.by_instance.get(key) == Some(&id)) {
            self.by_instance.remove(&instance);
        }
        for transport in self.transports.of(id) {
            self.transports.remove(transport);
        }
        self.actions.push_back(Action::Ended { link: id, notice });
    }
}
