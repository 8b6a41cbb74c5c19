//! An endpoint within an HTTP server that is there: [`MountedWebSocket`] and its [`WebSocketRoute`].

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use gobroke_core::{Endpoint, EndpointError, EndpointOptions, Gate, Name, async_trait};
use http_body_util::Full;
use hyper::{Request, Response};
use tower_service::Service;

use super::server::Server;
use crate::{
    stream::{Peer, Settings, http_setters, setters},
    web::{Mount, refused, remote},
};

/// A [`WebSocketEndpoint`](crate::WebSocketEndpoint) that has no address: another HTTP server hands it its requests.
///
/// Made by [`WebSocketEndpoint::mounted`](crate::WebSocketEndpoint::mounted), where an example stands.
#[derive(Clone, Debug)]
pub struct MountedWebSocket {
    route: WebSocketRoute,
    settings: Settings,
}

impl MountedWebSocket {
    pub(super) fn new() -> Self {
        Self {
            route: WebSocketRoute::default(),
            settings: Settings::new("ws"),
        }
    }

    /// The service by which it is reached. All of an endpoint are one; what is set afterwards holds for them too.
    pub fn route(&self) -> WebSocketRoute {
        self.route.clone()
    }

    setters!();
    http_setters!();
    #[cfg(feature = "deflate")]
    super::deflate_setter!();
}

#[async_trait]
impl Endpoint for MountedWebSocket {
    fn name(&self) -> Name {
        self.settings.name.clone()
    }

    fn options(&self) -> EndpointOptions {
        self.settings.options.clone()
    }

    async fn serve(&self, gate: Gate) -> Result<(), EndpointError> {
        let server = Server::new(gate.clone(), &self.settings, None);
        self.route.0.serve(&gate, server).await;
        Ok(())
    }
}

/// The service by which a [`MountedWebSocket`] is reached: for
/// `Router::route_service` of axum, or any other place that takes a `tower` service over requests of hyper 1.
///
/// Until the router has started, and once it stops, it answers 503. It speaks HTTP/1.1 alone: a server that offers
/// WebSockets over HTTP/2 (RFC 8441) as well, as that of axum with feature `http2` does, must be told not to.
///
/// The client's address is that of the request's `ConnectInfo<SocketAddr>` with feature `axum` (serve the app with
/// `into_make_service_with_connect_info::<SocketAddr>()`), else an extension of type `SocketAddr` that a layer of
/// yours adds. Without either it is not known: `on_connect` is told none, and
/// [`max_connections_per_address`](gobroke_core::EndpointOptions::max_connections_per_address) does not hold.
#[derive(Clone, Debug, Default)]
pub struct WebSocketRoute(Mount<Server>);

impl<B: Send + 'static> Service<Request<B>> for WebSocketRoute {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let server = self.0.server();
        Box::pin(async move {
            let server = match server {
                Ok(server) => server,
                Err(refusal) => return Ok(refused(&refusal)),
            };
            let remote = remote(&request);
            let (gate, settings) = (server.gate.clone(), server.settings.clone());
            Ok(server
                .answer(&mut request, Peer::new(remote), || {
                    settings.slot(&gate, remote)
                })
                .await)
        })
    }
}
