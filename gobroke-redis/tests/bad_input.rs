//! Whatever Redis holds, answers and delivers: it is counted and logged, clients of one instance notice nothing, and
//! when it is right again, everything is as it was.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::time::Duration;

use gobroke_core::{
    Broke, ClientId, Message,
    cluster::Cursor,
    testing::{TestClient, TestEndpoint},
};
use gobroke_redis::RedisCluster;

use self::support::{
    Server,
    load::{start, stats},
    until,
};

/// Two instances over one server, and a client of the first.
struct Pair {
    server: Server,
    cluster: RedisCluster,
    one: (Broke, TestEndpoint),
    two: (Broke, TestEndpoint),
    ann: TestClient,
}

impl Pair {
    async fn start() -> Self {
        let server = Server::start(&[]).await;
        let over = || RedisCluster::new(server.url()).lease(Duration::from_secs(4));
        let cluster = over();
        let one = start("one", cluster.clone()).await;
        let two = start("two", over()).await;
        let ann = one.1.connect().await.unwrap();
        let pair = Self {
            server,
            cluster,
            one,
            two,
            ann,
        };
        pair.knows(&pair.ann).await;
        pair
    }

    /// The second instance knows a client of the first.
    async fn knows(&self, client: &TestClient) {
        until("the client is known", async || {
            matches!(self.two.0.client(client.id()).await, Ok(Some(_)))
        })
        .await;
    }

    /// What the first instance has counted of what went wrong, and how often it tried anew.
    fn wrong(&self) -> u64 {
        let (redis, core) = (self.cluster.stats(), stats(&self.one.0));
        redis.connected
            + redis.failed
            + redis.unreadable
            + redis.out_of_step
            + core.failed_writes
            + core.unreadable
    }

    async fn harms_nobody_here(&mut self) {
        let message = Message::new("here").to_client(self.ann.id());
        self.one.0.send(message).unwrap();
        assert_eq!(self.ann.next_text().await.as_deref(), Some("here"));
    }

    /// What is sent to her from elsewhere arrives, and everything is known everywhere.
    async fn works(&mut self, newcomer: &TestClient) {
        until("both are ready", async || {
            self.one.0.is_ready() && self.two.0.is_ready()
        })
        .await;
        self.knows(&self.ann).await;
        self.knows(newcomer).await;
        let message = Message::new("from elsewhere").to_client(self.ann.id());
        self.two.0.send(message).unwrap();
        assert_eq!(
            self.ann.next_text().await.as_deref(),
            Some("from elsewhere")
        );
    }

