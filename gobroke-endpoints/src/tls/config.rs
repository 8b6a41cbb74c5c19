//! From PEM files to what rustls takes: [`Files`]; and from what a client showed to what the program sees.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use gobroke_core::{TlsClient, TlsInfo};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::TlsError;

/// Where certificates and keys are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) certificates: PathBuf,
    pub(super) key: PathBuf,
    /// The authorities of clients' certificates.
    pub(super) clients: Option<PathBuf>,
    /// Whether a client without one is taken too.
    pub(super) optional: bool,
}

impl Files {
    /// A number that changes with what stands in them. A file that cannot be read counts as one without contents.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let files = [
            Some(&self.certificates),
            Some(&self.key),
            self.clients.as_ref(),
        ];
        for file in files.into_iter().flatten() {
            std::fs::read(file).ok().hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(super) fn load(&self) -> Result<ServerConfig, TlsError> {
        let unusable = |error: tokio_rustls::rustls::Error| TlsError::Unusable(error.to_string());
        let chain = certificates(&self.certificates)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| bad(&self.key, &error))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match &self.clients {
            Some(authorities) => builder.with_client_cert_verifier(self.verifier(authorities)?),
            None => builder.with_no_client_auth(),
        };
        builder.with_single_cert(chain, key).map_err(unusable)
    }

    fn verifier(&self, authorities: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities)? {
            roots
                .add(authority)
                .map_err(|error| bad(authorities, &error))?;
        }
        let provider = Arc::new(ring::default_provider());
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if self.optional {
            verifier = verifier.allow_unauthenticated();
        }
        verifier.build().map_err(|error| bad(authorities, &error))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| bad(file, &error))?;
    let found: Vec<_> = read
        .collect::<Result<_, _>>()
        .map_err(|error| bad(file, &error))?;
    if found.is_empty() {
        return Err(bad(file, &"there is no certificate in it"));
    }
    Ok(found)
}

fn bad(file: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

/// What the handshake told.
pub(super) fn info(connection: &ServerConnection) -> TlsInfo {
    let mut info = TlsInfo::default();
    if let Some(version) = connection
        .protocol_version()
        .and_then(|version| version.as_str())
    {
        // rustls writes TLSv1_3.
        info.version = version.replace('_', ".");
    }
    info.server_name = connection.server_name().map(str::to_owned);
    info.client = connection.peer_certificates().and_then(client);
    info
}

/// Who showed this chain, which rustls has verified.
fn client(chain: &[CertificateDer<'_>]) -> Option<TlsClient> {
    let certificate = Certificate::from_der(chain.first()?).ok()?;
    let certificate = certificate.tbs_certificate();
    let mut client = TlsClient::default();
    client.subject = certificate.subject().to_string();
    if let Ok(Some((_, SubjectAltName(names)))) = certificate.get_extension() {
        client.names = names.iter().filter_map(name).collect();
    }
    client.chain = chain
        .iter()
        .map(|one| Bytes::copy_from_slice(one))
        .collect();
    Some(client)
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name)
        | GeneralName::Rfc822Name(name)
        | GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        GeneralName::IpAddress(address) => {
            let address = address.as_bytes();
            let v4 = || <[u8; 4]>::try_from(address).map(IpAddr::from);
            let v6 = <[u8; 16]>::try_from(address).map(IpAddr::from);
            Some(v6.or_else(|_| v4()).ok()?.to_string())
        }
        _ => None,
    }
}
