//! The ways in to a [GoBroke](gobroke_core) server: WebSocket, TCP and HTTP.
//!
//! ```no_run
//! use gobroke_core::{Broke, Logic};
//! use gobroke_endpoints::{JsonCodec, TcpEndpoint, WebSocketEndpoint};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let broke = Broke::builder()
//!         .endpoint(WebSocketEndpoint::bind("0.0.0.0:8080").codec(JsonCodec::to_logic("chat")))
//!         .endpoint(TcpEndpoint::bind("0.0.0.0:9000").codec(JsonCodec::to_logic("chat")))
//!         .logic(Logic::dispatched("chat", |message, ctx| {
//!             ctx.broadcast(message)?;
//!             Ok(())
//!         }))
//!         .start()
//!         .await?;
//!     broke.until_signal().await; // Ctrl-C or SIGTERM
//!     Ok(())
//! }
//! ```
//!
//! A browser then talks to a terminal:
//!
//! ```js
//! const socket = new WebSocket("ws://localhost:8080", "gobroke.json.v1");
//! socket.onmessage = (event) => console.log(JSON.parse(event.data).payload);
//! socket.onopen = () => socket.send(JSON.stringify({payload: "hello"}));
//! ```
//!
//! # The parts
//!
//! ```text
//!            a frame's bounds                 what a frame means
//! socket ──▶ WebSocketEndpoint, TcpEndpoint ──▶ RawCodec, JsonCodec, yours ──▶ Message ──▶ the router
//! socket ◀── the router writes whole runs of frames, encoded once for all receivers ◀── Message
//! ```
//!
//! - [`WebSocketEndpoint`]: on an address of its own, or as a route of an axum `Router` or another HTTP server.
//! - [`HttpEndpoint`]: Server-Sent Events down, POST up, where there is no WebSocket to be had.
//! - [`TcpEndpoint`]: frames behind their length.
//! - [`UdpEndpoint`]: sessions over datagrams, for what is old at once.
//! - [`codec`]: what frames mean. [`RawCodec`], a frame is a payload; [`JsonCodec`], a frame says whom it is for;
//!   or one of your own.
//!
//! A transport that is not here is a page of code: see [`Endpoint`](gobroke_core::Endpoint).
//!
//! # What is bounded
//!
//! Everything that a peer can make the server keep; the defaults are in
//! [`EndpointOptions`](gobroke_core::EndpointOptions), and each endpoint has setters. Beside those:
//! the memory for messages that have not arrived whole is one [`ReceiveBudget`] for all connections (256 MiB), is
//! taken as bytes arrive, never for what is announced, and a message has 60 s to arrive in. An idle connection over
//! WebSocket or TCP holds no buffer at all, beside what rustls keeps for one over TLS.
//!
//! Pages from elsewhere may not connect ([`Origins`]), and a client's address is that of its socket unless a proxy that
//! you name says otherwise ([`TrustedProxies`]). All threats, and what is done against them: [`docs::security`].
//!
//! What a client does wrong is answered with an error frame or a close with the right code, is counted in
//! [`Stats::bad_input`](gobroke_core::Stats) and traced at debug level.
//!
//! # Features
//!
//! | feature | holds | default |
//! |---|---|---|
//! | `ws` | [`WebSocketEndpoint`], [`MountedWebSocket`] | yes |
//! | `tcp` | [`TcpEndpoint`] | yes |
//! | `http` | [`HttpEndpoint`], [`MountedHttp`]: Server-Sent Events down, POST up | no |
//! | `jwt` | [`Jwt`]: admission by JSON Web Tokens | no |
//! | `tls` | [`Tls`]: TLS 1.2 and 1.3 for endpoints with an address of their own | no |
//! | `udp` | [`UdpEndpoint`] | no |
//! | `deflate` | compression of messages over WebSocket (permessage-deflate) | no |
//! | `axum` | clients' addresses for a [`WebSocketRoute`] in an axum `Router` | no |
//!
//! The codecs are always there.

mod admission;
pub mod codec;
pub mod docs;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "http")]
mod http;
#[cfg(any(feature = "ws", feature = "tcp", feature = "http"))]
mod stream;
#[cfg(feature = "tcp")]
mod tcp;
#[cfg(all(
    feature = "tls",
    any(feature = "ws", feature = "tcp", feature = "http")
))]
mod tls;
#[cfg(feature = "udp")]
mod udp;
#[cfg(any(feature = "ws", feature = "http"))]
mod web;
#[cfg(feature = "ws")]
mod ws;

#[cfg(any(feature = "ws", feature = "http"))]
pub use self::admission::Origins;
#[cfg(feature = "jwt")]
pub use self::admission::{Claims, Jwt, JwtKeyError};
#[cfg(any(feature = "ws", feature = "tcp", feature = "http"))]
pub use self::admission::{NetworkError, TrustedProxies};
pub use self::admission::{bearer, bearer_token};
pub use self::codec::{JsonCodec, RawCodec};
#[cfg(feature = "http")]
pub use self::http::{EventBody, HttpEndpoint, HttpRoute, MountedHttp};
#[cfg(any(feature = "ws", feature = "tcp", feature = "http"))]
pub use self::stream::ReceiveBudget;
#[cfg(feature = "tcp")]
pub use self::tcp::TcpEndpoint;
#[cfg(all(
    feature = "tls",
    any(feature = "ws", feature = "tcp", feature = "http")
))]
pub use self::tls::{Tls, TlsError};
#[cfg(feature = "udp")]
pub use self::udp::UdpEndpoint;
#[cfg(feature = "ws")]
pub use self::ws::{MountedWebSocket, WebSocketEndpoint, WebSocketRoute};
