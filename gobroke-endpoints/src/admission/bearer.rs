//! Admission by a token that whoever bears it is let in by: [`bearer`].

use std::pin::Pin;

use gobroke_core::{Admission, ConnectRequest, Refusal};
use serde::Deserialize;

/// The token that a connection brings, wherever its transport lets it stand:
/// 1. header `Authorization: Bearer ..` (RFC 6750, section 2.1);
/// 2. `access_token` in the query (section 2.3): browsers cannot add headers to a WebSocket or an `EventSource`. A query may
///    end in a log, so let such a token end soon;
/// 3. the first frame over TCP, where that is asked for: the token itself, or `{"token": ".."}`.
pub fn bearer_token(request: &ConnectRequest) -> Option<String> {
    #[derive(Deserialize)]
    struct First {
        token: String,
    }
    let header = request.header("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token = header.or_else(|| request.query_value("access_token"));
    if let Some(token) = token {
        return Some(token.to_owned());
    }
    let first = request.first_frame.as_deref()?;
    match serde_json::from_slice::<First>(first) {
        Ok(first) => Some(first.token),
        Err(_) => Some(std::str::from_utf8(first).ok()?.trim().to_owned()),
    }
}

/// The hook that admits by a token, which `check` looks at: in a table, or by asking somebody. Who brings none is
/// refused with 401.
///
/// ```
/// use gobroke_core::{Admission, Broke, Grant, Refusal};
/// use gobroke_endpoints::bearer;
///
/// let builder = Broke::builder().on_connect(bearer(async |token: String, _request| match token.as_str() {
///     "0f9a" => Ok(Admission::anonymous().with_grant(Grant::of_subject("ann").token(token))),
///     _ => Err(Refusal::unauthorized("this token is not known")),
/// }));
/// # let _ = builder;
/// ```
///
/// Compare secrets in constant time, or look them up by their hash.
pub fn bearer<F, Fut>(
    check: F,
) -> impl Fn(ConnectRequest) -> Pin<Box<dyn Future<Output = Result<Admission, Refusal>> + Send>>
+ Send
+ Sync
+ 'static
where
    F: Fn(String, ConnectRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Admission, Refusal>> + Send + 'static,
{
    move |request| match bearer_token(&request) {
        Some(token) => Box::pin(check(token, request)),
        None => Box::pin(async { Err(Refusal::unauthorized("send a bearer token")) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_where_its_transport_lets_it_stand() {
        let mut request = ConnectRequest::from_remote(None);
        assert_eq!(bearer_token(&request), None);
        let found = |request: &ConnectRequest| bearer_token(request).expect("a token");
        request.first_frame = Some(r#"{"token":"json"}"#.into());
        assert_eq!(found(&request), "json");
        request.first_frame = Some("plain\n".into());
        assert_eq!(found(&request), "plain");
        request.query = Some("a=b&access_token=query".to_owned());
        assert_eq!(found(&request), "query");
        let header = |value: &str| vec![("authorization".to_owned(), value.to_owned())];
        request.headers = header("bearer header");
        assert_eq!(found(&request), "header");
        request.headers = header("Basic aGk=");
        assert_eq!(found(&request), "query");
    }
}
