//! The receiving half: banner, handshake, chunks.

use std::sync::Arc;

use bytes::Bytes;
use outrider_stack::time::Instant;

use super::error::FirstBytes;
use super::{Control, Peer, Phase, RECEIVE_CREDIT_BYTES_MIN, Session, SessionError, SessionEvent};
use crate::codec::{
    AUTH_METHOD_NONE, Auth, BANNER_BYTES, Banner, BannerError, ChunkKind, CloseCode, Decoded, Hello,
    SessionTerms, decode_ack, decode_u64,
};
use crate::features::Features;
use crate::message::lane_of;

/// Messages, and bytes of them, that are acknowledged without waiting for more.
const ACK_MESSAGES: u32 = 64;
const ACK_BYTES: u32 = 256 << 10;

/// What [`Session::deliver`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// An OOB message was among the bytes.
    pub oob: bool,
    /// Bytes taken. Those left come again once the user has answered [`SessionEvent::Accepted`].
    pub taken: usize,
}

impl Session {
    /// Input. The next bytes of the stream, in order.
    ///
    /// # Errors
    /// The stream is unusable: the connection must be reset. The same error is given as
    /// [`SessionEvent::Fault`]. A peer that is merely refused is told so in order, without an error here.
    pub fn deliver(&mut self, now: Instant, bytes: &[u8]) -> Result<Delivery, SessionError> {
        self.life.last_heard = now.into();
        let mut delivery = Delivery { taken: bytes.len(), ..Delivery::default() };
        let mut rest = bytes;
        let result = self.take(now, &mut rest, &mut delivery);
        if self.phase == Phase::Answered {
            delivery.taken -= rest.len();
        }
        self.life.statistics.stream_bytes_received += delivery.taken as u64;
        self.judge(now, result).map(|()| delivery)
    }

    /// Where the next bytes of the stream belong, and how many of them, if that is known and they are of a long
    /// chunk. Who appends them there calls [`Self::placed`] instead of [`Self::deliver`].
    pub fn place(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        if self.phase == Phase::Open { self.decoder.place() } else { None }
    }

