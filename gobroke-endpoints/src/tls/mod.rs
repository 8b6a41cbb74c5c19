//! TLS: [`Tls`].

mod config;
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use gobroke_core::{Gate, TlsInfo};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use self::config::Files;

/// TLS 1.2 and 1.3 (rustls), with a certificate and a key from PEM files, for an endpoint with an address of its own.
///
/// The files are read at the start, on SIGHUP, and whenever they changed (they are looked at every ten seconds), or when
/// the program calls [`reload`](Self::reload). Connections that are there keep what they have; new ones get what was
/// read last. Files that cannot be read, or do not belong together, change nothing, and are told as a warning.
///
/// ```no_run
/// use gobroke_endpoints::{Tls, WebSocketEndpoint};
/// let endpoint = WebSocketEndpoint::bind("0.0.0.0:8443").tls(Tls::files("fullchain.pem", "key.pem"));
/// # let _ = endpoint;
/// ```
///
/// # Clients' certificates
/// With [`require_clients`](Self::require_clients) a client without a good certificate is refused in the handshake, with
/// [`ask_clients`](Self::ask_clients) one without any is let through to the `on_connect` hook, which sees the subject
/// ([`TlsClient`](gobroke_core::TlsClient)) where there is one:
///
/// ```no_run
/// use gobroke_core::{Admission, Broke, ConnectRequest, Refusal};
/// use gobroke_endpoints::{TcpEndpoint, Tls};
///
/// let builder = Broke::builder()
///     .endpoint(TcpEndpoint::bind("0.0.0.0:9443").tls(Tls::files("chain.pem", "key.pem").require_clients("ca.pem")))
///     .on_connect(async |request: ConnectRequest| {
///         let client = request.tls.as_ref().and_then(|tls| tls.client.as_ref());
///         let client = client.ok_or_else(|| Refusal::unauthorized("show a certificate"))?;
///         Ok(Admission::anonymous().with_metadata("subject", client.subject.as_str()))
///     });
/// # let _ = builder;
/// ```
///
/// # What it costs
/// A lane writes plain TCP by itself; over TLS each connection's own task encrypts and writes, whole batches at a time:
/// encryption takes its time, and would hold up everybody behind it in the lane. The cryptography is that of `ring`.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Files,
    current: Arc<RwLock<Option<Arc<ServerConfig>>>>,
}

/// Why certificates and keys cannot be used. What was used before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or has nothing in it of what it should have.
    #[error("cannot read {}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The files are good each by itself, and cannot be used together.
    #[error("the certificate and the key cannot be used: {0}")]
    Unusable(String),
}

impl Tls {
    /// The server's certificate, followed by those between it and the root, in one PEM file; and its key (PKCS #8, PKCS
    /// #1 or SEC 1) in another, or in the same.
    pub fn files(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        Self {
            files: Files {
                certificates: certificates.as_ref().to_owned(),
                key: key.as_ref().to_owned(),
                clients: None,
                optional: false,
            },
            current: Arc::default(),
        }
    }

    /// Takes clients alone that show a certificate of an authority in this PEM file.
    #[must_use]
    pub fn require_clients(mut self, authorities: impl AsRef<Path>) -> Self {
        self.files.clients = Some(authorities.as_ref().to_owned());
        self.files.optional = false;
        self
    }

    /// Asks clients for a certificate of an authority in this PEM file, and takes those without one as well. One that
    /// shows a certificate that is not good is refused all the same.
    #[must_use]
    pub fn ask_clients(mut self, authorities: impl AsRef<Path>) -> Self {
        self.files.clients = Some(authorities.as_ref().to_owned());
        self.files.optional = true;
        self
    }

    /// Reads the files again, now. Clones of it, such as the one that an endpoint was given, use what was read.
    ///
    /// Reads files as they are read, blocking: a few milliseconds.
    ///
    /// # Errors
    /// What is wrong with the files. What was used before is used on.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = Arc::new(self.files.load()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(config);
        Ok(())
    }

    /// Does the handshake, with what was read last. `None` where that fails: the peer has been told by an alert.
    pub(crate) async fn accept(
        &self,
        gate: &Gate,
        stream: TcpStream,
    ) -> Option<(TlsStream<TcpStream>, Arc<TlsInfo>)> {
        let current = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let acceptor = TlsAcceptor::from(current?);
        match acceptor.accept(stream).await {
            Ok(stream) => {
                let info = config::info(stream.get_ref().1);
                Some((stream, Arc::new(info)))
            }
            Err(error) => {
                gate.count_bad_input("tls_handshake");
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }
}
