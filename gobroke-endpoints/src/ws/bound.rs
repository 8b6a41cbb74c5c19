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
use tokio::{net::TcpStream, time::timeout};

use super::{handshake::refused, server::Server};
use crate::stream::Listener;

/// How long a request's head may be, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;

pub(super) async fn serve(address: &str, server: Arc<Server>) -> Result<(), EndpointError> {
    let mut listener = Listener::bind(address, &server.gate).await?;
    while let Some((stream, remote)) = listener.next(&server.gate).await {
        match server.settings.slot(&server.gate, Some(remote)) {
            Ok(slot) => server
                .gate
                .spawn(handshake(Arc::clone(&server), stream, remote, slot)),
            Err(refusal) => turn_away(&stream, &refusal),
        }
    }
    Ok(())
}

/// Reads one request and answers it. Ends then; an accepted connection runs on in a task of its own.
async fn handshake(server: Arc<Server>, mut stream: TcpStream, remote: SocketAddr, mut slot: Slot) {
    let patience = server.settings.options.handshake_timeout;
    let greeting = server
        .settings
        .greet(&server.gate, &mut stream, remote, &mut slot);
    let peer = match timeout(patience, greeting).await {
        Ok(Some(Ok(peer))) => peer,
        Ok(Some(Err(refusal))) => return turn_away(&stream, &refusal),
        Ok(None) => return,
        Err(_) => return server.gate.count_bad_input("handshake"),
    };
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
            tracing::debug!(%error, %remote, "a handshake failed");
        }
        Err(_) => {
            server.gate.count_bad_input("handshake");
            tracing::debug!(%remote, "a handshake took too long");
        }
    }
}

/// Answers a connection that there is no room for, as far as that needs no waiting.
fn turn_away(stream: &TcpStream, refusal: &Refusal) {
    let answer = refused(refusal);
    let head = format!(
        "HTTP/1.1 {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}",
        answer.status(),
        refusal.reason().len(),
        refusal.reason()
    );
    // A fresh socket takes a few hundred bytes; where it does not, its end says enough.
    let _ = stream.try_write(head.as_bytes());
}
