//! A connection's first moments, before its protocol begins: whose it is ([`Peer`]).

use std::{net::SocketAddr, sync::Arc};

use gobroke_core::{ConnectRequest, EndpointError, Gate, Refusal, Slot, TlsInfo};
use tokio::net::TcpStream;

use super::Settings;

/// Where a connection comes from, as far as that is known yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) remote: Option<SocketAddr>,
    /// The proxy that says so.
    via: Option<SocketAddr>,
    pub(crate) tls: Option<Arc<TlsInfo>>,
}

/// A connection's stream, once it may carry its protocol.
pub(crate) enum Secured {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl Peer {
    pub(crate) fn new(remote: impl Into<Option<SocketAddr>>) -> Self {
        Self {
            remote: remote.into(),
            ..Self::default()
        }
    }

    /// Takes a proxy's word for it; the slot is counted for the client's address then, in the place of the proxy's.
    fn named(self, client: SocketAddr, slot: &mut Slot) -> Result<Self, Refusal> {
        if self.remote == Some(client) {
            return Ok(self);
        }
        slot.locate(client)?;
        Ok(Self {
            remote: Some(client),
            via: self.remote,
            tls: self.tls,
        })
    }

    pub(crate) fn connect_request(&self) -> ConnectRequest {
        let mut request = ConnectRequest::from_remote(self.remote);
        request.via = self.via;
        request.tls.clone_from(&self.tls);
        request
    }
}

impl Settings {
    /// Gets ready what has to be before the endpoint listens: certificates, and what watches over them.
    pub(crate) fn prepare(&self, gate: &Gate) -> Result<(), EndpointError> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            tls.reload()
                .map_err(|error| EndpointError::Other(error.into()))?;
            let closed = gate.clone();
            gate.spawn(tls.clone().watch(async move { closed.closing().await }));
        }
        let _ = gate;
        Ok(())
    }

    /// Whether it speaks TLS: nothing can be said to who has not begun to, then.
    pub(crate) fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// Counts a connection at its accept. One of a proxy is counted for its client's address once that is known.
    pub(crate) fn slot(&self, gate: &Gate, remote: Option<SocketAddr>) -> Result<Slot, Refusal> {
        let is_proxy = |remote: &SocketAddr| {
            let proxies = self.proxies.as_ref();
            proxies.is_some_and(|proxies| proxies.trust(remote.ip()))
        };
        gate.slot(remote.filter(|remote| !is_proxy(remote)))
    }

    /// Reads what stands before a connection's protocol: the header of a proxy. `None` where it has to be dropped.
    pub(crate) async fn greet(
        &self,
        gate: &Gate,
        stream: &mut TcpStream,
        remote: SocketAddr,
        slot: &mut Slot,
    ) -> Option<Result<Peer, Refusal>> {
        let peer = Peer::new(remote);
        let Some(proxies) = &self.proxies else {
            return Some(Ok(peer));
        };
        match proxies.read_header(stream, remote).await {
            Ok(client) => Some(peer.named(client, slot)),
            Err(error) => {
                gate.count_bad_input("proxy_header");
                tracing::debug!(%error, %remote, "a connection of a proxy is dropped");
                None
            }
        }
    }

    /// Does the TLS handshake where the endpoint speaks TLS, else gives the stream back. `None` where it failed.
    pub(crate) async fn secure(
        &self,
        gate: &Gate,
        stream: TcpStream,
        peer: &mut Peer,
    ) -> Option<Secured> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let (stream, info) = tls.accept(gate, stream).await?;
            peer.tls = Some(info);
            return Some(Secured::Tls(Box::new(stream)));
        }
        let _ = (gate, peer);
        Some(Secured::Plain(stream))
    }

    /// Reads what the headers of a request say of its client, where a proxy wrote them.
    #[cfg(any(feature = "ws", feature = "http"))]
    pub(crate) fn client_of(
        &self,
        peer: Peer,
        headers: &hyper::HeaderMap,
        slot: &mut Slot,
    ) -> Result<Peer, Refusal> {
        match (&self.proxies, peer.remote) {
            (Some(proxies), Some(remote)) => peer.named(proxies.client(remote, headers), slot),
            _ => Ok(peer),
        }
    }
}
