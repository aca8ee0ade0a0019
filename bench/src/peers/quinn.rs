//! QUIC: heartbeats on a stream of high priority, or in datagrams, of the connection that carries the load.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use outrider_drivers::netns::NetNamespace;
use outrider_stack::tcp::congestion::Algorithm;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt};

use super::{End, Retransmits, Shared, Turns};
use crate::error::BenchError;
use crate::node::now;
use crate::under_load::{OPS, PART_BYTES, PORT, RECEIVER, SENDER, Stamp, Variant};

/// As many bytes as the out-of-band heartbeat of all ops carries.
const HEARTBEAT_BYTES: usize = PART_BYTES * OPS.len();
/// Of the stream of heartbeats; the load keeps the default, zero.
const PRIORITY: i32 = 1;
/// Who the receiver says it is.
const NAME: &str = "receiver";
/// What is read of a stream at once, at most.
const CHUNK_BYTES: usize = 64 << 10;

/// Connects two ends and begins to send load and heartbeats.
pub(super) fn start(
    shared: &Arc<Shared>,
    [near, far]: &[NetNamespace; 2],
    turns: Turns,
) -> Result<([End; 2], Retransmits), BenchError> {
    let (certificate, key) = identity().map_err(|fault| shared.failed(&fault))?;
    let (receiver, ()) = End::start(far, shared, {
        let (shared, certificate) = (Arc::clone(shared), certificate.clone());
        || async move {
            let mut config = ServerConfig::with_single_cert(vec![certificate], key)
                .map_err(|error| format!("cannot use its certificate: {error}"))?;
            config.transport_config(transport(&shared));
            let endpoint = Endpoint::server(config, SocketAddr::new(RECEIVER, PORT))
                .map_err(|error| format!("cannot listen: {error}"))?;
            shared.spawn(receive(Arc::clone(&shared), endpoint));
            Ok(())
        }
    })?;
    let (sender, connection) = End::start(near, shared, {
        let shared = Arc::clone(shared);
        || async move { connect(&shared, certificate, turns).await }
    })?;
    Ok(([sender, receiver], Box::new(move || connection.stats().path.lost_packets)))
}

/// A key, and a certificate that is signed with it.
fn identity() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), String> {
    let own = rcgen::generate_simple_self_signed([NAME.to_owned()])
        .map_err(|error| format!("cannot make a certificate: {error}"))?;
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    Ok((own.cert.into(), key))
}

/// The load is held by the flow control of its stream and by nothing that heartbeats share, so that these never wait
/// for room.
fn transport(shared: &Shared) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let budget = shared.point.send_budget.0;
    transport
        .stream_receive_window(VarInt::from_u64(budget).unwrap_or(VarInt::MAX))
        .receive_window(VarInt::MAX)
        .send_window(budget.saturating_mul(2));
    match shared.point.congestion {
        Algorithm::Bbr => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
        _ => transport.congestion_controller_factory(Arc::new(CubicConfig::default())),
    };
    Arc::new(transport)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The end that receives: takes one connection, and all that comes by it.
async fn receive(shared: Arc<Shared>, endpoint: Endpoint) -> Result<(), String> {
    let incoming = endpoint.accept().await.ok_or("the endpoint was closed")?;
    let connection = incoming.await.map_err(text)?;
    match shared.variant {
        Variant::QuinnDatagram => {
            shared.spawn(answer_datagrams(Arc::clone(&shared), connection.clone()));
        }
        _ => shared.spawn(answer_stream(Arc::clone(&shared), connection.clone())),
    }
    let mut load = connection.accept_uni().await.map_err(text)?;
    while let Some(chunk) = load.read_chunk(CHUNK_BYTES, true).await.map_err(text)? {
        shared.tally.payload_received(chunk.bytes.len());
    }
    Ok(())
}

