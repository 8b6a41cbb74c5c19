//! TLS with client certificates and sealed packets, and a user who may do what is needed and nothing else.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{net::TcpListener, sync::Arc};

use gobroke_core::{
    Broke, async_trait,
    cluster::{Cluster, conformance, conformance::Setup},
};
use gobroke_redis::{
    RedisCluster,
    redis::{Client, ClientTlsConfig, TlsCertificates},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use self::support::Server;

/// What a user needs: also in `src/docs/operating.md`.
const ACL: &str = "~{gobroke}:* &{gobroke}:* -@all +ping +info +subscribe +publish +evalsha \
    +script|load +time +exists +hget +hset +hdel +hmget +hgetall +hincrby +hlen +hscan +zadd +zrem +zrange \
    +zrangebyscore +sadd +srem +spop +smembers";

/// A Redis that speaks TLS alone, beside the socket by which the test looks into it.
struct Secure {
    server: Server,
    port: u16,
    authority: String,
    certificate: String,
    key: String,
    _files: TempDir,
}

impl Secure {
    async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| files.path().join(name).display().to_string();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "the test's authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        std::fs::write(path("ca"), authority.pem()).unwrap();
        std::fs::write(path("certificate"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        // Free a moment ago; the server cannot choose one by itself.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Server::start(&[
            "--tls-port",
            &port.to_string(),
            "--tls-ca-cert-file",
            &path("ca"),
            "--tls-cert-file",
            &path("certificate"),
            "--tls-key-file",
            &path("key"),
            "--tls-auth-clients",
            "yes",
        ])
        .await;
        let mut user = vec!["ACL", "SETUSER", "router", "on", ">secret"];
        user.extend(ACL.split_whitespace());
        server.cli(&user).await;
        Self {
            server,
            port,
            authority: authority.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            _files: files,
        }
    }

    fn client(&self) -> Client {
        let certificates = TlsCertificates {
            client_tls: Some(ClientTlsConfig {
                client_cert: self.certificate.clone().into_bytes(),
                client_key: self.key.clone().into_bytes(),
            }),
            root_cert: Some(self.authority.clone().into_bytes()),
        };
        let url = format!("rediss://router:secret@localhost:{}", self.port);
        Client::build_with_tls(url, certificates).unwrap()
    }
}

#[async_trait]
impl Setup for Secure {
    async fn cluster(&self, _: &str) -> Arc<dyn Cluster> {
        Arc::new(RedisCluster::from_client(self.client()).secret("sixteen bytes or more"))
    }

    async fn kill(&self, _: &str) {
        unreachable!("no check that kills is run here");
    }

    fn lease(&self) -> std::time::Duration {
        std::time::Duration::from_secs(15)
    }

    async fn lose_directory(&self) -> bool {
        self.server.cli(&["FLUSHALL"]).await;
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_promises_hold_over_tls_for_a_user_who_may_do_only_what_is_needed() {
    conformance::messages_arrive_once_and_in_order(&Secure::start().await, 1).await;
    conformance::only_instances_with_members_get_a_groups_messages(&Secure::start().await).await;
    conformance::joins_are_ordered_with_the_messages_around(&Secure::start().await).await;
    conformance::listings_cover_all_instances_in_pages(&Secure::start().await).await;
    conformance::every_instance_knows_the_same_of_a_client(&Secure::start().await).await;
    conformance::a_reconnect_elsewhere_replaces_the_older_session(&Secure::start().await).await;
    conformance::lost_records_are_written_again(&Secure::start().await).await;
    let secure = Secure::start().await;
    conformance::an_instance_that_stops_is_gone_at_once(&secure).await;
    let denied = secure.server.cli(&["ACL", "LOG"]).await;
    assert_eq!(
        denied,
        redis::Value::Array(Vec::new()),
        "nothing was denied"
    );
}

#[test]
fn the_rights_of_the_page_on_operating_are_those_that_were_tried() {
    let page = include_str!("../src/docs/operating.md");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(page).contains(&words(ACL)));
}

#[tokio::test]
async fn what_cannot_be_worked_with_is_refused_with_the_reason() {
    let refusal = async |cluster: RedisCluster| {
        let started = Broke::builder()
            .instance("one")
            .cluster(cluster)
            .start()
            .await;
        started
            .err()
            .map(|error| format!("{error:?}"))
            .unwrap_or_default()
    };
    let server = Server::start(&[]).await;
    let over = || RedisCluster::new(server.url());
    server
        .cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    let evicting = refusal(over()).await;
    assert!(
        evicting.contains("allkeys-lru") && evicting.contains("noeviction"),
        "{evicting}"
    );
    server
        .cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    assert_eq!(refusal(over()).await, "");
    let spaced = refusal(over().namespace("a b")).await;
    assert!(spaced.contains("namespace"), "{spaced}");
    let nonsense = refusal(RedisCluster::new("nonsense://x")).await;
    assert!(nonsense.contains("address"), "{nonsense}");
    let nobody = refusal(RedisCluster::new("unix:///nowhere/redis.sock")).await;
    assert!(nobody.contains("cannot connect"), "{nobody}");
    server.cli(&["ACL", "SETUSER", "default", "-hset"]).await;
    let denied = refusal(over()).await;
    assert!(
        denied.contains("drawing an incarnation") && denied.contains("can't run this command"),
        "{denied}"
    );
}
