//! HTTP: [`HttpEndpoint`].

mod body;
mod bound;
mod encoder;
mod mounted;
mod replay;
mod respond;
mod server;
mod session;
mod sessions;

use gobroke_core::{Endpoint, EndpointError, EndpointOptions, Gate, Name, async_trait};

pub use self::{
    body::EventBody,
    mounted::{HttpRoute, MountedHttp},
};
use self::{server::Server, session::Times};
use crate::stream::{Settings, bound_setters, http_setters, setters};

/// The methods by which both forms of the endpoint are set.
macro_rules! http_only_setters {
    () => {
        /// How long a client whose connection broke may take to come back. It counts as connected meanwhile.
        /// Default: 30 s.
        #[must_use]
        pub fn resume_within(mut self, time: std::time::Duration) -> Self {
            self.times.resume_within = time;
            self
        }

        /// How many bytes of the newest events are kept for a client that comes back. Default: 32 KiB.
        #[must_use]
        pub fn replay(mut self, bytes: usize) -> Self {
            self.times.replay = bytes;
            self
        }
    };
}
use http_only_setters;

/// Clients over HTTP, where there is no WebSocket to be had: Server-Sent Events down, POST up.
///
/// ```no_run
/// use gobroke_core::{Broke, Logic};
/// use gobroke_endpoints::{HttpEndpoint, JsonCodec};
///
/// # async fn program() -> Result<(), Box<dyn std::error::Error>> {
/// let broke = Broke::builder()
///     .endpoint(HttpEndpoint::bind("0.0.0.0:8081").path("/events").codec(JsonCodec::to_logic("chat")))
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
/// `curl` is enough to use it:
///
/// ```text
/// $ curl -N http://localhost:8081/events
/// id: hyOI4BGSE9jjLLoQWKBxJ1xf9bYYVfVt.0
/// retry: 2000
/// event: session
/// data: hyOI4BGSE9jjLLoQWKBxJ1xf9bYYVfVt
///
/// id: hyOI4BGSE9jjLLoQWKBxJ1xf9bYYVfVt.1
/// data: {"welcome":{"client":"0190d4f5-...","instance":"instance-1"}}
/// ```
///
/// and, meanwhile, in another terminal:
///
/// ```text
/// $ curl -H 'gobroke-session: hyOI4BGSE9jjLLoQWKBxJ1xf9bYYVfVt' -d '{"payload":"hello"}' http://localhost:8081/events
/// ```
///
/// So does a browser, without any library:
///
/// ```js
/// const events = new EventSource("/events");
/// events.addEventListener("session", (event) => { session = event.data; });
/// events.addEventListener("close", () => events.close());
/// events.onmessage = (event) => console.log(JSON.parse(event.data).payload);
/// fetch("/events", {method: "POST", headers: {"gobroke-session": session}, body: JSON.stringify({payload: "hello"})});
/// ```
///
/// # Requests
/// | request | answer |
/// |---|---|
/// | `GET` | opens a session, if the `on_connect` hook admits it: events, until it ends |
/// | `GET` with `Last-Event-ID` (browsers send it by themselves when they come back) | goes on with a session: the events behind that one. Another stream that it had ends |
/// | `POST` with the session's token | one frame. 202: it was taken. 400: it cannot be read; the body says why, in the codec's form. 413: it is longer than [`max_message`](EndpointOptions::max_message). 404: there is no such session (any more) |
/// | `DELETE` with the token | ends the session |
///
/// The token is the header `gobroke-session`, or `?session=` in the query, which may end in a log. It is all that a request
/// needs to speak for the client: 128 bits of it are random, and are compared in constant time. 403 is the answer to
/// pages from elsewhere ([`origins`](Self::origins)).
///
/// # Events
/// | event | data |
/// |---|---|
/// | `message` (without a name) | a frame of text, as the codec writes it; line ends come as `\n` |
/// | `binary` | a frame that is not UTF-8, or (with a codec that says nothing of text) has a carriage return in it, in base64 |
/// | `session` | the token. The first |
/// | `gap` | `{"lost": 3}`: so many events were missed, and are not kept any more |
/// | `close` | `{"code": 1001, "reason": "going away"}` ([`CloseReason`](gobroke_core::CloseReason)). The last |
///
/// While nothing is sent, a comment goes out every [`ping_interval`](EndpointOptions::ping_interval), so that proxies keep
/// the connection. A client whose connection breaks may come back for [`resume_within`](Self::resume_within), and gets
/// what it missed; what is kept for it is bounded by [`replay`](Self::replay), and what waits beyond that by its outbox,
/// as for any other client. A stream that takes nothing for [`write_stall`](EndpointOptions::write_stall) is given up.
#[derive(Clone, Debug)]
pub struct HttpEndpoint {
    address: String,
    path: Option<String>,
    times: Times,
    settings: Settings,
}

impl HttpEndpoint {
    /// Listens on an address: `0.0.0.0:8080`, `[::]:8080`, `localhost:0` (any free port), for HTTP/1.1. Its name is
    /// `http`.
    pub fn bind(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            path: None,
            times: Times::default(),
            settings: Settings::new("http"),
        }
    }

    /// Serves the requests that another HTTP server hands to its [route](MountedHttp::route). Its name is `http`.
    ///
    /// ```no_run
    /// use axum::Router;
    /// use gobroke_core::Broke;
    /// use gobroke_endpoints::{HttpEndpoint, JsonCodec};
    ///
    /// # async fn program() -> Result<(), Box<dyn std::error::Error>> {
    /// let events = HttpEndpoint::mounted().codec(JsonCodec::to_logic("chat"));
    /// let app: Router = Router::new().route_service("/events", events.route());
    /// let broke = Broke::builder().endpoint(events).start().await?;
    ///
    /// let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    /// axum::serve(listener, app).with_graceful_shutdown(async move { broke.until_signal().await }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn mounted() -> MountedHttp {
        MountedHttp::new()
    }

    /// Serves this path alone; requests for another one are answered with 404. Default: any path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    http_only_setters!();
    setters!();
    http_setters!();
    bound_setters!();
}

#[async_trait]
impl Endpoint for HttpEndpoint {
    fn name(&self) -> Name {
        self.settings.name.clone()
    }

    fn options(&self) -> EndpointOptions {
        self.settings.options.clone()
    }

    async fn serve(&self, gate: Gate) -> Result<(), EndpointError> {
        let server = Server::new(gate, &self.settings, &self.times, self.path.clone());
        bound::serve(&self.address, server).await
    }
}
