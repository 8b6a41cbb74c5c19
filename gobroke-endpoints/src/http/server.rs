//! From a request to an answer, the same for a bound and for a mounted endpoint: [`Server`].

use std::sync::Arc;

use bytes::Bytes;
use gobroke_core::{Encoder, ErrorFrame, Gate, Refusal, Slot};
use http_body::Body;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue},
    http::request::Parts,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    body::{EventBody, read},
    encoder::EventEncoder,
    session::{self, Times},
    sessions::{Attach, Handle, Sessions, Up},
};
use crate::{
    codec::FrameError,
    stream::{Peer, Settings},
    web::{connect_request, refused, text},
};

pub(super) type Answer = Response<EventBody>;

pub(super) const SESSION: HeaderName = HeaderName::from_static("gobroke-session");
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx not to gather what should go out at once.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What the requests of an endpoint share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) gate: Gate,
    pub(super) settings: Settings,
    path: Option<String>,
    times: Times,
    encoder: Arc<EventEncoder>,
    sessions: Arc<Sessions>,
}

impl Server {
    pub(super) fn new(
        gate: Gate,
        settings: &Settings,
        times: &Times,
        path: Option<String>,
    ) -> Arc<Self> {
        let encoder = Arc::new(EventEncoder::new(Arc::clone(&settings.codec)));
        Arc::new(Self {
            gate,
            settings: settings.clone(),
            path,
            times: times.clone(),
            encoder,
            sessions: Arc::default(),
        })
    }

    pub(super) async fn answer<B>(
        self: Arc<Self>,
        request: Request<B>,
        peer: Peer,
        slot: impl FnOnce() -> Result<Slot, Refusal>,
    ) -> Answer
    where
        B: Body<Data = Bytes>,
    {
        // Apart, since a body need not be shared between threads.
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if self.path.as_ref().is_some_and(|served| served != path) {
            return word(StatusCode::NOT_FOUND, "there is nothing here");
        }
        if !self.settings.origins.allow(&head.headers, &head.uri) {
            self.gate.count_bad_input("foreign_origin");
            return word(
                StatusCode::FORBIDDEN,
                "a page from elsewhere may not connect",
            );
        }
        match head.method {
            Method::GET => self.get(&head, peer, slot).await,
            Method::POST => self.post(&head, body).await,
            Method::DELETE => self.delete(&head).await,
            _ => {
                let mut answer = word(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "GET gives events, POST sends a message, DELETE ends the session",
                );
                let methods = HeaderValue::from_static("GET, POST, DELETE");
                answer.headers_mut().insert(ALLOW, methods);
                answer
            }
        }
    }

