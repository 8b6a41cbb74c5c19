//! Answers of a few words.

use bytes::Bytes;
use gobroke_core::Refusal;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};

/// An answer of one piece.
pub(crate) type Text = Response<Full<Bytes>>;

/// An answer that says why.
pub(crate) fn text(status: StatusCode, reason: impl Into<Bytes>) -> Text {
    let mut response = Response::new(Full::new(reason.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// The answer to a client that is not admitted: its status, the reason as text.
pub(crate) fn refused(refusal: &Refusal) -> Text {
    // What is no status, or says that all is well, cannot refuse.
    let status = StatusCode::from_u16(refusal.status())
        .ok()
        .filter(|status| status.as_u16() >= 300);
    text(
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        refusal.reason().to_owned(),
    )
}
