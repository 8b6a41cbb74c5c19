//! tokio-tungstenite, as its examples do it: a channel for each client, in a map under a mutex; an echo forwards what it
//! reads, and flushes when nothing more is there.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures_channel::mpsc::{UnboundedSender, unbounded};
use futures_util::{StreamExt, TryStreamExt, future};
use gobroke_bench::{ACK, ANY, Mode, nodelay, ready, room, tls::Identity};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

type Peers = HashMap<SocketAddr, UnboundedSender<Message>>;

struct Server {
    mode: Mode,
    /// By room.
    peers: Mutex<HashMap<usize, Peers>>,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let server = Arc::new(Server {
        mode: Mode::from_args(),
        peers: Mutex::default(),
    });
    let identity = Identity::from_env();
    let config = identity.map(|identity| identity.server()).transpose()?;
    let acceptor = config.map(TlsAcceptor::from);
    let listener = TcpListener::bind(ANY).await?;
    ready(listener.local_addr()?);
    loop {
        let (stream, address) = listener.accept().await?;
        stream.set_nodelay(nodelay())?;
        let server = server.clone();
        match acceptor.clone() {
            None => drop(tokio::spawn(serve(server, stream, address))),
            Some(acceptor) => drop(tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(server, stream, address).await;
                }
            })),
        }
    }
}

#[expect(clippy::result_large_err, reason = "the type is the library's")]
async fn serve(
    server: Arc<Server>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
) {
    let mut place = 0;
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        place = room(request.uri().path());
        Ok(response)
    };
    let Ok(socket) = accept_hdr_async(stream, note).await else {
        return;
    };
    let (outgoing, incoming) = socket.split();
    if server.mode == Mode::Echo {
        let messages =
            incoming.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
        // It fails where the client is gone.
        let _ = messages.forward(outgoing).await;
        return;
    }
    if server.mode != Mode::Rooms {
        place = 0;
    }
    let (sender, receiver) = unbounded();
    let peers = || server.peers.lock().unwrap_or_else(PoisonError::into_inner);
    peers()
        .entry(place)
        .or_default()
        .insert(address, sender.clone());
    let receiving = incoming.try_for_each(|message| {
        let Message::Binary(bytes) = message else {
            return future::ok(());
        };
        let with_sender = server.mode.includes_sender();
        if let Some(peers) = peers().get(&place) {
            for (_, peer) in peers
                .iter()
                .filter(|(peer, _)| with_sender || **peer != address)
            {
                let _ = peer.unbounded_send(Message::Binary(bytes.clone()));
            }
        }
        if server.mode.acknowledges() {
            let _ = sender.unbounded_send(Message::Binary(bytes.slice(..ACK.min(bytes.len()))));
        }
        future::ok(())
    });
    let sending = receiver.map(Ok).forward(outgoing);
    future::select(pin!(receiving), pin!(sending)).await;
    if let Some(peers) = peers().get_mut(&place) {
        peers.remove(&address);
    }
}