    /// Opens a session, or goes on with one.
    async fn get(
        self: Arc<Self>,
        request: &Parts,
        peer: Peer,
        slot: impl FnOnce() -> Result<Slot, Refusal>,
    ) -> Answer {
        let (stream, events) = mpsc::channel(1);
        if let Some((handle, last)) = self.resumed(request) {
            let attach = Attach {
                last: Some(last),
                stream: stream.clone(),
            };
            if handle.attach.send(attach).await.is_ok() {
                return event_stream(events);
            }
            // It ended just now, so this is a new one.
        }
        let counted = slot().and_then(|mut slot| {
            let peer = self.settings.client_of(peer, &request.headers, &mut slot)?;
            Ok((slot, peer))
        });
        let (slot, peer) = match counted {
            Ok(counted) => counted,
            Err(refusal) => return EventBody::text(refused(&refusal)),
        };
        let admission = self
            .gate
            .admit(slot, connect_request(&request.uri, &request.headers, &peer));
        let opened = match timeout(self.settings.options.handshake_timeout, admission).await {
            Ok(Ok(admitted)) => self.gate.open(
                admitted,
                Arc::clone(&self.encoder) as Arc<dyn Encoder>,
                None,
            ),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::unavailable(
                "the server took too long to decide; try again later",
            )),
        };
        let session = match opened {
            Ok(session) => session,
            Err(refusal) => return EventBody::text(refused(&refusal)),
        };
        let (attaching, attach) = mpsc::channel(1);
        let (sending, up) = mpsc::channel(1);
        let Ok(entered) = self.sessions.enter(attaching, sending) else {
            return word(
                StatusCode::INTERNAL_SERVER_ERROR,
                "there are no random numbers",
            );
        };
        let first = Attach { last: None, stream };
        self.gate.spawn(session::run(
            self.gate.clone(),
            self.settings.clone(),
            self.times.clone(),
            session,
            entered,
            (first, attach, up),
        ));
        event_stream(events)
    }

    /// The session that a request goes on with, and the number of the event that it saw last.
    fn resumed(&self, request: &Parts) -> Option<(Handle, u64)> {
        let id = request.headers.get(LAST_EVENT_ID)?.to_str().ok()?;
        let (token, last) = id.split_once('.')?;
        let last = last.parse().ok()?;
        let found = self.sessions.find(token).map(|handle| (handle, last));
        if found.is_none() {
            self.gate.count_bad_input("unknown_session");
        }
        found
    }

    fn handle(&self, request: &Parts) -> Result<Handle, Box<Answer>> {
        let query = || {
            let pairs = request.uri.query()?.split('&');
            pairs
                .filter_map(|pair| pair.split_once('='))
                .find_map(|(name, value)| (name == "session").then_some(value))
        };
        let token = text_of(&request.headers, &SESSION).or_else(query);
        let Some(token) = token else {
            return Err(Box::new(word(
                StatusCode::BAD_REQUEST,
                "send the session's token as header `gobroke-session`, or as `?session=`",
            )));
        };
        self.sessions.find(token).ok_or_else(|| {
            self.gate.count_bad_input("unknown_session");
            Box::new(gone())
        })
    }

    /// Takes a frame.
    async fn post<B>(&self, request: &Parts, body: B) -> Answer
    where
        B: Body<Data = Bytes>,
    {
        let handle = match self.handle(request) {
            Ok(handle) => handle,
            Err(answer) => return *answer,
        };
        let is_text = text_of(&request.headers, &CONTENT_TYPE)
            .is_none_or(|kind| !kind.starts_with("application/octet-stream"));
        let body = match read(body, &self.settings).await {
            Ok(body) => body,
            Err(answer) => {
                match answer.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => self.gate.count_bad_input("too_big"),
                    StatusCode::REQUEST_TIMEOUT => self.gate.count_bad_input("policy_violation"),
                    _ => {}
                }
                return EventBody::text(answer);
            }
        };
        let (taken, answer) = oneshot::channel();
        let frame = Up::Frame {
            body: Bytes::copy_from_slice(body.bytes()),
            is_text,
            taken,
        };
        drop(body);
        if handle.up.send(frame).await.is_err() {
            return gone();
        }
        match answer.await {
            Ok(Ok(())) => word(StatusCode::ACCEPTED, ""),
            Ok(Err(error)) => self.bad_frame(&error),
            Err(_) => gone(),
        }
    }

    /// Ends a session.
    async fn delete(&self, request: &Parts) -> Answer {
        match self.handle(request) {
            Ok(handle) => match handle.up.send(Up::Close).await {
                Ok(()) => word(StatusCode::ACCEPTED, ""),
                Err(_) => gone(),
            },
            Err(answer) => *answer,
        }
    }

    /// What was wrong with a frame, as the codec says it.
    fn bad_frame(&self, error: &FrameError) -> Answer {
        let mut body = Vec::new();
        let frame = ErrorFrame {
            code: error.code(),
            message: error.message(),
            id: error.id(),
        };
        self.settings.codec.error(&frame, &mut body);
        if body.is_empty() {
            body.extend_from_slice(error.message().as_bytes());
        }
        EventBody::text(text(StatusCode::BAD_REQUEST, body))
    }
}

fn word(status: StatusCode, reason: &'static str) -> Answer {
    EventBody::text(text(status, reason))
}

fn gone() -> Answer {
    word(
        StatusCode::NOT_FOUND,
        "there is no such session; open one with GET",
    )
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn event_stream(events: mpsc::Receiver<Bytes>) -> Answer {
    let mut answer = Response::new(EventBody::events(events));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    answer
}
