//! How the servers of a test are spoken to: in the open, or over TLS with certificates of the test's own.

use std::net::TcpListener;

use gobroke_redis::RedisCluster;
use redis::IntoConnectionInfo;

#[cfg(feature = "tls")]
pub(crate) use self::tls::Certificates;

/// Free a moment ago; a server cannot choose one by itself.
pub(crate) fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) enum Way {
    Open,
    #[cfg(feature = "tls")]
    Tls(Certificates),
}

impl Way {
    /// What a server is told that listens on a port by it, and speaks to others by it.
    pub(crate) fn options(&self, port: u16) -> Vec<(&'static str, String)> {
        match self {
            Self::Open => vec![("port", port.to_string())],
            #[cfg(feature = "tls")]
            Self::Tls(certificates) => certificates.options(port),
        }
    }

    /// The same, as a server's arguments.
    pub(crate) fn arguments(&self, port: u16) -> Vec<String> {
        let options = self.options(port).into_iter();
        let arguments = options.flat_map(|(name, value)| [format!("--{name}"), value]);
        arguments.collect()
    }

    pub(crate) fn url(&self, port: u16) -> String {
        let scheme = match self {
            Self::Open => "redis",
            #[cfg(feature = "tls")]
            Self::Tls(_) => "rediss",
        };
        format!("{scheme}://127.0.0.1:{port}")
    }

    pub(crate) fn client(&self, port: u16) -> redis::Client {
        let info = self.url(port).into_connection_info().unwrap();
        // It needs no right for that.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_redis_settings(settings);
        let client = match self {
            Self::Open => redis::Client::open(info),
            #[cfg(feature = "tls")]
            Self::Tls(certificates) => {
                redis::Client::build_with_tls(info, certificates.of_clients())
            }
        };
        client.unwrap()
    }

    /// Gives an instance what it needs to speak so.
    pub(crate) fn equip(&self, cluster: RedisCluster) -> RedisCluster {
        match self {
            Self::Open => cluster,
            #[cfg(feature = "tls")]
            Self::Tls(certificates) => cluster.certificates(&certificates.of_clients()),
        }
    }
}

#[cfg(feature = "tls")]
mod tls {
    use gobroke_redis::redis::{ClientTlsConfig, TlsCertificates};
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use tempfile::TempDir;

    /// An authority that nobody else trusts, and what it certified: the same for servers and clients.
    pub(crate) struct Certificates {
        files: TempDir,
    }

    impl Certificates {
        pub(crate) fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let name = "the test's authority";
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let authority = CertifiedIssuer::self_signed(params, key).unwrap();
            let key = KeyPair::generate().unwrap();
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let params = CertificateParams::new(names).unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            let files = tempfile::tempdir().unwrap();
            for (name, text) in [
                ("ca", authority.pem()),
                ("certificate", certificate.pem()),
                ("key", key.serialize_pem()),
            ] {
                std::fs::write(files.path().join(name), text).unwrap();
            }
            Self { files }
        }

        /// A server that takes no client without a certificate.
        pub(super) fn options(&self, port: u16) -> Vec<(&'static str, String)> {
            let file = |name| self.files.path().join(name).display().to_string();
            vec![
                ("port", "0".to_owned()),
                ("tls-port", port.to_string()),
                ("tls-ca-cert-file", file("ca")),
                ("tls-cert-file", file("certificate")),
                ("tls-key-file", file("key")),
                ("tls-auth-clients", "yes".to_owned()),
                ("tls-replication", "yes".to_owned()),
                ("tls-cluster", "yes".to_owned()),
            ]
        }

        pub(crate) fn of_clients(&self) -> TlsCertificates {
            let file = |name| std::fs::read(self.files.path().join(name)).unwrap();
            TlsCertificates {
                client_tls: Some(ClientTlsConfig {
                    client_cert: file("certificate"),
                    client_key: file("key"),
                }),
                root_cert: Some(file("ca")),
            }
        }
    }
}
