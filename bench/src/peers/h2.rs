//! HTTP/2: heartbeats are PING frames (RFC 9113 section 6.7) of the connection whose only stream carries the load.
//!
//! The library answers a PING by itself and does not tell the receiver of it, so there is no delay one way: a heartbeat
//! counts as received when its answer is back.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::{Ping, PingPong, RecvStream, SendStream, client, server};
use http::Request;
use outrider_drivers::kernel_socket::{set_congestion_control, tcp_information};
use outrider_drivers::netns::NetNamespace;
use tokio::net::{TcpListener, TcpStream};

use super::{End, Retransmits, Shared, Turns};
use crate::error::BenchError;
use crate::node::now;
use crate::under_load::{PORT, RECEIVER};

/// Largest window that HTTP/2 knows (RFC 9113 section 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// Connects two ends and begins to send load and heartbeats.
pub(super) fn start(
    shared: &Arc<Shared>,
    [near, far]: &[NetNamespace; 2],
    turns: Turns,
) -> Result<([End; 2], Retransmits), BenchError> {
    let (receiver, ()) = End::start(far, shared, {
        let shared = Arc::clone(shared);
        || async move {
            let listener = TcpListener::bind(SocketAddr::new(RECEIVER, PORT)).await.map_err(text)?;
            shared.spawn(receive(Arc::clone(&shared), listener));
            Ok(())
        }
    })?;
    let (sender, socket) = End::start(near, shared, {
        let shared = Arc::clone(shared);
        || async move { connect(&shared, turns).await }
    })?;
    let retransmits = move || tcp_information(&socket).map_or(0, |known| u64::from(known.retransmits));
    Ok(([sender, receiver], Box::new(retransmits)))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Sets the socket up, which otherwise is as the system has it.
fn settle(shared: &Shared, stream: &TcpStream) -> Result<(), String> {
    stream.set_nodelay(true).map_err(text)?;
    set_congestion_control(stream, shared.point.congestion.name()).map_err(text)
}

/// The end that receives: takes one connection, and the load of its only stream.
async fn receive(shared: Arc<Shared>, listener: TcpListener) -> Result<(), String> {
    let (stream, _) = listener.accept().await.map_err(text)?;
    settle(&shared, &stream)?;
    let window = u32::try_from(shared.point.send_budget.0).unwrap_or(WINDOW_MAX).min(WINDOW_MAX);
    let mut connection = server::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(window)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(text)?;
    // Whoever asks for requests lets the connection work, PING included.
    while let Some(request) = connection.accept().await {
        let (request, respond) = request.map_err(text)?;
        let counting = Arc::clone(&shared);
        shared.spawn(async move {
            let taken = take(&counting, request.into_body()).await;
            // Dropped any sooner it would reset the stream.
            drop(respond);
            taken
        });
    }
    Ok(())
}

async fn take(shared: &Shared, mut load: RecvStream) -> Result<(), String> {
    while let Some(data) = load.data().await {
        let data = data.map_err(text)?;
        shared.tally.payload_received(data.len());
        load.flow_control().release_capacity(data.len()).map_err(text)?;
    }
    Ok(())
}

/// The end that sends; gives its socket, to be asked.
async fn connect(shared: &Arc<Shared>, turns: Turns) -> Result<std::net::TcpStream, String> {
    let stream = TcpStream::connect(SocketAddr::new(RECEIVER, PORT)).await.map_err(text)?;
    settle(shared, &stream)?;
    let stream = stream.into_std().map_err(text)?;
    let socket = stream.try_clone().map_err(text)?;
    let stream = TcpStream::from_std(stream).map_err(text)?;
    let (requests, mut connection) =
        client::Builder::new().handshake::<_, Bytes>(stream).await.map_err(text)?;
    let pings = connection.ping_pong().ok_or("the connection gives no PING")?;
    shared.spawn(async move { connection.await.map_err(text) });
    let mut requests = requests.ready().await.map_err(text)?;
    let request = Request::post(format!("http://{RECEIVER}/load")).body(()).map_err(text)?;
    let (response, load) = requests.send_request(request, false).map_err(text)?;
    let message_bytes = shared.point.message_size.0 as usize;
    shared.spawn(async move {
        let filled = fill(load, message_bytes).await;
        // Both kept until then: without them the stream is taken for abandoned, and the connection for idle.
        drop((response, requests));
        filled
    });
    shared.spawn(ping(Arc::clone(shared), pings, turns));
    Ok(socket)
}

/// Keeps a stream full.
async fn fill(mut load: SendStream<Bytes>, message_bytes: usize) -> Result<(), String> {
    let content = Bytes::from((0..message_bytes).map(|n| n as u8).collect::<Vec<u8>>());
    loop {
        load.reserve_capacity(message_bytes);
        while load.capacity() == 0 {
            poll_fn(|context| load.poll_capacity(context))
                .await
                .ok_or("the stream was closed")?
                .map_err(text)?;
        }
        let room = load.capacity().min(message_bytes);
        load.send_data(content.slice(..room), false).map_err(text)?;
    }
}

/// Sends heartbeats: of these PINGs one can be on its way at a time.
async fn ping(shared: Arc<Shared>, mut pings: PingPong, mut turns: Turns) -> Result<(), String> {
    while let Some(stamp) = turns.next().await {
        pings.ping(Ping::opaque()).await.map_err(text)?;
        shared.tally.answered(stamp.due, now() - stamp.due);
        turns.gone();
    }
    Ok(())
}
