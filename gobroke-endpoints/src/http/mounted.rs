//! An endpoint within an HTTP server that is there: [`MountedHttp`] and its [`HttpRoute`].

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use gobroke_core::{Endpoint, EndpointError, EndpointOptions, Gate, Name, async_trait};
use http_body::Body;
use hyper::{Request, Response};
use tower_service::Service;

use super::{body::EventBody, http_only_setters, respond::Respond, server::Server, session::Times};
use crate::{
    stream::{Settings, http_setters, setters},
    web::{Mount, refused},
};

/// An [`HttpEndpoint`](crate::HttpEndpoint) that has no address: another HTTP server hands it its requests.
///
/// Made by [`HttpEndpoint::mounted`](crate::HttpEndpoint::mounted), where an example stands.
#[derive(Clone, Debug)]
pub struct MountedHttp {
    route: HttpRoute,
    times: Times,
    settings: Settings,
}

impl MountedHttp {
    pub(super) fn new() -> Self {
        Self {
            route: HttpRoute::default(),
            times: Times::default(),
            settings: Settings::new("http"),
        }
    }

    /// The service by which it is reached. All of an endpoint are one; what is set afterwards holds for them too.
    pub fn route(&self) -> HttpRoute {
        self.route.clone()
    }

    http_only_setters!();
    setters!();
    http_setters!();
}

#[async_trait]
impl Endpoint for MountedHttp {
    fn name(&self) -> Name {
        self.settings.name.clone()
    }

    fn options(&self) -> EndpointOptions {
        self.settings.options.clone()
    }

    async fn serve(&self, gate: Gate) -> Result<(), EndpointError> {
        let server = Server::new(gate.clone(), &self.settings, &self.times, None);
        self.route.0.serve(&gate, server).await;
        Ok(())
    }
}

/// The service by which a [`MountedHttp`] is reached: for `Router::route_service` of axum, or any other place that takes
/// a `tower` service over requests of hyper 1, over any version of HTTP.
///
/// Until the router has started, and once it stops, it answers 503. Clients' addresses are known as with
/// [`WebSocketRoute`](crate::WebSocketRoute).
#[derive(Clone, Debug, Default)]
pub struct HttpRoute(Mount<Server>);

impl<B> Service<Request<B>> for HttpRoute
where
    B: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<EventBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.0.server() {
            Ok(server) => Box::pin(Respond::new(server, None).call(request)),
            Err(refusal) => Box::pin(async move { Ok(EventBody::text(refused(&refusal))) }),
        }
    }
}
