//! TCP: [`TcpEndpoint`].

mod decoder;
mod encoder;

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use gobroke_core::{
    Admitted, CloseReason, Encoder, Endpoint, EndpointError, EndpointOptions, ErrorFrame, Gate,
    Name, Refusal, Slot, Wire, async_trait,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use self::{decoder::FrameDecoder, encoder::FrameEncoder};
#[cfg(feature = "tls")]
use crate::stream::run_through_task;
use crate::stream::{
    Listener, Peer, Reader, Secured, Settings, bound_setters, linger, run, setters, split, tune,
};

/// Clients over TCP: each frame stands behind its length, four bytes in big-endian order.
///
/// ```text
/// 00 00 00 05  68 65 6c 6c 6f      "hello"
/// ```
///
/// What a frame means is the codec's matter:
/// - [`RawCodec`](crate::RawCodec): a frame is a payload. There are no other frames, so there is no ping and no reason
///   for a close; the connection just ends. Clients that vanish are noticed by TCP's own probes, after two minutes.
/// - [`JsonCodec`](crate::JsonCodec): a frame is a JSON object. The server asks `{"ping":{}}` after
///   [`ping_interval`](EndpointOptions::ping_interval) without a word from the client, which answers `{"pong":{}}`
///   (or sends anything else) within [`pong_timeout`](EndpointOptions::pong_timeout). Before the server ends a
///   connection it says why: `{"close":{"code":1001,"reason":"going away"}}`.
///
/// A length above [`max_message`](EndpointOptions::max_message) ends the connection at once
/// ([`CloseReason::TooBig`]; with JSON after `{"error":{"code":"too_big",..}}`), whatever was announced is not
/// allocated. A client that ends its sending half is taken for gone: what is on its way to it is still written, answers
/// that come later are not.
///
/// ```no_run
/// use gobroke_core::{Broke, Logic};
/// use gobroke_endpoints::{JsonCodec, TcpEndpoint};
///
/// # async fn program() -> Result<(), Box<dyn std::error::Error>> {
/// let broke = Broke::builder()
///     .endpoint(TcpEndpoint::bind("127.0.0.1:9000").codec(JsonCodec::to_logic("echo")))
///     .logic(Logic::dispatched("echo", |message, ctx| {
///         ctx.reply(&message.clone(), message)?;
///         Ok(())
///     }))
///     .start()
///     .await?;
/// broke.until_signal().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TcpEndpoint {
    address: String,
    first_frame: bool,
    settings: Settings,
}

impl TcpEndpoint {
    /// Listens on an address: `127.0.0.1:9000`, `[::]:9000`, `localhost:0` (any free port). Its name is `tcp`.
    pub fn bind(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            first_frame: false,
            settings: Settings::new("tcp"),
        }
    }

    /// Waits for a client's first frame before it asks whether that is admitted, and hands it to the `on_connect` hook
    /// ([`ConnectRequest::first_frame`](gobroke_core::ConnectRequest::first_frame)) and to nobody else: a token, say. It may be 16 KiB long, and has to come within
    /// [`handshake_timeout`](EndpointOptions::handshake_timeout). Default: it does not, and the first frame is like all
    /// others.
    #[must_use]
    pub fn ask_first_frame(mut self) -> Self {
        self.first_frame = true;
        self
    }

    setters!();
    bound_setters!();
}

#[async_trait]
impl Endpoint for TcpEndpoint {
    fn name(&self) -> Name {
        self.settings.name.clone()
    }

    fn options(&self) -> EndpointOptions {
        self.settings.options.clone()
    }

    async fn serve(&self, gate: Gate) -> Result<(), EndpointError> {
        self.settings.prepare(&gate)?;
        let mut listener = Listener::bind(&self.address, &gate).await?;
        let server = Arc::new(Server::new(&gate, self));
        while let Some((stream, remote)) = listener.next(&gate).await {
            match self.settings.slot(&gate, Some(remote)) {
                Ok(slot) => gate.spawn(Arc::clone(&server).connection(stream, remote, slot)),
                Err(refusal) => server.turn_away(&stream, &refusal),
            }
        }
        Ok(())
    }
}

/// How long the frame may be that admission waits for.
const LONGEST_FIRST: usize = 16 << 10;

/// Reads one frame, and nothing behind it.
async fn first_frame<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Bytes> {
    let length = stream.read_u32().await? as usize;
    if length > LONGEST_FIRST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame.into())
}

/// What the connections share.
struct Server {
    gate: Gate,
    settings: Settings,
    first_frame: bool,
    encoder: Arc<dyn Encoder>,
}

impl Server {
    fn new(gate: &Gate, endpoint: &TcpEndpoint) -> Self {
        let settings = &endpoint.settings;
        let encoder = Arc::new(FrameEncoder::new(Arc::clone(&settings.codec)));
        Self {
            gate: gate.clone(),
            settings: settings.clone(),
            first_frame: endpoint.first_frame,
            encoder,
        }
    }

