//! Who joins late, and what is missing while instances write again what was lost.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::time::Duration;

use futures_util::StreamExt;
use gobroke_core::{Broke, ClientId, Message, testing::TestEndpoint};
use gobroke_redis::RedisCluster;
use redis::Value;
use tokio::sync::mpsc;

use self::support::{
    Redis, Server,
    load::{start, stats},
    until,
};

/// Heartbeats come each fifth of it.
const LEASE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_started_without_redis_does_not_join_one_that_could_take_its_keys() {
    let mut server = Server::start(&["--maxmemory-policy", "allkeys-lru"]).await;
    server.kill();
    let cluster = RedisCluster::new(server.url()).optional();
    let one = start("one", cluster.clone()).await;
    server.run().await;
    let failed = cluster.stats().failed;
    until("it was refused", async || {
        cluster.stats().failed > failed + 3
    })
    .await;
    assert!(!one.0.is_ready());
    let instances = server.cli(&["HLEN", "{gobroke}:instances"]).await;
    assert_eq!(instances, Value::Int(0));

    let allow = |policy| ["CONFIG", "SET", "maxmemory-policy", policy];
    server.cli(&allow("volatile-lru")).await;
    until("it has joined", async || one.0.is_ready()).await;

    // Whoever is in stays in: the others are there, too.
    server.cli(&allow("allkeys-lru")).await;
    let connected = cluster.stats().connected;
    server
        .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
        .await;
    until("it is back", async || {
        cluster.stats().connected > connected && one.0.is_ready()
    })
    .await;
    one.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_started_without_redis_joins_whatever_the_time_is_on_its_machine() {
    let redis = Redis::start().await;
    // As by a clock that is far ahead; below 2^53, from where on scripts do not count exactly.
    redis
        .server
        .cli(&["HSET", "{gobroke}:state", "drawn", "9000000000000000"])
        .await;
    let former = start("one", redis.through("former").await).await;
    redis.cut("former", true);
    let cluster = redis.through("one").await.optional();
    redis.cut("one", true);
    let one = start("one", cluster).await;
    assert!(!one.0.is_ready());
    redis.cut("one", false);
    until("it has joined", async || one.0.is_ready()).await;
    redis.cut("former", false);
    until("the former one is told", async || {
        former.1.connect().await.is_err()
    })
    .await;
    assert!(one.0.is_ready());
    one.0.stop().await;
    former.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_started_without_redis_gives_way_to_who_started_later_under_its_name() {
    let redis = Redis::start().await;
    let cluster = redis.through("older").await.optional();
    redis.cut("older", true);
    let older = start("one", cluster).await;
    let newer = start("one", redis.through("newer").await).await;
    redis.cut("older", false);
    until("the older one is told", async || {
        older.1.connect().await.is_err()
    })
    .await;
    assert!(newer.0.is_ready());
    newer.1.connect().await.unwrap();
    older.0.stop().await;
    newer.0.stop().await;
}

async fn two(server: &Server) -> [(Broke, TestEndpoint); 2] {
    let over = || RedisCluster::new(server.url()).lease(LEASE);
    [start("one", over()).await, start("two", over()).await]
}

/// Whether listings of all clients and of a room's members, and their count, say that they are not all.
async fn partial(broke: &Broke) -> [bool; 3] {
    [
        broke.clients().await.partial,
        broke.members("room").await.partial,
        broke.client_count().await.partial,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_somebody_writes_again_what_was_lost_nobody_is_taken_for_gone() {
    let server = Server::start(&[]).await;
    let [one, two] = two(&server).await;
    until("they know each other", async || {
        !one.0.instances().is_empty()
    })
    .await;
    let to_somebody = || {
        let message = Message::new("x").to_client(ClientId::new());
        one.0.send(message).unwrap();
    };
    // A third one is there, and has lost what it wrote.
    let far = "99999999999999";
    for command in [
        ["HSET", "{gobroke}:instances", "three", "1.0"],
        ["ZADD", "{gobroke}:leases", far, "three"],
        ["HSET", "{gobroke}:rewriting", "three#1.0", far],
    ] {
        server.cli(&command).await;
    }
    until("nothing is all", async || {
        partial(&one.0).await == [true; 3]
    })
    .await;
    one.0.client(ClientId::new()).await.unwrap_err();
    to_somebody();
    until("it is not known where it is", async || {
        stats(&one.0).dropped == 1
    })
    .await;
    assert_eq!(stats(&one.0).unknown, 0);

    server
        .cli(&["HDEL", "{gobroke}:rewriting", "three#1.0"])
        .await;
    until("all is there", async || partial(&one.0).await == [false; 3]).await;
    assert_eq!(one.0.client(ClientId::new()).await.unwrap(), None);

    // Who is not there is not waited for.
    server
        .cli(&["HSET", "{gobroke}:rewriting", "four#1.0", far])
        .await;
    until("it is taken away", async || {
        server.cli(&["HLEN", "{gobroke}:rewriting"]).await == Value::Int(0)
    })
    .await;
    to_somebody();
    until("it is nowhere", async || stats(&one.0).unknown == 1).await;
    one.0.stop().await;
    two.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_lost_what_it_wrote_says_so_until_it_is_written_again() {
    let server = Server::start(&[]).await;
    let [one, two] = two(&server).await;
    let mut clients = Vec::new();
    for _ in 0..1_000 {
        clients.push(two.1.connect().await.unwrap());
    }
    let known = async || one.0.client_count().await.clients == clients.len();
    until("all are known", known).await;

    let monitor = redis::Client::open(server.url()).unwrap();
    let mut seen = monitor
        .get_async_monitor()
        .await
        .unwrap()
        .into_on_message::<String>();
    let (said, mut heard) = mpsc::unbounded_channel();
    let watching = tokio::spawn(async move {
        while let Some(line) = seen.next().await {
            if line.contains("{gobroke}:rewriting") && said.send(line).is_err() {
                return;
            }
        }
    });
    server.cli(&["FLUSHALL"]).await;
    until("all are known again", known).await;
    until("nothing is missing", async || {
        partial(&one.0).await == [false; 3]
    })
    .await;
    let left = server.cli(&["HLEN", "{gobroke}:rewriting"]).await;
    assert_eq!(left, Value::Int(0));
    let mut begun = false;
    while let Some(line) = heard.recv().await {
        let of_two = line.contains("two#");
        begun |= of_two && line.contains("HSET");
        if of_two && line.contains("HDEL") {
            break;
        }
    }
    assert!(begun);
    watching.abort();
    one.0.stop().await;
    two.0.stop().await;
}
