//! A connection until it is one of HTTP, and what a request says of who sends it.

use std::net::SocketAddr;

use gobroke_core::{ConnectRequest, Gate, Refusal, Slot};
use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue},
};
use tokio::{net::TcpStream, time::timeout};

use super::refused;
use crate::stream::{Peer, Secured, Settings};

/// Reads what stands before the first request: a proxy's header, TLS. `None` where that is the connection's end.
pub(crate) async fn begin(
    settings: &Settings,
    gate: &Gate,
    mut stream: TcpStream,
    remote: SocketAddr,
    slot: &mut Slot,
) -> Option<(Secured, Peer)> {
    let beginning = async {
        match settings.greet(gate, &mut stream, remote, slot).await? {
            Ok(mut peer) => {
                let stream = settings.secure(gate, stream, &mut peer).await?;
                Some((stream, peer))
            }
            Err(refusal) => {
                turn_away(settings, &stream, &refusal);
                None
            }
        }
    };
    let begun = timeout(settings.options.handshake_timeout, beginning).await;
    begun.unwrap_or_else(|_| {
        gate.count_bad_input("handshake");
        None
    })
}

/// Answers a connection that there is no room for, as far as that needs no waiting.
pub(crate) fn turn_away(settings: &Settings, stream: &TcpStream, refusal: &Refusal) {
    // Nothing can be said before a TLS handshake.
    if settings.is_tls() {
        return;
    }
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

/// What the `on_connect` hook is told of a request.
pub(crate) fn connect_request(uri: &Uri, headers: &HeaderMap, peer: &Peer) -> ConnectRequest {
    let mut connect = peer.connect_request();
    connect.path = Some(uri.path().to_owned());
    connect.query = uri.query().map(str::to_owned);
    let readable = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((
            name.as_str().to_owned(),
            std::str::from_utf8(value.as_bytes()).ok()?.to_owned(),
        ))
    };
    connect.headers = headers.iter().filter_map(readable).collect();
    connect
}
