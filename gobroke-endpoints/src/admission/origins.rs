//! Which web pages may connect: [`Origins`].

use std::sync::Arc;

use hyper::{
    HeaderMap, Uri,
    header::{HOST, HeaderValue, ORIGIN},
};

/// Which web pages may connect, by the `Origin` that browsers send with their requests (RFC 6454).
///
/// A browser lets any page open a WebSocket to any server, and sends that server's cookies along: without this check
/// a foreign page would talk to it in its visitor's name (RFC 6455, section 10.2). What does not come from a page has
/// no `Origin`, and is let through: a program can claim any, so this protects browsers' users, and nothing else.
///
/// Default: pages from the host that is asked, whatever scheme they came over. A proxy in front has to pass `Host` on
/// as it is; where it does not, name the origins.
///
/// ```
/// use gobroke_endpoints::Origins;
/// let origins = Origins::same_host().and("https://app.example.com");
/// # let _ = origins;
/// ```
#[derive(Clone, Debug)]
pub struct Origins {
    any: bool,
    same_host: bool,
    listed: Arc<[String]>,
}

impl Origins {
    /// Pages from the host and port that is asked.
    pub fn same_host() -> Self {
        Self {
            any: false,
            same_host: true,
            listed: Arc::new([]),
        }
    }

    /// No page but those that [`and`](Self::and) adds.
    pub fn none() -> Self {
        Self {
            same_host: false,
            ..Self::same_host()
        }
    }

    /// Any page: for servers that know their clients by something that a foreign page does not have (a token that the
    /// page has to send), never by a cookie.
    pub fn any() -> Self {
        Self {
            any: true,
            ..Self::same_host()
        }
    }

    /// Pages of this origin too: scheme, host and, unless it is the scheme's own, port. `https://app.example.com`,
    /// `http://localhost:3000`; `null` is what sandboxed frames and local files say.
    #[must_use]
    pub fn and(mut self, origin: impl Into<String>) -> Self {
        let mut listed = self.listed.to_vec();
        listed.push(origin.into().trim_end_matches('/').to_ascii_lowercase());
        self.listed = listed.into();
        self
    }

    /// Whether a request with these headers may connect. `uri` is what it asks for: with HTTP/2 the host stands there.
    pub(crate) fn allow(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            _ if self.any => true,
            (Some(origin), None) => self.allow_origin(origin, host(headers, uri)),
            (Some(_), Some(_)) => false,
        }
    }

    fn allow_origin(&self, origin: &HeaderValue, host: Option<&str>) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let origin = origin.to_ascii_lowercase();
        self.listed.contains(&origin)
            || (self.same_host && host.is_some_and(|host| is_of_host(&origin, host)))
    }

    /// Whether pages of this origin, from elsewhere, may read what is answered: what CORS asks.
    #[cfg(feature = "http")]
    pub(crate) fn share_with(&self, origin: &HeaderValue) -> bool {
        self.any || self.allow_origin(origin, None)
    }

    #[cfg(feature = "http")]
    pub(crate) fn is_any(&self) -> bool {
        self.any
    }
}

impl Default for Origins {
    fn default() -> Self {
        Self::same_host()
    }
}

fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    match headers.get(HOST) {
        Some(host) => host.to_str().ok(),
        None => uri.authority().map(|authority| authority.as_str()),
    }
}

/// Whether host and port are the same. The scheme is not asked: behind a proxy that ends TLS it is not known here.
fn is_of_host(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let without_default = |host: &str| {
        host.strip_suffix(default)
            .unwrap_or(host)
            .to_ascii_lowercase()
    };
    !authority.is_empty() && without_default(authority) == without_default(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(origins: &Origins, origin: &[&str], host: &str) -> bool {
        let mut headers = HeaderMap::new();
        for origin in origin {
            headers.append(ORIGIN, HeaderValue::from_str(origin).expect("a value"));
        }
        headers.insert(HOST, HeaderValue::from_str(host).expect("a value"));
        origins.allow(&headers, &Uri::from_static("/"))
    }

    #[test]
    fn pages_of_the_same_host_and_what_is_no_page_are_let_through() {
        let origins = Origins::default();
        for (origin, host) in [
            ("http://example.com", "example.com"),
            ("https://example.com", "example.com"),
            ("https://example.com", "EXAMPLE.com:443"),
            ("http://localhost:8080", "localhost:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert!(allows(&origins, &[origin], host), "{origin} at {host}");
        }
        assert!(allows(&origins, &[], "example.com"));
    }

    #[test]
    fn foreign_pages_are_not() {
        let origins = Origins::default();
        for (origin, host) in [
            ("http://evil.example", "example.com"),
            ("http://example.com.evil.example", "example.com"),
            ("http://example.com:8080", "example.com"),
            ("http://example.com", "example.com:443"),
            ("http://example.com@evil.example", "example.com"),
            ("null", "null"),
            ("http://", ""),
            ("file://", ""),
            ("", ""),
            ("chrome-extension://example.com", "example.com"),
        ] {
            assert!(!allows(&origins, &[origin], host), "{origin} at {host}");
        }
        let two = ["http://example.com", "http://example.com"];
        assert!(!allows(&origins, &two, "example.com"));
    }

    #[test]
    fn listed_origins_are_whole_origins() {
        let origins = Origins::none().and("https://App.example.com/");
        assert!(allows(
            &origins,
            &["https://app.example.com"],
            "api.example.com"
        ));
        assert!(!allows(
            &origins,
            &["http://app.example.com"],
            "api.example.com"
        ));
        assert!(!allows(
            &origins,
            &["https://api.example.com"],
            "api.example.com"
        ));
        assert!(allows(
            &Origins::any(),
            &["https://x.example"],
            "api.example.com"
        ));
    }

    #[test]
    fn over_http_2_the_host_stands_in_what_is_asked_for() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("https://example.com"));
        let origins = Origins::default();
        assert!(origins.allow(&headers, &Uri::from_static("https://example.com/events")));
        assert!(!origins.allow(&headers, &Uri::from_static("https://evil.example/events")));
        assert!(!origins.allow(&headers, &Uri::from_static("/events")));
    }
}
