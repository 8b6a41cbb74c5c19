//! TLS with client certificates and sealed packets, and a user who may do what is needed and nothing else.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::sync::Arc;

use gobroke_core::{Broke, async_trait, cluster::conformance};
use gobroke_redis::RedisCluster;

use self::support::{
    Far, Proxy, Server,
    apart::{Apart, Shared},
    load::Load,
    sentinel::{ACL, Watched},
    server::Program,
    sharded::Sharded,
    way::{self, Certificates, Way},
};

/// A Redis that speaks TLS alone, beside the socket by which the test looks into it.
struct Secure {
    server: Server,
    way: Way,
    port: u16,
}

impl Secure {
    async fn start() -> Self {
        let (way, port) = (Way::Tls(Certificates::new()), way::port());
        let server = Server::start_with(Program::Redis, way.arguments(port)).await;
        // The same for namespaces of tests.
        let acl = ACL.replace("{gobroke}", "{apart-*}");
        let mut user = vec!["ACL", "SETUSER", "router", "on", ">secret"];
        user.extend(acl.split_whitespace());
        server.cli(&user).await;
        Self { server, way, port }
    }
}

#[async_trait]
impl Shared for Secure {
    async fn behind_proxies(&self) -> (Vec<Proxy>, RedisCluster) {
        let proxy = Proxy::start(Far::Port(self.port, Arc::default())).await;
        let cluster = RedisCluster::from_client(self.way.client(proxy.addr().port()));
        let cluster = cluster.login("router", "secret");
        (vec![proxy], cluster.secret("sixteen bytes or more"))
    }

    async fn lose_directory(&self, _: &str) {
        self.server.cli(&["FLUSHALL"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_cluster_promises_holds_over_tls_for_a_user_who_may_do_only_what_is_needed() {
    let secure = Arc::new(Secure::start().await);
    conformance::run(async || Apart::new(&secure)).await;
    let denied = secure.server.cli(&["ACL", "LOG"]).await;
    assert_eq!(denied, redis::Value::Array(Vec::new()));
}

/// Two instances of a user with few rights, in a namespace that is theirs.
async fn two(cluster: RedisCluster) -> Load {
    let cluster = cluster.login("router", "secret").namespace("apart-tls");
    let load = Load::start(vec![cluster.clone(), cluster]).await;
    load.flows().await;
    load
}

async fn nothing_is_lost(load: Load) {
    load.agrees().await;
    load.flows().await;
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_sentinels_is_made_up_for_over_tls() {
    let watched = Watched::start_by(Way::Tls(Certificates::new())).await;
    let load = two(watched.cluster()).await;
    watched.fail_over().await;
    nothing_is_lost(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_in_a_redis_cluster_is_made_up_for_over_tls_with_sealed_packets() {
    let sharded = Sharded::start_by(Way::Tls(Certificates::new())).await;
    let directory = sharded.slot_of("{apart-tls}").await;
    let load = two(sharded.cluster().secret("sixteen bytes or more")).await;
    sharded.fail_over(directory).await;
    nothing_is_lost(load).await;
}

#[tokio::test]
async fn a_server_that_nobody_trusted_certified_is_refused_with_the_reason() {
    let secure = Secure::start().await;
    let url = secure.way.url(secure.port);
    let another = Certificates::new().of_clients();
    for cluster in [
        RedisCluster::new(&*url),
        RedisCluster::new(&*url).certificates(&another),
    ] {
        let started = Broke::builder().instance("one").cluster(cluster).start();
        let refused = format!("{:?}", started.await.err());
        assert!(
            refused.contains("cannot connect") && refused.contains("certificate"),
            "{refused}"
        );
    }
    let open =
        RedisCluster::new("redis://127.0.0.1:1").certificates(&Certificates::new().of_clients());
    let started = Broke::builder().instance("one").cluster(open).start();
    let refused = format!("{:?}", started.await.err());
    assert!(refused.contains("rediss://"), "{refused}");
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
    // Each version has words of its own for it.
    let says_why = [
        "can't run this command",
        "no permissions to run the 'hset' command",
    ]
    .iter()
    .any(|why| denied.contains(why));
    assert!(
        denied.contains("drawing an incarnation") && says_why,
        "{denied}"
    );
}
