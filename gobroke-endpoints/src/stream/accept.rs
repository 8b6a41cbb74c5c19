//! Accepting connections: [`Listener`].

use std::{io, net::SocketAddr, time::Duration};

use gobroke_core::{EndpointError, Gate};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

/// How long the loop rests after a first error of `accept`; doubled with every further one.
const FIRST_REST: Duration = Duration::from_millis(5);
/// How long it rests at most.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Accepts until the gate closes. An error of `accept` (no file descriptor left, say) neither stops nor spins it.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    rest: Option<Duration>,
}

impl Listener {
    /// Listens on `address`, a socket address or a host name with a port, and says so to the gate.
    pub(crate) async fn bind(address: &str, gate: &Gate) -> Result<Self, EndpointError> {
        let failed = |source| EndpointError::Bind {
            address: address.to_owned(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        gate.ready(Some(listener.local_addr().map_err(failed)?));
        Ok(Self {
            listener,
            rest: None,
        })
    }

    /// The next connection; `None` once the gate closes. Cancel-safe.
    pub(crate) async fn next(&mut self, gate: &Gate) -> Option<(TcpStream, SocketAddr)> {
        loop {
            tokio::select! {
                biased;
                () = gate.closing() => return None,
                accepted = self.accept(gate) => if let Some(accepted) = accepted {
                    return Some(accepted);
                },
            }
        }
    }

    async fn accept(&mut self, gate: &Gate) -> Option<(TcpStream, SocketAddr)> {
        if let Some(rest) = self.rest {
            tokio::time::sleep(rest).await;
        }
        match self.listener.accept().await {
            Ok(accepted) => {
                self.rest = None;
                Some(accepted)
            }
            // These are about one connection that broke before it was accepted: the next one is there to be had.
            Err(error) if is_of_one_connection(&error) => None,
            Err(error) => {
                let rest = self
                    .rest
                    .map_or(FIRST_REST, |rest| (rest * 2).min(LONGEST_REST));
                gate.count_accept_error();
                tracing::warn!(%error, ?rest, "cannot accept connections; trying again after a rest");
                self.rest = Some(rest);
                None
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Sets a connection's socket: no waiting for more to send, and probes after a minute of silence, so that a peer that
/// vanished is noticed within about two.
pub(crate) fn tune(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        // It fails where the peer is gone already, which the first read says too.
        tracing::debug!(%error, "a socket option was not set");
    }
}