    /// Input. The next bytes of the stream are in the buffer that [`Self::place`] gave.
    ///
    /// # Errors
    /// As [`Self::deliver`].
    pub fn placed(&mut self, now: Instant, bytes: usize) -> Result<(), SessionError> {
        self.life.last_heard = now.into();
        self.life.statistics.stream_bytes_received += bytes as u64;
        let result = match self.decoder.placed() {
            Ok(Some(decoded)) => self.on_decoded(now, decoded, &mut Delivery::default()),
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        self.judge(now, result)
    }

    /// What an error of the peer leads to.
    fn judge(&mut self, now: Instant, result: Result<(), SessionError>) -> Result<(), SessionError> {
        let Err(error) = result else { return Ok(()) };
        self.phase = Phase::Over;
        self.events.push_back(SessionEvent::Fault(error));
        if let Some(code) = error.close_code() {
            self.close(now, code);
            return Ok(());
        }
        self.stop_sending(now);
        self.abort = true;
        Err(error)
    }

    fn take(&mut self, now: Instant, bytes: &mut &[u8], delivery: &mut Delivery) -> Result<(), SessionError> {
        if self.phase == Phase::Banner {
            self.take_banner(bytes)?;
        }
        while !bytes.is_empty() && !matches!(self.phase, Phase::Over | Phase::Answered) {
            if let Some(decoded) = self.decoder.decode(bytes)? {
                self.on_decoded(now, decoded, delivery)?;
            }
        }
        Ok(())
    }

    fn on_decoded(
        &mut self,
        now: Instant,
        decoded: Decoded,
        delivery: &mut Delivery,
    ) -> Result<(), SessionError> {
        match decoded {
            Decoded::Chunk { kind, id, payload } => {
                delivery.oob |= kind == ChunkKind::Oob;
                self.on_chunk(now, kind, id, &payload)
            }
            Decoded::Message { message, id, credit_bytes } => {
                self.expect_open(ChunkKind::Message)?;
                if self.closing {
                    return Ok(()); // Nobody is there to take it any more.
                }
                self.life.received[lane_of(message.priority)] = id + 1;
                self.owe_ack(now, message.payload.len());
                self.life.statistics.messages_received += 1;
                self.life.statistics.bytes_received += message.payload.len() as u64;
                self.events.push_back(SessionEvent::Message { message, arrived_at: now, credit_bytes });
                Ok(())
            }
        }
    }

    fn take_banner(&mut self, bytes: &mut &[u8]) -> Result<(), SessionError> {
        let taken = &mut self.opening().banner;
        let wanted = BANNER_BYTES - taken.len();
        let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
        taken.extend_from_slice(piece);
        let banner = Banner::decode(taken).map_err(|error| match error {
            BannerError::NotOutrider => SessionError::NotOutrider(FirstBytes::new(taken)),
            BannerError::Version(version) => SessionError::Version(version),
            BannerError::Corrupt => SessionError::BannerCorrupt,
        })?;
        *bytes = rest;
        let Some(banner) = banner else { return Ok(()) };
        let lacking = self.config.required.without(banner.supported);
        if !lacking.is_empty() {
            return Err(SessionError::PeerLacksFeatures(lacking));
        }
        let unknown = banner.required.without(self.config.supported);
        if !unknown.is_empty() {
            return Err(SessionError::PeerRequiresFeatures(unknown));
        }
        self.opening().peer_features = banner.supported;
        self.urgent_overtakes = banner.supported.contains(Features::OOB_AHEAD);
        self.speaks_oob = self.config.supported.and(banner.supported).contains(Features::OOB);
        self.phase = Phase::Hello;
        Ok(())
    }

    fn expect_open(&self, kind: ChunkKind) -> Result<(), SessionError> {
        if self.phase == Phase::Open {
            return Ok(());
        }
        Err(SessionError::UnexpectedChunk { kind, phase: self.phase.awaited() })
    }

    fn on_chunk(
        &mut self,
        now: Instant,
        kind: ChunkKind,
        id: u64,
        payload: &Bytes,
    ) -> Result<(), SessionError> {
        match (kind, self.phase) {
            (ChunkKind::Close, _) => self.on_close(now, CloseCode::decode(payload)?),
            (ChunkKind::Hello, Phase::Hello) => self.on_hello(payload)?,
            (ChunkKind::Auth, Phase::Auth) => self.on_auth(payload)?,
            (ChunkKind::Connect, Phase::Connect) => {
                let terms = SessionTerms::decode(kind, payload)?;
                self.opening().peer_terms = terms;
                self.phase = Phase::Deciding;
                if let Some(peer) = self.peer.clone().filter(|_| !self.closing) {
                    self.events.push_back(SessionEvent::Connect { peer, terms });
                }
            }
            (ChunkKind::Ready, Phase::Ready) if self.opening().is_dialler => self.on_answer(payload)?,
            (ChunkKind::Ready, Phase::Ready) => self.open(now),
            (ChunkKind::Ack, Phase::Open) if self.lossless => {
                let received = decode_ack(payload)?;
                let released = self.life.queue.acknowledge(&received).ok_or(SessionError::ImpossibleAck)?;
                self.life.released.merge(released);
                self.life.statistics.acks_received += 1;
            }
            (ChunkKind::Ack, Phase::Open) if self.closing => {}
            (ChunkKind::Oob, Phase::Open) if self.closing => {}
            (ChunkKind::Oob, Phase::Open) => self.on_oob(now, id, payload)?,
            (ChunkKind::Keepalive, Phase::Open) => {
                let keepalive_ack = Some(decode_u64(kind, payload)?);
                self.set_control(Control { keepalive_ack, ..self.control() });
            }
            (ChunkKind::KeepaliveAck, Phase::Open) => {
                let elapsed = now.since(Instant::from_nanos(decode_u64(kind, payload)?));
                self.events.push_back(SessionEvent::KeepaliveAck(elapsed));
            }
            (ChunkKind::Credit, Phase::Open) => {
                let (from, to) = (self.life.queue.credit_limit(), decode_u64(kind, payload)?);
                if to < from {
                    return Err(SessionError::CreditShrunk { from, to });
                }
                self.life.queue.set_credit_limit(to);
                self.life.statistics.credits_received += 1;
            }
            (kind, _) => {
                return Err(SessionError::UnexpectedChunk { kind, phase: self.phase.awaited() });
            }
        }
        Ok(())
    }

    fn on_hello(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let Hello { name, nonce, addresses, receive_credit_bytes, message_bytes_max } =
            Hello::decode(payload)?;
        if receive_credit_bytes < RECEIVE_CREDIT_BYTES_MIN {
            return Err(SessionError::UnusableLimits { credit_bytes: receive_credit_bytes });
        }
        let features = self.opening().peer_features;
        self.peer = Some(Arc::new(Peer { name, nonce, addresses, features, message_bytes_max }));
        self.phase = Phase::Auth;
        Ok(())
    }

    fn on_auth(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let Auth { method } = Auth::decode(payload)?;
        if method != AUTH_METHOD_NONE {
            return Err(SessionError::AuthMethod(method));
        }
        self.phase = if self.opening().is_dialler { Phase::Ready } else { Phase::Connect };
        Ok(())
    }

    /// The peer has accepted us, and said from where the session goes on.
    fn on_answer(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let terms = SessionTerms::decode(ChunkKind::Ready, payload)?;
        let opening = self.opening();
        opening.peer_terms = terms;
        if terms.peer_cookie != opening.own_terms.cookie {
            return Err(SessionError::OtherSession);
        }
        if let Some(peer) = self.peer.clone().filter(|_| !self.closing) {
            self.phase = Phase::Answered;
            self.events.push_back(SessionEvent::Accepted { peer, terms });
        }
        Ok(())
    }

    /// A message is here; the peer keeps it until it is told so.
    fn owe_ack(&mut self, now: Instant, payload_bytes: usize) {
        if !self.lossless {
            return;
        }
        let acks = &mut self.acks;
        acks.messages += 1;
        acks.bytes = acks.bytes.saturating_add(u32::try_from(payload_bytes).unwrap_or(u32::MAX));
        let enough = acks.messages >= ACK_MESSAGES || acks.bytes >= ACK_BYTES;
        let due = if enough { now } else { now + self.config.ack_delay };
        acks.due = acks.due.or_sooner(due);
    }

    fn on_close(&mut self, now: Instant, code: CloseCode) {
        self.phase = Phase::Over;
        if !self.closing {
            self.stop_sending(now);
            self.events.push_back(SessionEvent::PeerClosed(Some(code)));
        }
    }

    /// Input. No more bytes will come.
    pub fn on_peer_finished(&mut self, now: Instant) {
        self.phase = Phase::Over;
        self.peer_finished = true;
        if !self.closing {
            self.stop_sending(now);
            self.events.push_back(SessionEvent::PeerClosed(None));
        }
        self.check_ended();
    }
}
