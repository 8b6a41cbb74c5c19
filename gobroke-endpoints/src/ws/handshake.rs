//! The opening handshake (RFC 6455, section 4.2), as a function of a request's head.

use base64::{Engine, engine::general_purpose::STANDARD};
use gobroke_core::ConnectRequest;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    header::{
        ALLOW, CONNECTION, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};

use crate::{
    stream::Peer,
    web::{Text, connect_request, text},
};

use super::deflate::Agreed;

/// What a good request asked for.
#[derive(Debug)]
pub(super) struct Handshake {
    accept: String,
    protocol: Option<String>,
    pub(super) deflate: Option<Agreed>,
}

impl Handshake {
    /// Reads a request. `path` is the one that is served, `None` for any; `protocol` is the codec's,
    /// and `deflate` says whether messages may be compressed.
    ///
    /// A subprotocol is agreed on where the client offers the codec's. A client that offers none, or others, is
    /// accepted without: it is for the client to leave then.
    ///
    /// # Errors
    /// The answer that says what is wrong: 400, 404, 405 or 426.
    pub(super) fn read<B>(
        request: &Request<B>,
        path: Option<&str>,
        protocol: Option<&str>,
        deflate: bool,
    ) -> Result<Self, Box<Text>> {
        if path.is_some_and(|path| path != request.uri().path()) {
            return Err(text(StatusCode::NOT_FOUND, "there is nothing here").into());
        }
        if request.method() != Method::GET {
            let mut answer = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "a WebSocket is opened with GET",
            );
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
            return Err(answer.into());
        }
        if request.version() != Version::HTTP_11 {
            return Err(upgrade_required("a WebSocket is opened over HTTP/1.1").into());
        }
        let headers = request.headers();
        if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade")
        {
            return Err(upgrade_required(
                "this is a WebSocket: send `Connection: Upgrade` and `Upgrade: websocket`",
            )
            .into());
        }
        if headers
            .get_all(SEC_WEBSOCKET_VERSION)
            .iter()
            .map(HeaderValue::as_bytes)
            .ne([b"13"])
        {
            return Err(upgrade_required("send `Sec-WebSocket-Version: 13`").into());
        }
        if !headers.contains_key(HOST) {
            return Err(text(StatusCode::BAD_REQUEST, "send `Host`").into());
        }
        let Some(accept) = only(headers, &SEC_WEBSOCKET_KEY).and_then(accept) else {
            return Err(text(
                StatusCode::BAD_REQUEST,
                "send one `Sec-WebSocket-Key`: 16 bytes in base64",
            )
            .into());
        };
        let protocol =
            protocol.filter(|protocol| has_token(headers, &SEC_WEBSOCKET_PROTOCOL, protocol));
        Ok(Self {
            accept,
            protocol: protocol.map(str::to_owned),
            deflate: deflate.then(|| Agreed::on(headers)).flatten(),
        })
    }

    /// What the `on_connect` hook is told.
    pub(super) fn connect_request<B>(&self, request: &Request<B>, peer: &Peer) -> ConnectRequest {
        let mut connect = connect_request(request.uri(), request.headers(), peer);
        connect.subprotocol.clone_from(&self.protocol);
        connect.subprotocols = tokens(request.headers(), &SEC_WEBSOCKET_PROTOCOL)
            .map(str::to_owned)
            .collect();
        connect
    }

    /// The answer that opens the WebSocket.
    pub(super) fn accepted(self) -> Text {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        insert(headers, SEC_WEBSOCKET_ACCEPT, &self.accept);
        if let Some(deflate) = self.deflate {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, deflate.header());
        }
        if let Some(protocol) = &self.protocol {
            insert(headers, SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

/// 426 (RFC 9110, section 15.5.22), which names what is spoken here (RFC 6455, section 4.4).
fn upgrade_required(reason: &'static str) -> Text {
    let mut response = text(StatusCode::UPGRADE_REQUIRED, reason);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Base64, and a token that a request carried: both are good header values.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether a header that is a list of tokens, in one line or several, has this one.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The tokens of a header that is a list of them, in one line or several.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter();
    let lines = lines.filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// What a key is answered with (section 4.2.2); `None` for one that is not 16 bytes in base64.
fn accept(key: &HeaderValue) -> Option<String> {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let key = key.as_bytes().trim_ascii();
    STANDARD
        .decode(key)
        .ok()
        .filter(|nonce| nonce.len() == 16)?;
    let mut sha1 = sha1_smol::Sha1::from(key);
    sha1.update(GUID);
    Some(STANDARD.encode(sha1.digest().bytes()))
}

#[cfg(test)]
mod tests {
    use gobroke_core::Refusal;

    use super::*;
    use crate::web::refused;

    /// The request of RFC 6455, section 1.3.
    fn request() -> Request<()> {
        let request = Request::get("/chat?room=1")
            .header(HOST, "server.example.com")
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "keep-alive, Upgrade")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .header("origin", "http://example.com")
            .header(SEC_WEBSOCKET_PROTOCOL, "chat, superchat")
            .header(SEC_WEBSOCKET_VERSION, "13");
        request.body(()).expect("a request")
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_there() {
        let handshake =
            Handshake::read(&request(), None, Some("superchat"), false).expect("a good request");
        let connect = handshake.connect_request(&request(), &Peer::default());
        assert_eq!(
            (connect.path.as_deref(), connect.query.as_deref()),
            (Some("/chat"), Some("room=1"))
        );
        assert_eq!(connect.header("origin"), Some("http://example.com"));
        assert_eq!(connect.subprotocol.as_deref(), Some("superchat"));
        assert_eq!(connect.subprotocols, ["chat", "superchat"]);
        let answer = handshake.accepted();
        assert_eq!(answer.status(), 101);
        assert_eq!(
            answer.headers()[SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], "superchat");
    }

    #[test]
    fn a_subprotocol_that_is_not_spoken_here_is_left_out() {
        for protocol in [None, Some("gobroke.json.v1")] {
            let handshake =
                Handshake::read(&request(), None, protocol, false).expect("a good request");
            assert_eq!(
                handshake.accepted().headers().get(SEC_WEBSOCKET_PROTOCOL),
                None
            );
        }
    }

    #[test]
    fn a_wrong_request_is_answered_with_what_is_wrong() {
        type Change = fn(&mut Request<()>);
        let cases: [(Change, u16, &str); 13] = [
            (
                |request| *request.uri_mut() = "/other".parse().expect("a path"),
                404,
                "nothing here",
            ),
            (|request| *request.method_mut() = Method::POST, 405, "GET"),
            (
                |request| *request.method_mut() = Method::CONNECT,
                405,
                "GET",
            ),
            (
                |request| *request.version_mut() = Version::HTTP_10,
                426,
                "HTTP/1.1",
            ),
            (
                |request| drop(request.headers_mut().remove(UPGRADE)),
                426,
                "Upgrade",
            ),
            (
                |request| drop(request.headers_mut().remove(CONNECTION)),
                426,
                "Upgrade",
            ),
            (
                |request| change(request, CONNECTION, "keep-alive"),
                426,
                "Upgrade",
            ),
            (|request| change(request, UPGRADE, "h2c"), 426, "Upgrade"),
            (
                |request| change(request, SEC_WEBSOCKET_VERSION, "8"),
                426,
                "13",
            ),
            (
                |request| drop(request.headers_mut().remove(SEC_WEBSOCKET_VERSION)),
                426,
                "13",
            ),
            (
                |request| drop(request.headers_mut().remove(HOST)),
                400,
                "Host",
            ),
            (
                |request| change(request, SEC_WEBSOCKET_KEY, "dG9vIHNob3J0"),
                400,
                "Key",
            ),
            (
                |request| drop(request.headers_mut().remove(SEC_WEBSOCKET_KEY)),
                400,
                "Key",
            ),
        ];
        for (number, (change, status, says)) in cases.into_iter().enumerate() {
            let mut request = request();
            change(&mut request);
            let answer =
                Handshake::read(&request, Some("/chat"), None, false).expect_err("a wrong request");
            assert_eq!(answer.status(), status, "case {number}");
            if status == 426 {
                assert_eq!(
                    answer.headers()[SEC_WEBSOCKET_VERSION],
                    "13",
                    "case {number}"
                );
            }
            let body = format!("{:?}", answer.body());
            assert!(body.contains(says), "case {number}: {body}");
        }
    }

    fn change(request: &mut Request<()>, name: HeaderName, value: &'static str) {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }

    #[test]
    fn a_refusal_that_is_no_error_becomes_one() {
        assert_eq!(refused(&Refusal::forbidden("no")).status(), 403);
        assert_eq!(refused(&Refusal::new(200, "no")).status(), 500);
        assert_eq!(refused(&Refusal::new(7, "no")).status(), 500);
    }
}
