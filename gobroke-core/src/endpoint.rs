//! What an endpoint is ([`Endpoint`]), how it is set ([`EndpointOptions`]), and what it tells of a connection before
//! that is admitted ([`ConnectRequest`]).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

use crate::{ClientId, Gate, Grant, Metadata, Name, delivery::Overflow, error::EndpointError};

/// A way in: it accepts connections, admits them through the [`Gate`], and carries bytes both ways.
///
/// Writing one takes a page; see the guide in [`docs::endpoints`](crate::docs::endpoints).
#[async_trait]
pub trait Endpoint: Send + Sync + 'static {
    /// What it is called: in [`Client::endpoint`](crate::Client::endpoint), in statistics and traces.
    fn name(&self) -> Name;

    /// Its bounds and times. Default: [`EndpointOptions::default`].
    fn options(&self) -> EndpointOptions {
        EndpointOptions::default()
    }

    /// Listens until the gate closes.
    ///
    /// It says [`Gate::ready`] once it listens (`start` waits for that), accepts until [`Gate::closing`], and returns.
    /// Connections run in tasks of their own ([`Gate::spawn`]) and end when their sessions are closed.
    ///
    /// # Errors
    /// Why it cannot listen (a port in use), or why it had to stop.
    async fn serve(&self, gate: Gate) -> Result<(), EndpointError>;
}

/// The bounds and times of an endpoint's connections.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointOptions {
    /// How many bytes may wait for one client. Default: 1 MiB.
    pub outbox_bytes: usize,
    /// How many messages may wait for one client. Default: 1,024.
    pub outbox_messages: usize,
    /// What happens to a message for a client whose outbox is full. Default: disconnect it.
    pub overflow: Overflow,
    /// How long a lane under load may rest to gather messages; zero for never. Default: 10 ms.
    ///
    /// A lane that serves several endpoints keeps the smallest.
    pub coalesce: Duration,
    /// How long nothing may come from a client before it is pinged; `None` for never. Default: 25 s.
    pub ping_interval: Option<Duration>,
    /// How long a pong may take. Default: 10 s.
    pub pong_timeout: Duration,
    /// How long a socket may take nothing of what waits for it. Default: 10 s.
    pub write_stall: Duration,
    /// How long a message may wait at the door for a busy logic module, before its client is told `busy`.
    /// Default: 10 s.
    pub door_timeout: Duration,
    /// How long a connection may take until it is admitted. Default: 10 s.
    pub handshake_timeout: Duration,
    /// The largest frame and message from a client, in bytes. Default: 1 MiB.
    pub max_message: usize,
    /// How many connections at a time. Default: 100,000.
    pub max_connections: usize,
    /// How many of them from one address (IPv6: from one /64, RFC 6177). Default: unlimited.
    pub max_connections_per_address: Option<usize>,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            outbox_bytes: 1 << 20,
            outbox_messages: 1024,
            overflow: Overflow::Disconnect,
            coalesce: Duration::from_millis(10),
            ping_interval: Some(Duration::from_secs(25)),
            pong_timeout: Duration::from_secs(10),
            write_stall: Duration::from_secs(10),
            door_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            max_message: 1 << 20,
            max_connections: 100_000,
            max_connections_per_address: None,
        }
    }
}

/// What an endpoint knows of a connection that asks to be admitted: what the `on_connect` hook decides on.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// The endpoint's name. Set by the gate.
    pub endpoint: Option<Name>,
    /// The address that it came from, where the transport has one: the client's own, where a trusted proxy names it.
    pub remote: Option<SocketAddr>,
    /// The address of the proxy whose word for [`remote`](Self::remote) was taken; `None` where there is none.
    pub via: Option<SocketAddr>,
    /// The path that was asked for (WebSocket, HTTP).
    pub path: Option<String>,
    /// The query that came with it, undecoded and without the `?`.
    pub query: Option<String>,
    /// The headers, names in lower case, values as they came where they are readable text.
    pub headers: Vec<(String, String)>,
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<String>,
    /// The subprotocols that the client offered, the one that it likes best first.
    pub subprotocols: Vec<String>,
    /// What TLS told, where the endpoint speaks it.
    pub tls: Option<Arc<TlsInfo>>,
    /// The first frame, on a stream of frames (TCP) whose endpoint was told to wait for it: a token, say. It is not
    /// routed.
    pub first_frame: Option<Bytes>,
}