    async fn stop(self) {
        self.one.0.stop().await;
        self.two.0.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_channels_is_counted_and_harms_nobody() {
    let mut pair = Pair::start().await;
    let oversized = "\u{1}\u{1}\u{7f}\u{7f}\u{7f}\u{7f}".to_owned() + &"x".repeat(20 << 20);
    for garbage in [
        "",
        "x",
        "\u{1}\u{9}",
        "\u{1}\u{1}\u{0}\u{0}\u{0}\u{9}cut",
        "\u{7f}\u{1}version",
        &oversized,
    ] {
        pair.server
            .cli(&["PUBLISH", "{gobroke}:all", garbage])
            .await;
    }
    let frames = [
        "\u{1}\u{1}\u{0}\u{0}\u{0}\u{3}bad",
        "\u{1}\u{1}\u{0}\u{0}\u{0}\u{2}\u{7f}\u{6}",
    ];
    for frame in frames {
        pair.server.cli(&["PUBLISH", "{gobroke}:all", frame]).await;
    }
    until("it is counted", async || {
        pair.cluster.stats().unreadable == 6 && stats(&pair.one.0).unreadable == 2
    })
    .await;
    for notice in [
        "",
        "x",
        "1 x",
        "1 1 x",
        "1 1 one#1.1",
        "99999999999999999999 9 #",
    ] {
        pair.server
            .cli(&["PUBLISH", "{gobroke}:notices", notice])
            .await;
    }
    pair.harms_nobody_here().await;
    let newcomer = pair.one.1.connect().await.unwrap();
    pair.works(&newcomer).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_wrong_type_are_counted_and_written_again_when_they_are_gone() {
    let mut pair = Pair::start().await;
    let keys = pair.server.cli(&["KEYS", "{gobroke}:*"]).await;
    let mut keys: Vec<String> = redis::from_redis_value(keys).unwrap();
    keys.sort();
    for key in [
        "state",
        "instances",
        "leases",
        "batches",
        "places",
        "versions",
    ] {
        assert!(keys.contains(&format!("{{gobroke}}:{key}")), "{keys:?}");
    }
    for key in keys {
        println!("{key}");
        let before = pair.wrong();
        // What the other one alone writes does not show here, nor what is read when somebody joins.
        pair.server
            .cli(&["SET", &key, "not what it should be"])
            .await;
        let own = !key.contains("two#") && !key.ends_with("versions");
        // Clients' records are in several parts: as many come as it takes for one to be in this.
        let mut newcomers = vec![pair.one.1.connect().await.unwrap()];
        while own && pair.wrong() == before {
            assert!(newcomers.len() < 1000, "it is not counted");
            newcomers.push(pair.one.1.connect().await.unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pair.harms_nobody_here().await;
        pair.server.cli(&["DEL", &key]).await;
        for newcomer in &newcomers {
            pair.works(newcomer).await;
        }
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_cannot_be_read_make_a_list_partial_and_nothing_worse() {
    let mut pair = Pair::start().await;
    let keys = pair.server.cli(&["KEYS", "{gobroke}:clients:one#*"]).await;
    let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
    pair.server.cli(&["HSET", &keys[0], "nobody", "x"]).await;
    let unknown = "sixteen bytes 16";
    pair.server.cli(&["HSET", &keys[0], unknown, "y"]).await;
    let elsewhere = async || {
        let first = pair.two.0.clients_page(&Cursor::default(), 10).await;
        let page = pair.two.0.clients_page(&first.next.unwrap(), 10).await;
        let ids: Vec<ClientId> = page.clients.iter().map(|info| info.id).collect();
        (ids, page.partial)
    };
    assert_eq!(elsewhere().await, (vec![pair.ann.id()], true));
    // Whoever writes its whole record again takes away what is not of it.
    let batches = pair.server.cli(&["HKEYS", "{gobroke}:batches"]).await;
    let batches: Vec<String> = redis::from_redis_value(batches).unwrap();
    for id in batches {
        pair.server.cli(&["HDEL", "{gobroke}:batches", &id]).await;
    }
    let ann = vec![pair.ann.id()];
    until("the list is whole", async || {
        elsewhere().await == (ann.clone(), false)
    })
    .await;
    let newcomer = pair.one.1.connect().await.unwrap();
    pair.works(&newcomer).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_keeps_instances_and_messages_going_and_gets_the_clients_when_it_has_room() {
    let mut pair = Pair::start().await;
    let full = |full: &'static str| ["CONFIG", "SET", "maxmemory", full];
    pair.server.cli(&full("1")).await;
    let before = pair.wrong();
    let newcomer = pair.one.1.connect().await.unwrap();
    until("it is counted", async || pair.wrong() > before).await;
    let message = Message::new("meanwhile").to_client(pair.ann.id());
    pair.two.0.send(message).unwrap();
    assert_eq!(pair.ann.next_text().await.as_deref(), Some("meanwhile"));
    // Longer than a lease: who is there afterwards has gone on with heartbeats.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        (pair.two.0.instances(), pair.one.0.instances()),
        (vec!["one".into()], vec!["two".into()])
    );
    assert!(pair.one.0.is_ready() && pair.two.0.is_ready());
    assert!(matches!(pair.two.0.client(newcomer.id()).await, Ok(None)));
    pair.harms_nobody_here().await;
    pair.server.cli(&full("0")).await;
    pair.works(&newcomer).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_read_only_or_denies_is_away_until_it_is_not() {
    let mut pair = Pair::start().await;
    let faults: [(&[&str], &[&str]); 5] = [
        (
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"],
        ),
        (
            &["ACL", "SETUSER", "default", "-evalsha"],
            &["ACL", "SETUSER", "default", "+@all"],
        ),
        (
            &["ACL", "SETUSER", "default", "-hset"],
            &["ACL", "SETUSER", "default", "+@all"],
        ),
        (
            &["ACL", "SETUSER", "default", "-publish"],
            &["ACL", "SETUSER", "default", "+@all"],
        ),
        (
            &["ACL", "SETUSER", "default", "resetchannels"],
            &["ACL", "SETUSER", "default", "allchannels"],
        ),
    ];
    for (wrong, right) in faults {
        println!("{wrong:?}");
        let before = pair.wrong();
        pair.server.cli(wrong).await;
        let newcomer = pair.one.1.connect().await.unwrap();
        until("it is counted", async || pair.wrong() > before).await;
        pair.harms_nobody_here().await;
        pair.server.cli(right).await;
        pair.works(&newcomer).await;
    }
    pair.stop().await;
}
