//! Requests as a `tower` service: [`Respond`], with what browsers are told of it (CORS) around.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use gobroke_core::Slot;
use http_body::Body;
use hyper::{
    Method, Request, Response,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue},
};
use tower_http::cors::{AllowCredentials, AllowOrigin, Cors};
use tower_service::Service;

use super::{
    body::EventBody,
    server::{LAST_EVENT_ID, SESSION, Server},
};
use crate::{stream::Peer, web::remote};

/// Answers requests.
#[derive(Clone, Debug)]
pub(super) struct Respond {
    server: Arc<Server>,
    /// The connection that they come over, where that is the endpoint's own.
    connection: Option<Connection>,
}

/// Whose a connection is, and its place among the others, until a session takes that over.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    peer: Peer,
    slot: Arc<Mutex<Option<Slot>>>,
}

impl Connection {
    pub(super) fn new(peer: Peer, slot: Slot) -> Self {
        Self {
            peer,
            slot: Arc::new(Mutex::new(Some(slot))),
        }
    }
}

impl Respond {
    /// With the headers that let pages of the listed origins read the answers, and no others.
    pub(super) fn new(server: Arc<Server>, connection: Option<Connection>) -> Cors<Self> {
        let origins = server.settings.origins.clone();
        // What a visitor's cookies open is not for any page.
        let trusted = server.settings.origins.clone();
        let with_cookies =
            move |origin: &HeaderValue| !trusted.is_any() && trusted.share_with(origin);
        Cors::new(Self { server, connection })
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([CONTENT_TYPE, AUTHORIZATION, SESSION, LAST_EVENT_ID])
            .max_age(Duration::from_secs(600))
            .allow_origin(AllowOrigin::predicate(move |origin, _| {
                origins.share_with(origin)
            }))
            .allow_credentials(AllowCredentials::predicate(move |origin, _| {
                with_cookies(origin)
            }))
    }

    async fn answer<B>(self, request: Request<B>) -> Response<EventBody>
    where
        B: Body<Data = Bytes>,
    {
        let Self { server, connection } = self;
        let (gate, settings) = (server.gate.clone(), server.settings.clone());
        let Some(Connection { peer, slot }) = connection else {
            let remote = remote(&request);
            let place = || settings.slot(&gate, remote);
            return server.answer(request, Peer::new(remote), place).await;
        };
        let remote = peer.remote;
        let place = || {
            let held = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            held.map_or_else(|| settings.slot(&gate, remote), Ok)
        };
        let mut answer = server.answer(request, peer, place).await;
        // A stream of events is the last that a connection carries.
        let kind = answer.headers().get(CONTENT_TYPE);
        if kind.is_some_and(|kind| kind == "text/event-stream") {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        answer
    }
}

impl<B> Service<Request<B>> for Respond
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
        let answer = self.clone().answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}