async fn answer_stream(shared: Arc<Shared>, connection: Connection) -> Result<(), String> {
    let (mut send, mut receive) = connection.accept_bi().await.map_err(text)?;
    send.set_priority(PRIORITY).map_err(text)?;
    let mut heartbeat = [0; HEARTBEAT_BYTES];
    loop {
        receive.read_exact(&mut heartbeat).await.map_err(text)?;
        count(&shared, &heartbeat);
        send.write_all(&heartbeat).await.map_err(text)?;
    }
}

async fn answer_datagrams(shared: Arc<Shared>, connection: Connection) -> Result<(), String> {
    loop {
        let heartbeat = connection.read_datagram().await.map_err(text)?;
        count(&shared, &heartbeat);
        connection.send_datagram(heartbeat).map_err(text)?;
    }
}

/// Counts a heartbeat that has arrived.
fn count(shared: &Shared, heartbeat: &[u8]) {
    if let Some(stamp) = Stamp::decode(heartbeat) {
        shared.tally.heartbeat_received(now(), &[stamp]);
    }
}

/// Counts an answer.
fn count_echo(shared: &Shared, heartbeat: &[u8]) {
    if let Some(stamp) = Stamp::decode(heartbeat) {
        shared.tally.echoed(stamp.message_due, now() - stamp.due);
    }
}

/// The end that sends.
async fn connect(
    shared: &Arc<Shared>,
    certificate: CertificateDer<'static>,
    turns: Turns,
) -> Result<Connection, String> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(text)?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots)).map_err(text)?;
    config.transport_config(transport(shared));
    let endpoint = Endpoint::client(SocketAddr::new(SENDER, 0)).map_err(text)?;
    let connection = endpoint
        .connect_with(config, SocketAddr::new(RECEIVER, PORT), NAME)
        .map_err(text)?
        .await
        .map_err(text)?;
    match shared.variant {
        Variant::QuinnDatagram => {
            shared.spawn(take_echoes(Arc::clone(shared), connection.clone()));
            shared.spawn(send_datagrams(connection.clone(), turns));
        }
        _ => send_on_stream(shared, &connection, turns).await?,
    }
    let load = connection.open_uni().await.map_err(text)?;
    shared.spawn(fill(load, shared.point.message_size.0 as usize));
    Ok(connection)
}

/// Keeps a stream full.
async fn fill(mut load: quinn::SendStream, message_bytes: usize) -> Result<(), String> {
    let content: Vec<u8> = (0..message_bytes).map(|n| n as u8).collect();
    loop {
        load.write_all(&content).await.map_err(text)?;
    }
}

/// Sends heartbeats on a stream of their own, and counts what comes back on it.
async fn send_on_stream(
    shared: &Arc<Shared>,
    connection: &Connection,
    mut turns: Turns,
) -> Result<(), String> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(text)?;
    send.set_priority(PRIORITY).map_err(text)?;
    shared.spawn(async move {
        while let Some(stamp) = turns.next().await {
            send.write_all(&stamp.encode(HEARTBEAT_BYTES)).await.map_err(text)?;
            turns.gone();
        }
        Ok(())
    });
    let counting = Arc::clone(shared);
    shared.spawn(async move {
        let mut heartbeat = [0; HEARTBEAT_BYTES];
        loop {
            receive.read_exact(&mut heartbeat).await.map_err(text)?;
            count_echo(&counting, &heartbeat);
        }
    });
    Ok(())
}

async fn send_datagrams(connection: Connection, mut turns: Turns) -> Result<(), String> {
    while let Some(stamp) = turns.next().await {
        let heartbeat: Bytes = stamp.encode(HEARTBEAT_BYTES);
        connection.send_datagram(heartbeat).map_err(text)?;
        turns.gone();
    }
    Ok(())
}

async fn take_echoes(shared: Arc<Shared>, connection: Connection) -> Result<(), String> {
    loop {
        count_echo(&shared, &connection.read_datagram().await.map_err(text)?);
    }
}
