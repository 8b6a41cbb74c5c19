//! TLS with client certificates and sealed packets, and a user who may do what is needed and nothing else.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{sync::Arc, time::Duration};

use gobroke_core::{
    Broke, async_trait,
    cluster::{Cluster, conformance, conformance::Setup},
};
use gobroke_redis::RedisCluster;
use tokio::time::sleep;

use self::support::{
    Server,
    load::Load,
    sentinel::Watched,
    sharded::Sharded,
    way::{self, Certificates, Way},
};

/// What a user needs: also in `src/docs/operating.md`.
const ACL: &str = "~{gobroke}:* &{gobroke}:* -@all +ping +info +subscribe +publish +evalsha \
    +script|load +time +exists +hget +hset +hdel +hmget +hgetall +hincrby +hlen +hvals +hscan +zadd +zrem +zrange \
    +zrangebyscore +sadd +srem +spop +smembers";

/// How long there is load before a failover and after it.
const AROUND: Duration = Duration::from_millis(500);

/// A Redis that speaks TLS alone, beside the socket by which the test looks into it.
struct Secure {
    server: Server,
    way: Way,
    port: u16,
}

impl Secure {
    async fn start() -> Self {
        let (way, port) = (Way::Tls(Certificates::new()), way::port());
        let server = Server::start_with(way.arguments(port)).await;
        let mut user = vec!["ACL", "SETUSER", "router", "on", ">secret"];
        user.extend(ACL.split_whitespace());
        server.cli(&user).await;
        Self { server, way, port }
    }
}

#[async_trait]
impl Setup for Secure {
    async fn cluster(&self, _: &str) -> Arc<dyn Cluster> {
        let cluster = RedisCluster::from_client(self.way.client(self.port));
        let cluster = cluster.login("router", "secret");
        Arc::new(cluster.secret("sixteen bytes or more"))
    }

    async fn kill(&self, _: &str) {
        unreachable!("no check that kills is run here");
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(15)
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

/// Two instances of a user with few rights, in a namespace that is theirs.
async fn two(cluster: RedisCluster) -> Load {
    let cluster = cluster.login("router", "secret").namespace("apart-tls");
    let load = Load::start(vec![cluster.clone(), cluster]).await;
    sleep(AROUND).await;
    load
}

async fn nothing_is_lost(load: Load) {
    load.agrees().await;
    sleep(AROUND).await;
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