    async fn connection(
        self: Arc<Self>,
        mut stream: TcpStream,
        remote: SocketAddr,
        mut slot: Slot,
    ) {
        tune(&stream);
        let beginning = async {
            let greeting = self
                .settings
                .greet(&self.gate, &mut stream, remote, &mut slot);
            match greeting.await? {
                Ok(mut peer) => {
                    let stream = self.settings.secure(&self.gate, stream, &mut peer).await?;
                    Some((stream, peer))
                }
                Err(refusal) => {
                    self.turn_away(&stream, &refusal);
                    None
                }
            }
        };
        match timeout(self.settings.options.handshake_timeout, beginning).await {
            Ok(Some((Secured::Plain(stream), peer))) => self.plain(stream, peer, slot).await,
            #[cfg(feature = "tls")]
            Ok(Some((Secured::Tls(stream), peer))) => self.encrypted(stream, peer, slot).await,
            Ok(None) => {}
            Err(_) => self.gate.count_bad_input("handshake"),
        }
    }

    /// A connection into whose stream core writes by itself.
    async fn plain(&self, mut stream: TcpStream, peer: Peer, slot: Slot) {
        let Some(admitted) = self.admitted(&mut stream, peer, slot).await else {
            return;
        };
        let (read, write) = split(stream);
        let wire = Some(Box::new(write) as Box<dyn Wire>);
        // Refused where the router stops; the wire has gone with the refusal, so there is nothing to write to.
        let Ok(session) = self.gate.open(admitted, Arc::clone(&self.encoder), wire) else {
            return;
        };
        // In a task of its own, which is small: this one ends here.
        let reader = self.reader(read);
        self.gate.spawn(run(self.gate.clone(), session, reader));
    }

    #[cfg(feature = "tls")]
    async fn encrypted<S>(&self, mut stream: S, peer: Peer, slot: Slot)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(admitted) = self.admitted(&mut stream, peer, slot).await else {
            return;
        };
        let (read, write) = tokio::io::split(stream);
        let Ok(session) = self.gate.open(admitted, Arc::clone(&self.encoder), None) else {
            return;
        };
        let reader = self.reader(read);
        self.gate
            .spawn(run_through_task(self.gate.clone(), session, reader, write));
    }

    fn reader<R: AsyncRead + Unpin>(&self, read: R) -> Reader<R, FrameDecoder> {
        let decoder = FrameDecoder::new(Arc::clone(&self.settings.codec), &self.settings.limits());
        let timeout = self.settings.message_timeout;
        Reader::new(&self.gate, read, decoder, timeout, Vec::new())
    }

    /// Asks whether a connection is admitted; one that is not has been told why.
    async fn admitted<S>(&self, stream: &mut S, peer: Peer, slot: Slot) -> Option<Admitted>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.admit(stream, peer, slot).await? {
            Ok(admitted) => Some(admitted),
            Err(refusal) => {
                self.refuse(stream, &refusal).await;
                None
            }
        }
    }

    /// Asks whether a connection is admitted; `None` where it is dropped without a word.
    async fn admit<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        peer: Peer,
        slot: Slot,
    ) -> Option<Result<Admitted, Refusal>> {
        let patience = self.settings.options.handshake_timeout;
        let mut request = peer.connect_request();
        if self.first_frame {
            match timeout(patience, first_frame(stream)).await {
                Ok(Ok(frame)) => request.first_frame = Some(frame),
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    self.gate.count_bad_input("first_frame");
                    return Some(Err(Refusal::new(413, "the first frame is too long")));
                }
                Ok(Err(_)) => return None,
                Err(_) => {
                    self.gate.count_bad_input("handshake");
                    return Some(Err(Refusal::new(
                        408,
                        "the first frame did not come in time",
                    )));
                }
            }
        }
        let admission = timeout(patience, self.gate.admit(slot, request)).await;
        Some(admission.unwrap_or_else(|_| {
            Err(Refusal::unavailable(
                "the server took too long to decide; try again later",
            ))
        }))
    }

    /// Tells a client that it is not admitted.
    async fn refuse<S>(&self, stream: &mut S, refusal: &Refusal)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // A client that takes nothing of it, or has gone, is not waited for.
        let _ = timeout(
            self.settings.options.write_stall,
            stream.write_all(&self.refusal(refusal)),
        )
        .await;
        let _ = stream.shutdown().await;
        linger(stream).await;
    }

    /// Tells a client that there is no room, as far as that needs no waiting: no room is left for that either.
    fn turn_away(&self, stream: &TcpStream, refusal: &Refusal) {
        if self.settings.is_tls() {
            return;
        }
        // A fresh socket takes a hundred bytes; where it does not, its end says enough.
        let _ = stream.try_write(&self.refusal(refusal));
    }

    fn refusal(&self, refusal: &Refusal) -> Vec<u8> {
        let mut frames = Vec::new();
        let code = match refusal.status() {
            401 => "unauthorized",
            403 => "forbidden",
            429 => "too_many",
            503 => "unavailable",
            _ => "refused",
        };
        self.encoder.error(
            &ErrorFrame {
                code,
                message: refusal.reason(),
                id: None,
            },
            &mut frames,
        );
        let reason = match refusal.status() {
            429 | 503 => CloseReason::Busy,
            _ => CloseReason::Refused(refusal.reason().to_owned().into()),
        };
        self.encoder.close(&reason, &mut frames);
        frames
    }
}

/// What reads a client's frames, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn decoder(
    codec: Arc<dyn crate::codec::Codec>,
    limits: &crate::stream::Limits,
) -> FrameDecoder {
    FrameDecoder::new(codec, limits)
}