impl ConnectRequest {
    /// A request from this address.
    pub fn from_remote(remote: impl Into<Option<SocketAddr>>) -> Self {
        Self {
            remote: remote.into(),
            ..Self::default()
        }
    }

    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a cookie (RFC 6265, section 4.2), as it came; the first of this name.
    ///
    /// A page that is not yours can make a browser send your cookies along: see the endpoint on which origins it takes.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == "cookie")
            .flat_map(|(_, line)| line.split(';'))
            .find_map(|pair| {
                pair.trim()
                    .strip_prefix(name)?
                    .strip_prefix('=')
                    .map(|value| value.trim_matches('"'))
            })
    }

    /// The value of a parameter of the query, undecoded; the first of this name.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        let pairs = self.query.as_deref()?.split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// What a TLS handshake told of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version that was agreed on: `TLSv1.3`, `TLSv1.2`.
    pub version: String,
    /// The name that the client asked for (SNI, RFC 6066, section 3).
    pub server_name: Option<String>,
    /// Who the client is, where it showed a certificate and that was found good.
    pub client: Option<TlsClient>,
}

/// A client that showed a certificate, which was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsClient {
    /// The certificate's subject, as RFC 4514 writes it: `CN=sensor-7,O=Example`.
    pub subject: String,
    /// Its alternative names: host names, addresses of mail, URIs, and IP addresses.
    pub names: Vec<String>,
    /// The chain that the client showed, its own certificate first, each in DER.
    pub chain: Vec<Bytes>,
}

/// What the `on_connect` hook answers: who the client is, and what it starts with.
///
/// ```
/// use gobroke_core::Admission;
/// let admission = Admission::anonymous().with_metadata("name", "Ann").in_group("lobby");
/// # let _ = admission;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Admission {
    pub(crate) id: Option<ClientId>,
    pub(crate) metadata: Metadata,
    pub(crate) groups: Vec<Name>,
    pub(crate) grant: Option<Grant>,
}

impl Admission {
    /// A client that is not known: it gets a fresh id.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A client that is known: an older connection of the same id is closed as replaced.
    pub fn identified(id: ClientId) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }

    /// Gives the client metadata.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Says by what it is let in, and until when; that can be renewed and revoked. Default: nothing, for as long as it
    /// likes.
    #[must_use]
    pub fn with_grant(mut self, grant: Grant) -> Self {
        self.grant = Some(grant);
        self
    }

    /// Puts the client into a group from its first message on.
    #[must_use]
    pub fn in_group(mut self, group: impl Into<Name>) -> Self {
        self.groups.push(group.into());
        self
    }
}

/// Why a connection is not admitted.
///
/// ```
/// use gobroke_core::Refusal;
/// let refusal = Refusal::unauthorized("the token has ended; sign in again");
/// assert_eq!(refusal.status(), 401);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused with {status}: {reason}")]
pub struct Refusal {
    status: u16,
    reason: String,
}

impl Refusal {
    /// A refusal with a status of HTTP (RFC 9110, section 15) and a reason that the client can read.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
        }
    }

    /// 401: the client did not say who it is, or not well enough.
    pub fn unauthorized(reason: impl Into<String>) -> Self {
        Self::new(401, reason)
    }

    /// 403: the client may not.
    pub fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(403, reason)
    }

    /// 429: this address has as many connections as it may.
    pub fn too_many(reason: impl Into<String>) -> Self {
        Self::new(429, reason)
    }

    /// 503: the server has no room, or is on its way down.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(503, reason)
    }

    /// The status of HTTP that says the same.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason, for the client.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_and_parameters_are_found_by_their_whole_name() {
        let mut request = ConnectRequest::from_remote(None);
        request.query = Some("retoken=1&token=a%20b&token=c&flag".to_owned());
        request.headers = [
            ("cookie", "sid2=x; sid=\"y\""),
            ("x", "sid=z"),
            ("cookie", "late=1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        assert_eq!(request.query_value("token"), Some("a%20b"));
        assert_eq!(request.query_value("flag"), None);
        assert_eq!(request.cookie("sid"), Some("y"));
        assert_eq!(request.cookie("late"), Some("1"));
        assert_eq!(request.cookie("si"), None);
    }
}
