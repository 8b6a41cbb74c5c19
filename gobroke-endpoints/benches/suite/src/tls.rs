//! TLS: the certificate that a server is given, and what both ends do with it. The cryptography is that of `ring`
//! everywhere.

use std::{io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// What the certificate is for.
pub const NAME: &str = "localhost";
/// Where a server that is to speak TLS finds its certificate and its key.
const CERTIFICATE: &str = "BENCH_CERTIFICATE";
const KEY: &str = "BENCH_KEY";

/// A certificate that its own key has signed, and that key, both as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    pub fn new() -> io::Result<Self> {
        let made =
            rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(io::Error::other)?;
        Ok(Self {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        })
    }

    /// What the server was started with; none where it is to speak without TLS.
    pub fn from_env() -> Option<Self> {
        Some(Self {
            certificate: std::env::var(CERTIFICATE).ok()?,
            key: std::env::var(KEY).ok()?,
        })
    }

    /// What a server is started with.
    pub fn to_env(&self) -> [(&'static str, &str); 2] {
        [(CERTIFICATE, &self.certificate), (KEY, &self.key)]
    }

    /// What a server accepts with.
    pub fn server(&self) -> io::Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(self.chain()?, key);
        Ok(Arc::new(config.map_err(io::Error::other)?))
    }

    /// What a client connects with: it trusts this certificate alone.
    pub fn client(&self) -> io::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.chain()?);
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        Ok(Arc::new(
            config.with_root_certificates(roots).with_no_client_auth(),
        ))
    }

    fn chain(&self) -> io::Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
