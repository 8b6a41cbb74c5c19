//! WebSocket: [`WebSocketEndpoint`].

/// The method by which an endpoint's messages are compressed.
#[cfg(feature = "deflate")]
macro_rules! deflate_setter {
    () => {
        /// Compresses messages for clients that offer it, and takes compressed ones from them (permessage-deflate,
        /// RFC 7692). Default: off.
        ///
        /// Each message is compressed on its own, once for all its receivers, from 64 bytes on. It costs the server
        /// far more time than sending does, so turn it on where bandwidth is dear. A message that mixes a secret with
        /// what an attacker chose tells by its length how alike they are (as CRIME and BREACH do).
        #[must_use]
        pub fn deflate(mut self) -> Self {
            self.settings.deflate = true;
            self
        }
    };
}
#[cfg(feature = "deflate")]
use deflate_setter;

mod bound;
mod decoder;
#[cfg_attr(not(feature = "deflate"), path = "no_deflate.rs")]
mod deflate;
mod encoder;
mod frame;
mod handshake;
mod mounted;
mod server;

use gobroke_core::{Endpoint, EndpointError, EndpointOptions, Gate, Name, async_trait};

pub use self::mounted::{MountedWebSocket, WebSocketRoute};
use self::server::Server;
use crate::stream::{Settings, bound_setters, http_setters, setters};

/// Clients over WebSocket (RFC 6455): on an address of its own, or as a route of an HTTP server that is there.
///
/// ```no_run
/// use gobroke_core::{Broke, Logic};
/// use gobroke_endpoints::{JsonCodec, WebSocketEndpoint};
///
/// # async fn program() -> Result<(), Box<dyn std::error::Error>> {
/// let broke = Broke::builder()
///     .endpoint(WebSocketEndpoint::bind("0.0.0.0:8080").path("/ws").codec(JsonCodec::to_logic("chat")))
///     .logic(Logic::dispatched("chat", |message, ctx| {
///         ctx.broadcast(message)?;
///         Ok(())
///     }))
///     .start()
///     .await?;
/// broke.until_signal().await;
/// # Ok(())
/// # }
/// ```
///
/// In an axum `Router`, or any other server over hyper 1, it is a service. Limits and speed are the same: the TCP
/// stream is taken over from the server, with no copy in between. Where that stream is another one (TLS), messages go
/// through the connection's task.
///
/// ```no_run
/// use axum::Router;
/// use gobroke_core::Broke;
/// use gobroke_endpoints::{JsonCodec, WebSocketEndpoint};
///
/// # async fn program() -> Result<(), Box<dyn std::error::Error>> {
/// let chat = WebSocketEndpoint::mounted().codec(JsonCodec::to_logic("chat"));
/// let app: Router = Router::new().route_service("/ws", chat.route());
/// let broke = Broke::builder().endpoint(chat).start().await?;
///
/// let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
/// axum::serve(listener, app).with_graceful_shutdown(async move { broke.until_signal().await }).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Who may open one
/// The `on_connect` hook of the router sees path, query and headers; what it refuses is answered with the refusal's
/// status and its reason as text. Browsers let any page open a WebSocket to any server, so pages from another host are
/// refused before that, unless [`origins`](Self::origins) lists theirs.
///
/// Other answers: 400 (no or a wrong key), 403 (a foreign page), 404 (another path), 405 (not `GET`), 426 (no upgrade, or another version
/// than 13), 429 and 503 (the limits of [`EndpointOptions`], and while the router stops).
///
/// # What goes over it
/// Frames of text for a codec of text (a client that sends binary is closed with 1003), else text is sent as text and
/// the rest as binary. The codec's subprotocol (`gobroke.json.v1`) is agreed on where the client offers it, and spoken
/// without as well. Messages are compressed where that is turned on (`deflate`, with the feature of that name) and the
/// client offers it.
///
/// A client that breaks the protocol is closed with 1002, text that is not UTF-8 with 1007, a message above
/// [`max_message`](EndpointOptions::max_message) with 1009, one in more than 131,072 fragments, or with more control frames
/// in a second than [are taken](Self::max_control_frames), with 1008.
/// A close of either side is answered with a close, after what was sent before it; then the connection is read for up
/// to two more seconds, so that the close frame arrives.
#[derive(Clone, Debug)]
pub struct WebSocketEndpoint {
    address: String,
    path: Option<String>,
    settings: Settings,
}

impl WebSocketEndpoint {
    /// Listens on an address: `0.0.0.0:8080`, `[::]:8080`, `localhost:0` (any free port). Its name is `ws`.
    pub fn bind(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            path: None,
            settings: Settings::new("ws"),
        }
    }

    /// Serves the requests that another HTTP server hands to its [route](MountedWebSocket::route). Its name is `ws`.
    pub fn mounted() -> MountedWebSocket {
        MountedWebSocket::new()
    }

    /// Serves this path alone; requests for another one are answered with 404. Default: any path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    setters!();
    http_setters!();
    #[cfg(feature = "deflate")]
    deflate_setter!();
    bound_setters!();
}

#[async_trait]
impl Endpoint for WebSocketEndpoint {
    fn name(&self) -> Name {
        self.settings.name.clone()
    }

    fn options(&self) -> EndpointOptions {
        self.settings.options.clone()
    }

    async fn serve(&self, gate: Gate) -> Result<(), EndpointError> {
        let server = Server::new(gate, &self.settings, self.path.clone());
        bound::serve(&self.address, server).await
    }
}

/// What reads a client's frames, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn decoder(
    codec: std::sync::Arc<dyn crate::codec::Codec>,
    limits: &crate::stream::Limits,
) -> decoder::MessageDecoder {
    let encoder = encoder::FrameEncoder::new(std::sync::Arc::clone(&codec), None);
    decoder::MessageDecoder::new(codec, std::sync::Arc::new(encoder), limits)
}

/// Inflates and compresses, for the fuzzer.
#[cfg(all(any(test, fuzzing), feature = "deflate"))]
pub(crate) fn fuzz_deflate(data: &[u8]) {
    deflate::fuzz(data);
}
