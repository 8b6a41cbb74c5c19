//! An endpoint with an address of its own: HTTP/1.1.

use std::{net::SocketAddr, pin::pin, sync::Arc};

use gobroke_core::{EndpointError, Slot};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tower_service::Service;

use super::{
    respond::{Connection, Respond},
    server::Server,
};
use crate::{
    stream::{Listener, Peer, Secured, tune},
    web::{LONGEST_HEAD, begin, turn_away},
};

pub(super) async fn serve(address: &str, server: Arc<Server>) -> Result<(), EndpointError> {
    server.settings.prepare(&server.gate)?;
    let mut listener = Listener::bind(address, &server.gate).await?;
    while let Some((stream, remote)) = listener.next(&server.gate).await {
        match server.settings.slot(&server.gate, Some(remote)) {
            Ok(slot) => server
                .gate
                .spawn(connection(Arc::clone(&server), stream, remote, slot)),
            Err(refusal) => turn_away(&server.settings, &stream, &refusal),
        }
    }
    Ok(())
}

async fn connection(server: Arc<Server>, stream: TcpStream, remote: SocketAddr, mut slot: Slot) {
    tune(&stream);
    let begun = begin(&server.settings, &server.gate, stream, remote, &mut slot).await;
    match begun {
        Some((Secured::Plain(stream), peer)) => requests(server, stream, peer, slot).await,
        #[cfg(feature = "tls")]
        Some((Secured::Tls(stream), peer)) => requests(server, stream, peer, slot).await,
        None => {}
    }
}

/// Answers a connection's requests, until it ends or the endpoint closes. A session that it opens takes over its place
/// among the connections.
async fn requests<S>(server: Arc<Server>, stream: S, peer: Peer, slot: Slot)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = server.settings.options.handshake_timeout;
    let gate = server.gate.clone();
    let respond = Respond::new(server, Some(Connection::new(peer, slot)));
    let service = service_fn(move |request: Request<Incoming>| respond.clone().call(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = gate.closing() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        if error.is_parse() || error.is_timeout() {
            gate.count_bad_input("request");
        }
        tracing::debug!(%error, "a connection of HTTP ended");
    }
}
