//! One session, from its admission to its end.

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use gobroke_core::{
    Batch, CloseReason, ConnectRequest, Gate, Incoming, Outgoing, Refusal, Session, Slot,
};
use tokio::time::timeout;

use super::{
    datagram::{self, Datagram, Event, FRAME, LARGEST, NUMBERED, Nonce, REFUSED},
    encoder,
    server::{Peer, Server},
};
use crate::codec::{Frame, Inbound};

/// Runs a session whose address is proven.
pub(super) async fn run(server: Arc<Server>, peer: Arc<Peer>, slot: Slot, first: Bytes) {
    let entry = Forget(&server, &peer);
    let Some(session) = Box::pin(admit(&server, &peer, slot, first)).await else {
        return;
    };
    let mut session = session;
    {
        let (incoming, outgoing) = session.halves();
        let numbered = server.settings.numbered;
        tokio::select! {
            biased;
            () = send(outgoing, &server, &peer, numbered) => {}
            () = receive(incoming, &server, &peer) => {}
        }
    }
    drop(session);
    drop(entry);
}

/// Takes the session out of the server's lists, however it ends.
struct Forget<'a>(&'a Server, &'a Peer);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

async fn admit(server: &Server, peer: &Peer, slot: Slot, first: Bytes) -> Option<Session> {
    let mut request = ConnectRequest::from_remote(peer.origin);
    request.first_frame = (!first.is_empty()).then_some(first);
    let patience = server.settings.options.handshake_timeout;
    let refusal = match timeout(patience, server.gate.admit(slot, request)).await {
        Ok(Ok(admitted)) => {
            // Before the welcome, which opening the session sends on its way.
            server.accept(peer);
            match server
                .gate
                .open(admitted, Arc::clone(&server.encoder) as _, None)
            {
                Ok(session) => return Some(session),
                Err(refusal) => refusal,
            }
        }
        Ok(Err(refusal)) => refusal,
        Err(_) => Refusal::unavailable("the server took too long to decide; try again later"),
    };
    server.send(&refused(&peer.nonce, &refusal), peer.origin);
    None
}

/// The datagram that tells a client that it is not admitted.
pub(super) fn refused(nonce: &Nonce, refusal: &Refusal) -> Vec<u8> {
    let reason = match refusal.status() {
        429 | 503 => CloseReason::Busy,
        _ => CloseReason::Refused(refusal.reason().to_owned().into()),
    };
    let mut out = Vec::new();
    datagram::write(&mut out, REFUSED, &[nonce, &encoder::close(&reason)]);
    out
}

/// Writes what goes to the client, a frame a datagram, until it is closed.
async fn send(mut outgoing: Outgoing<'_>, server: &Server, peer: &Peer, numbered: bool) {
    let mut number = 0_u32;
    while let Some(frames) = outgoing.next().await {
        let to = peer.address().unwrap_or(peer.origin);
        let mut bytes = Vec::new();
        for frame in frames.iter() {
            // The encoder writes nothing that is empty.
            let Some((&kind, body)) = frame.split_first() else {
                continue;
            };
            if numbered && kind == FRAME {
                number = number.wrapping_add(1);
                let parts = [&peer.id[..], &number.to_be_bytes(), body];
                datagram::write(&mut bytes, NUMBERED, &parts);
            } else {
                datagram::write(&mut bytes, kind, &[&peer.id, body]);
            }
            if bytes.len() > LARGEST {
                server.gate.count_bad_input("udp_too_large");
            } else if !send_one(server, &bytes, to).await {
                return;
            }
            outgoing.written(frame.len());
        }
    }
}

/// Sends a datagram, and waits where the socket is full; says whether that was not too long.
async fn send_one(server: &Server, datagram: &[u8], to: SocketAddr) -> bool {
    let sent = match server.socket.try_send_to(datagram, to) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let stall = server.settings.options.write_stall;
            match timeout(stall, server.socket.send_to(datagram, to)).await {
                Ok(sent) => sent,
                Err(_) => return false,
            }
        }
        sent => sent,
    };
    // It is lost, as datagrams may be; whoever is not there any more is found by the ping.
    if let Err(error) = sent {
        tracing::debug!(%error, %to, "a datagram was not sent");
    }
    true
}

/// Hands what came to the router, until the client is closed; then it waits for ever, while what is left is sent.
async fn receive(mut incoming: Incoming<'_>, server: &Server, peer: &Peer) {
    let mut newest = None;
    let mut batch = Batch::new();
    'open: loop {
        let mut end = None;
        for datagram in peer.inbox.take().await {
            let Some(Datagram::Of(_, event)) = Datagram::read(&datagram) else {
                continue;
            };
            let frame = match event {
                Event::Frame(frame) => frame,
                Event::Numbered(number, frame) => {
                    if newest.is_some_and(|newest| !is_newer(number, newest)) {
                        server.gate.count_bad_input("udp_old");
                        continue;
                    }
                    newest = Some(number);
                    frame
                }
                Event::Close(code) => {
                    end = Some(CloseReason::Peer(code));
                    break;
                }
                Event::Ping | Event::Pong | Event::Moved(_) => continue,
            };
            if let Err(reason) = decode(frame, server, &mut batch) {
                end = Some(reason);
                break;
            }
        }
        if batch.is_empty() {
            incoming.heard();
        } else if Box::pin(incoming.receive(&mut batch)).await.is_err() {
            break 'open;
        }
        if let Some(reason) = end {
            incoming.close(reason);
            break 'open;
        }
        tokio::task::consume_budget().await;
    }
    std::future::pending::<()>().await;
}

/// Whether a number comes after another; they wrap (RFC 1982).
fn is_newer(number: u32, than: u32) -> bool {
    (number.wrapping_sub(than) as i32) > 0
}

fn decode(frame: &[u8], server: &Server, batch: &mut Batch) -> Result<(), CloseReason> {
    let gate: &Gate = &server.gate;
    if frame.len() > server.settings.options.max_message {
        gate.count_bad_input("too_big");
        return Err(CloseReason::TooBig);
    }
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        server.settings.codec.decode(Frame::Binary(frame))
    }));
    match decoded {
        Err(_) => {
            gate.count_panic();
            return Err(CloseReason::Internal);
        }
        Ok(Ok(Inbound::Message(message))) => batch.push(message),
        Ok(Ok(Inbound::Ping)) => {
            let answer = server.encoder.own_pong();
            if !answer.is_empty() {
                batch.push_frame(answer);
            }
        }
        Ok(Ok(Inbound::Pong)) => {}
        Ok(Err(error)) => {
            gate.count_bad_input(error.code());
            batch.push_error(error.code(), error.message().to_owned(), error.id());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        assert!(is_newer(1, 0));
        assert!(is_newer(0, u32::MAX));
        assert!(is_newer(5, u32::MAX - 5));
        assert!(!is_newer(0, 0));
        assert!(!is_newer(u32::MAX, 0));
    }
}
