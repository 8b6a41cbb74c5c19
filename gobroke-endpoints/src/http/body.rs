//! What a request is answered with, and what it brings.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::{Response, StatusCode};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    stream::{Partial, Settings},
    web::{Text, text},
};

/// The body of an answer of the HTTP endpoint: a few words, or events without end.
#[derive(Debug)]
pub struct EventBody(Kind);

#[derive(Debug)]
enum Kind {
    Text(Full<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl EventBody {
    pub(super) fn events(stream: mpsc::Receiver<Bytes>) -> Self {
        Self(Kind::Events(stream))
    }

    pub(super) fn text(answer: Text) -> Response<Self> {
        answer.map(|body| Self(Kind::Text(body)))
    }
}

impl Default for EventBody {
    fn default() -> Self {
        Self(Kind::Text(Full::default()))
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Kind::Text(body) => Pin::new(body).poll_frame(cx),
            Kind::Events(stream) => stream
                .poll_recv(cx)
                .map(|bytes| Some(Ok(Frame::data(bytes?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Text(body) => body.is_end_stream(),
            Kind::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Text(body) => body.size_hint(),
            Kind::Events(_) => SizeHint::default(),
        }
    }
}

/// Reads a request's body, as far as its endpoint's limits go.
///
/// # Errors
/// The answer to one that is too long, too slow, or breaks off.
pub(super) async fn read<B>(body: B, settings: &Settings) -> Result<Partial, Text>
where
    B: Body<Data = Bytes>,
{
    let most = settings.options.max_message;
    let too_big = || {
        text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("{most} bytes are the most"),
        )
    };
    let mut body = pin!(body);
    let announced = body.size_hint().lower();
    if announced > most as u64 {
        return Err(too_big());
    }
    let mut read = Partial::new(settings.budget.clone());
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(text(StatusCode::BAD_REQUEST, "the body broke off"));
            };
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            if read.len() + bytes.len() > most {
                return Err(too_big());
            }
            read.extend(&bytes, announced as usize)
                .map_err(|_| text(StatusCode::SERVICE_UNAVAILABLE, "busy, try again later"))?;
        }
        Ok(())
    };
    match timeout(settings.message_timeout, reading).await {
        Ok(Ok(())) => Ok(read),
        Ok(Err(answer)) => Err(answer),
        Err(_) => Err(text(
            StatusCode::REQUEST_TIMEOUT,
            "the body took too long to arrive",
        )),
    }
}
