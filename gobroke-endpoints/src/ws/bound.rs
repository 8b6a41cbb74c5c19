//! An endpoint with an address of its own: HTTP/1.1 for one request, the handshake.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use gobroke_core::{EndpointError, Refusal, Slot};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::server::Server;
#[cfg(feature = "tls")]
use crate::stream::tune;
use crate::{
    stream::{Listener, Peer, Secured},
    web::{LONGEST_HEAD, begin, turn_away},
};

pub(super) async fn serve(address: &str, server: Arc<Server>) -> Result<(), EndpointError> {
    server.settings.prepare(&server.gate)?;
    let mut listener = Listener::bind(address, &server.gate).await?;
    while let Some((stream, remote)) = listener.next(&server.gate).await {
        match server.settings.slot(&server.gate, Some(remote)) {
            Ok(slot) => server
                .gate
                .spawn(handshake(Arc::clone(&server), stream, remote, slot)),
            Err(refusal) => turn_away(&server.settings, &stream, &refusal),
        }
    }
    Ok(())
}

/// Runs a connection until its handshake is answered.
async fn handshake(server: Arc<Server>, stream: TcpStream, remote: SocketAddr, mut slot: Slot) {
    let begun = begin(&server.settings, &server.gate, stream, remote, &mut slot).await;
    match begun {
        Some((Secured::Plain(stream), peer)) => answer(server, stream, peer, slot).await,
        #[cfg(feature = "tls")]
        Some((Secured::Tls(stream), peer)) => {
            // A plain one is tuned when it runs; this one is out of sight then.
            tune(stream.get_ref().0);
            answer(server, stream, peer, slot).await;
        }
        None => {}
    }
}

/// Reads one request and answers it. Ends then; an accepted connection runs on in a task of its own.
async fn answer<S>(server: Arc<Server>, stream: S, peer: Peer, slot: Slot)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = server.settings.options.handshake_timeout;
    let remote = peer.remote;
    let slot = Mutex::new(Some(slot));
    let answer = service_fn(|mut request: Request<Incoming>| {
        let (server, peer) = (Arc::clone(&server), peer.clone());
        let slot = slot
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        async move {
            // There is one request a connection, so the slot is there.
            let slot = || slot.ok_or_else(|| Refusal::new(400, "open another connection for this"));
            let mut answer = server.answer(&mut request, peer, slot).await;
            // Told by the answer: hyper, told not to keep connections alive, would say so in that of the upgrade too.
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer
                    .headers_mut()
                    .append(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    let served = tokio::select! {
        served = timeout(patience, connection) => served,
        // Who has asked for nothing by then would be refused.
        () = server.gate.closing() => return,
    };
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            if error.is_parse() || error.is_timeout() || error.is_incomplete_message() {
                server.gate.count_bad_input("handshake");
            }
            tracing::debug!(%error, ?remote, "a handshake failed");
        }
        Err(_) => {
            server.gate.count_bad_input("handshake");
            tracing::debug!(?remote, "a handshake took too long");
        }
    }
}
