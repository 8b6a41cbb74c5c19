//! Certificates: [`Authority`].

#![allow(dead_code, reason = "each test program uses its part of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gobroke_endpoints::Tls;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, ConfigBuilder, RootCertStore,
        client::WantsClientCert,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// A directory with an authority's certificate, and what that signed.
pub(crate) struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let directory = tempfile::tempdir().expect("a directory");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("it is written");
        let issuer = Issuer::new(params, key);
        Self { directory, issuer }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Signs a certificate and writes it, its key before it, as `name.pem` and `name.key`.
    pub(crate) fn sign(&self, name: &str) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("it is written");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("it is written");
    }

    pub(crate) fn server(&self) -> Tls {
        self.sign("server");
        Tls::files(self.path("server.pem"), self.path("server.key"))
    }

    /// A client that trusts this authority, with a certificate that `by` signed, if any.
    pub(crate) fn client(&self, certificate: Option<(&Authority, &str)>) -> TlsConnector {
        let builder = trusting(&self.path("ca.pem"));
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some((by, name)) => {
                let pem = by.path(&format!("{name}.pem"));
                let chain = vec![CertificateDer::from_pem_file(pem).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_file(by.path(&format!("{name}.key")));
                builder
                    .with_client_auth_cert(chain, key.expect("a key"))
                    .expect("they belong together")
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// What a client is made of that trusts the authority with this certificate.
pub(crate) fn trusting(authority: &Path) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority).expect("a certificate");
    roots.add(certificate).expect("a good one");
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
}
