//! From a request to a running connection, the same for a bound and for a mounted endpoint: [`Server`].

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gobroke_core::{Admitted, Gate, Refusal, Slot};
use hyper::{
    Request,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::{
    rt::TokioIo,
    server::conn::auto::upgrade::{Parts, downcast},
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    decoder::MessageDecoder, deflate::Agreed, encoder::FrameEncoder, handshake::Handshake,
};
use crate::stream::{Peer, Reader, Settings, run, run_through_task, split, tune};
use crate::web::{Text, refused};

/// What the connections of an endpoint share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) gate: Gate,
    pub(super) settings: Settings,
    path: Option<String>,
    encoder: Arc<FrameEncoder>,
    /// Those that compress, one for each way to: made when the first client asks for it.
    deflating: [OnceLock<Arc<FrameEncoder>>; Agreed::COUNT],
}

impl Server {
    pub(super) fn new(gate: Gate, settings: &Settings, path: Option<String>) -> Arc<Self> {
        let encoder = Arc::new(FrameEncoder::new(Arc::clone(&settings.codec), None));
        Arc::new(Self {
            gate,
            settings: settings.clone(),
            path,
            encoder,
            deflating: Default::default(),
        })
    }

    /// Answers a request. Where the answer is 101, the connection runs on in a task of its own from when the HTTP
    /// server lets go of it.
    pub(super) async fn answer<B>(
        self: Arc<Self>,
        request: &mut Request<B>,
        peer: Peer,
        slot: impl FnOnce() -> Result<Slot, Refusal>,
    ) -> Text {
        let handshake = match Handshake::read(
            request,
            self.path.as_deref(),
            self.settings.codec.subprotocol(),
            self.settings.deflate,
        ) {
            Ok(handshake) => handshake,
            Err(answer) => {
                self.gate.count_bad_input("handshake");
                return *answer;
            }
        };
        if !self
            .settings
            .origins
            .allow(request.headers(), request.uri())
        {
            self.gate.count_bad_input("foreign_origin");
            return refused(&Refusal::forbidden("a page from elsewhere may not connect"));
        }
        let counted = slot().and_then(|mut slot| {
            let peer = self
                .settings
                .client_of(peer, request.headers(), &mut slot)?;
            Ok((slot, peer))
        });
        let (slot, peer) = match counted {
            Ok(counted) => counted,
            Err(refusal) => return refused(&refusal),
        };
        let admission = self
            .gate
            .admit(slot, handshake.connect_request(request, &peer));
        match timeout(self.settings.options.handshake_timeout, admission).await {
            Ok(Ok(admitted)) => {
                let upgrade = hyper::upgrade::on(request);
                let deflate = handshake.deflate;
                self.gate
                    .clone()
                    .spawn(self.upgraded(upgrade, admitted, deflate));
                handshake.accepted()
            }
            Ok(Err(refusal)) => refused(&refusal),
            Err(_) => refused(&Refusal::unavailable(
                "the server took too long to decide; try again later",
            )),
        }
    }

    /// The connection, once the HTTP server lets go of it.
    async fn upgraded(
        self: Arc<Self>,
        upgrade: OnUpgrade,
        admitted: Admitted,
        deflate: Option<Agreed>,
    ) {
        // It does not come where the client leaves before the answer is written.
        let upgraded = match timeout(self.settings.options.handshake_timeout, upgrade).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => return tracing::debug!(%error, "a connection broke in the handshake"),
            Err(_) => {
                return tracing::debug!(
                    "a connection was not handed over in time after its handshake"
                );
            }
        };
        self.start(upgraded, admitted, deflate);
    }

    /// What encodes for connections with this agreement: the same for all of them, so that it encodes once for all.
    fn encoder(&self, deflate: Option<Agreed>) -> Arc<FrameEncoder> {
        let Some(agreed) = deflate else {
            return Arc::clone(&self.encoder);
        };
        let codec = || Arc::clone(&self.settings.codec);
        let encoder = self.deflating[agreed.index()]
            .get_or_init(|| Arc::new(FrameEncoder::new(codec(), deflate)));
        Arc::clone(encoder)
    }

    /// Runs the connection in a task of its own, which is small: the one that waited for it ends here.
    fn start(&self, upgraded: Upgraded, admitted: Admitted, deflate: Option<Agreed>) {
        let gate = self.gate.clone();
        let message_timeout = self.settings.message_timeout;
        let encoder = self.encoder(deflate);
        let codec = Arc::clone(&self.settings.codec);
        let decoder = MessageDecoder::new(codec, Arc::clone(&encoder), &self.settings.limits());
        match tcp(upgraded) {
            Ok((stream, first)) => {
                tune(&stream);
                let (read, write) = split(stream);
                // Refused where the router stops meanwhile; the stream is closed with the refusal.
                let Ok(session) = gate.open(admitted, encoder, Some(Box::new(write))) else {
                    return;
                };
                let reader = Reader::new(&gate, read, decoder, message_timeout, first.to_vec());
                self.gate.spawn(run(gate, session, reader));
            }
            Err(upgraded) => {
                let (read, write) = tokio::io::split(TokioIo::new(upgraded));
                let Ok(session) = gate.open(admitted, encoder, None) else {
                    return;
                };
                let reader = Reader::new(&gate, read, decoder, message_timeout, Vec::new());
                self.gate
                    .spawn(run_through_task(gate, session, reader, write));
            }
        }
    }
}

/// The TCP stream inside, and what was read of it already, where it is one: under hyper's own server for HTTP/1, or
/// under the one of hyper-util that axum uses.
fn tcp(upgraded: Upgraded) -> Result<(TcpStream, Bytes), Upgraded> {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    let Parts { io, read_buf, .. } = downcast::<TokioIo<TcpStream>>(upgraded)?;
    Ok((io.into_inner(), read_buf))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::{rt::TokioExecutor, server::conn::auto};
    use tokio::{io::AsyncWriteExt, net::TcpListener, sync::mpsc};

    use super::*;

    #[tokio::test]
    async fn a_plain_stream_is_taken_over_from_both_servers_for_hyper() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for automatic in [false, true] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            client
                .write_all(b"GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
                .await
                .unwrap();
            let stream = TokioIo::new(listener.accept().await.unwrap().0);
            let (upgrades, mut upgraded) = mpsc::unbounded_channel();
            let service = service_fn(move |mut request: Request<Incoming>| {
                upgrades.send(hyper::upgrade::on(&mut request)).unwrap();
                let mut answer = Response::new(String::new());
                *answer.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
                async { Ok::<_, Infallible>(answer) }
            });
            if automatic {
                auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(stream, service)
                    .await
                    .unwrap();
            } else {
                http1::Builder::new()
                    .serve_connection(stream, service)
                    .with_upgrades()
                    .await
                    .unwrap();
            }
            let upgraded = upgraded.recv().await.unwrap().await.unwrap();
            assert!(tcp(upgraded).is_ok(), "automatic: {automatic}");
        }
    }

    #[test]
    fn an_idle_connection_is_a_small_task() {
        fn size<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(run::<crate::stream::ReadHalf, MessageDecoder>);
        assert!(size <= 704, "{size}");
    }
}
