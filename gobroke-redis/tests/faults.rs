//! Redis and the way to it fail under load. What was sent is what came, once and in order, and what is counted.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::time::Duration;

use gobroke_core::{Broke, Message, cluster::Cursor, testing::TestClient};
use gobroke_redis::RedisCluster;
use tokio::time::{Instant, sleep};

use self::support::{
    Program, Redis, Server,
    load::{Account, Load, start, stats},
    until,
};

fn over(server: &Server) -> RedisCluster {
    RedisCluster::new(server.url()).lease(Duration::from_secs(8))
}

async fn three(server: &Server) -> Load {
    let load = Load::start(vec![over(server), over(server), over(server)]).await;
    load.flows().await;
    load
}

/// Nothing is lost, and instances agree on who is there.
async fn nothing_is_lost(load: Load) {
    load.flows().await;
    load.agrees().await;
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_connections_are_killed() {
    let server = Server::start(&[]).await;
    let clusters = vec![over(&server), over(&server), over(&server)];
    let connected = || -> Vec<u64> {
        let stats = clusters.iter().map(|cluster| cluster.stats().connected);
        stats.collect()
    };
    let load = Load::start(clusters.clone()).await;
    load.flows().await;
    for kind in ["normal", "pubsub", "normal", "pubsub"] {
        let before = connected();
        server
            .cli(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"])
            .await;
        until("all have connected anew", async || {
            let now = connected();
            now.iter().zip(&before).all(|(now, before)| now > before)
        })
        .await;
    }
    nothing_is_lost(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_redis_crashes_and_starts_empty() {
    nothing_is_lost_when_it_starts_empty(Program::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_valkey_crashes_and_starts_empty() {
    nothing_is_lost_when_it_starts_empty(Program::Valkey).await;
}

async fn nothing_is_lost_when_it_starts_empty(program: Program) {
    let mut server = Server::start_with(program, Vec::new()).await;
    let load = three(&server).await;
    server.kill();
    // The outage.
    sleep(Duration::from_secs(1)).await;
    server.run().await;
    nothing_is_lost(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_redis_restarts_with_older_data() {
    let mut server = Server::start(&["--dbfilename", "dump.rdb"]).await;
    let load = three(&server).await;
    server.cli(&["SAVE"]).await;
    let late = load.connect(1).await;
    let knows = async || matches!(load.instances[0].client(late.id()).await, Ok(Some(_)));
    until("a client that came after the save is known", knows).await;
    server.kill();
    server.run().await;
    until("it is known again", knows).await;
    drop(late);
    nothing_is_lost(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_redis_restarts_with_data_from_before_anybody_joined() {
    let mut server = Server::start(&["--dbfilename", "dump.rdb"]).await;
    let (early, endpoint) = start("early", over(&server)).await;
    let member = endpoint.connect().await.unwrap();
    early.join(member.id(), "room");
    let written = async || {
        let members = server.cli(&["SCARD", "{gobroke}:group:room"]).await;
        members == redis::Value::Int(1)
    };
    until("the directory has the room", written).await;
    server.cli(&["SAVE"]).await;
    early.stop().await;
    let load = three(&server).await;
    // Longer than half of a lease after anybody wrote what was saved, and less after anybody wrote at all.
    sleep(Duration::from_secs(4)).await;
    server.kill();
    server.run().await;
    for _ in 0..300 {
        // Nobody is in it now.
        load.instances[0]
            .send(Message::new("hello").to_group("room"))
            .unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    nothing_is_lost(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_redis_stands_still() {
    let server = Server::start(&[]).await;
    let load = three(&server).await;
    server.freeze(true);
    // Shorter than what any lease has left.
    sleep(Duration::from_secs(3)).await;
    server.freeze(false);
    nothing_is_lost(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_one_instance_is_cut_off_for_a_while() {
    let redis = Redis::start().await;
    let mut clusters = Vec::new();
    for name in ["a", "b", "c"] {
        clusters.push(redis.through(name).await);
    }
    let load = Load::start(clusters).await;
    load.flows().await;
    for name in ["b", "c"] {
        redis.cut(name, true);
        // Less than a lease.
        sleep(Duration::from_secs(1)).await;
        redis.cut(name, false);
        load.agrees().await;
    }
    nothing_is_lost(load).await;
}

/// Set `SEED` to try the faults of a run again, `SECONDS` to go on longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_what_does_not_arrive_is_counted() {
    let given = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let seed = given("SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    println!("SEED={seed}");
    let mut state = seed;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut redis = Redis::start().await;
    let names = ["a", "b", "c"];
    let mut clusters = Vec::new();
    for name in names {
        clusters.push(redis.through(name).await);
    }
    let load = Load::start(clusters).await;
    let end = Instant::now() + Duration::from_secs(given("SECONDS").unwrap_or(10));
    while Instant::now() < end {
        let name = names[draw(3) as usize];
        let pause = Duration::from_millis(draw(1500));
        match draw(6) {
            0 => drop(
                redis
                    .server
                    .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
                    .await,
            ),
            1 => drop(
                redis
                    .server
                    .cli(&["CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes"])
                    .await,
            ),
            2 => drop(redis.server.cli(&["FLUSHALL"]).await),
            3 => {
                redis.cut(name, true);
                sleep(pause).await;
                redis.cut(name, false);
            }
            4 => {
                redis.server.freeze(true);
                sleep(pause).await;
                redis.server.freeze(false);
            }
            _ => {
                redis.server.kill();
                sleep(pause).await;
                redis.server.run().await;
            }
        }
        sleep(Duration::from_millis(draw(1000))).await;
    }
    let Account {
        owed,
        missing,
        counted,
    } = load.account().await;
    println!("of {owed}, {missing} did not arrive");
    assert_eq!(missing, counted, "of {owed}");
}

/// Two instances, each behind a proxy, with a client each.
struct Pair {
    redis: Redis,
    one: Broke,
    two: Broke,
    ann: TestClient,
    bob: TestClient,
}

impl Pair {
    async fn start() -> Self {
        let mut redis = Redis::start().await;
        redis.lease = Duration::from_secs(2);
        let (one, first) = start("one", redis.through("one").await).await;
        let (two, second) = start("two", redis.through("two").await).await;
        let (ann, bob) = (
            first.connect().await.unwrap(),
            second.connect().await.unwrap(),
        );
        let pair = Self {
            redis,
            one,
            two,
            ann,
            bob,
        };
        pair.agrees().await;
        pair
    }

    /// Waits until the instances know each other, and each other's client.
    async fn agrees(&self) {
        until("both are known", async || {
            let (one, two) = (self.one.clients().await, self.two.clients().await);
            one.len() == 2
                && two.len() == 2
                && self.one.instances() == ["two"]
                && self.two.is_ready()
        })
        .await;
    }

    /// Waits until the first one takes the second one, which is cut off, for gone.
    async fn second_is_gone(&self) {
        until("it is gone", async || self.one.instances().is_empty()).await;
        let left = self.one.clients().await.len();
        assert_eq!(left, 1, "its clients with it");
    }

    /// The second one is let through again: all is as before.
    async fn second_comes_back(&mut self) {
        self.redis.cut("two", false);
        self.agrees().await;
        let message = |text: &'static str, to: &TestClient| Message::new(text).to_client(to.id());
        self.one.send(message("hello", &self.bob)).unwrap();
        self.two.send(message("back", &self.ann)).unwrap();
        assert_eq!(self.bob.next_text().await.as_deref(), Some("hello"));
        assert_eq!(self.ann.next_text().await.as_deref(), Some("back"));
    }

    async fn stop(self) {
        self.one.stop().await;
        self.two.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_removed_comes_back_in_a_new_life() {
    let mut pair = Pair::start().await;
    pair.redis.cut("two", true);
    pair.second_is_gone().await;
    pair.second_comes_back().await;
    // What its former life left behind is cleaned up.
    let length = async |key: &str| pair.redis.server.cli(&["HLEN", key]).await;
    until("it is cleaned up", async || {
        length("{gobroke}:unswept").await == redis::Value::Int(0)
    })
    .await;
    assert_eq!(length("{gobroke}:places").await, redis::Value::Int(2));
    pair.stop().await;
}

/// How many clients all pages have, of a group or of all, and whether they say that some are missing.
async fn pages(broke: &Broke, group: Option<&str>) -> (usize, bool) {
    let (mut count, mut partial) = (0, false);
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let page = match group {
            Some(group) => broke.members_page(group, &from, 10).await,
            None => broke.clients_page(&from, 10).await,
        };
        count += page.clients.len();
        partial |= page.partial;
        cursor = page.next;
    }
    (count, partial)
}

/// The same of a listing as a whole.
async fn listed(broke: &Broke, group: Option<&str>) -> (usize, bool) {
    let listing = match group {
        Some(group) => broke.members(group).await,
        None => broke.clients().await,
    };
    (listing.len(), listing.partial)
}

/// The same of their count.
async fn counted(broke: &Broke) -> (usize, bool) {
    let count = broke.client_count().await;
    (count.clients, count.partial)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_say_that_clients_are_missing_while_redis_is_away_and_are_whole_afterwards() {
    const LISTINGS: [Option<&str>; 2] = [None, Some("room")];
    let mut pair = Pair::start().await;
    assert!(pair.one.join(pair.ann.id(), "room") && pair.two.join(pair.bob.id(), "room"));
    for group in LISTINGS {
        let whole = async || listed(&pair.one, group).await == (2, false);
        until("both are listed", whole).await;
        assert_eq!(pages(&pair.one, group).await, (2, false), "{group:?}");
    }
    assert_eq!(counted(&pair.one).await, (2, false));
    // Cut off from it, or without any.
    for is_cut in [true, false] {
        match is_cut {
            true => pair.redis.cut("one", true),
            false => pair.redis.server.kill(),
        }
        let says_so = async || {
            for group in LISTINGS {
                assert_eq!(pages(&pair.one, group).await, (1, true), "{group:?}");
                assert_eq!(listed(&pair.one, group).await, (1, true), "{group:?}");
            }
            assert_eq!(counted(&pair.one).await, (1, true));
            pair.one.client(pair.bob.id()).await.unwrap_err();
        };
        says_so().await;
        until("it knows", async || !pair.one.is_ready()).await;
        says_so().await;
        match is_cut {
            true => pair.redis.cut("one", false),
            false => pair.redis.server.run().await,
        }
        for group in LISTINGS {
            until("they are whole", async || {
                let (count, partial) = pages(&pair.one, group).await;
                assert!(partial || count == 2, "{count} of {group:?} are not all");
                !partial
            })
            .await;
            assert_eq!(listed(&pair.one, group).await, (2, false), "{group:?}");
        }
        assert_eq!(counted(&pair.one).await, (2, false));
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_deaf_subscription_is_not_ready_until_it_is_made_anew() {
    let redis = Redis::start().await;
    let cluster = redis.through("one").await;
    let one = start("one", cluster.clone()).await;
    let two = start("two", redis.through("two").await).await;
    let mut ann = one.1.connect().await.unwrap();
    until("she is known", async || {
        matches!(two.0.client(ann.id()).await, Ok(Some(_)))
    })
    .await;
    redis.deafen("one");
    // It is made anew when the test has looked.
    redis.close("one", true);
    two.0
        .send(Message::new("into a deaf ear").to_client(ann.id()))
        .unwrap();
    until("it is found", async || cluster.stats().deaf == 1).await;
    until("it is not ready", async || !one.0.is_ready()).await;
    redis.close("one", false);
    assert_eq!(ann.next_text().await.as_deref(), Some("into a deaf ear"));
    until("it is ready again", async || one.0.is_ready()).await;
    assert_eq!((stats(&two.0).lost, stats(&one.0).lost), (0, 0));
    one.0.stop().await;
    two.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_may_start_without_redis_and_join_later() {
    let mut server = Server::start(&[]).await;
    let two = start("two", over(&server)).await;
    server.kill();
    let one = start("one", over(&server).optional()).await;
    assert!(!one.0.is_ready(), "it is not ready");
    let mut ann = one.1.connect().await.unwrap();
    one.0
        .send(Message::new("alone").to_client(ann.id()))
        .unwrap();
    assert_eq!(ann.next_text().await.as_deref(), Some("alone"));
    server.run().await;
    until("they know each other", async || {
        one.0.instances() == ["two"] && two.0.instances() == ["one"]
    })
    .await;
    until("she is known", async || {
        matches!(two.0.client(ann.id()).await, Ok(Some(_)))
    })
    .await;
    two.0
        .send(Message::new("together").to_client(ann.id()))
        .unwrap();
    assert_eq!(ann.next_text().await.as_deref(), Some("together"));
    one.0.stop().await;
    two.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_of_two_instances_with_one_name_has_it() {
    let server = Server::start(&[]).await;
    let older = start("one", over(&server)).await;
    let newer = start("one", over(&server)).await;
    until("the older one is told", async || !older.0.is_ready()).await;
    assert!(older.1.connect().await.is_err(), "it refuses clients");
    assert!(newer.0.is_ready());
    let other = start("two", over(&server)).await;
    until("there is one of the name", async || {
        other.0.instances() == ["one"]
    })
    .await;
    // It changes whenever somebody comes or goes, though they be back at once.
    let list = async || server.cli(&["HGET", "{gobroke}:state", "list"]).await;
    let before = list().await;
    older.0.stop().await;
    assert_eq!(list().await, before, "nobody goes with it");
    // Its end would have been told by the time that what came after it is known.
    let later = start("three", over(&server)).await;
    until("who came later is known", async || {
        other.0.instances().contains(later.0.instance())
    })
    .await;
    assert_eq!(
        other.0.instances(),
        ["one", "three"],
        "its end takes nothing from the newer one"
    );
    later.0.stop().await;
    newer.0.stop().await;
    other.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_back_a_lease_after_a_loss_of_data_comes_back_in_a_new_life() {
    let mut pair = Pair::start().await;
    pair.redis.cut("two", true);
    pair.redis.server.cli(&["FLUSHALL"]).await;
    pair.second_is_gone().await;
    pair.second_comes_back().await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_somebody_lives_by_is_not_taken_away_by_who_has_seen_a_later_one() {
    let server = Server::start(&[]).await;
    let cluster = over(&server).lease(Duration::from_secs(2));
    let one = start("one", cluster.clone()).await;
    let two = start("two", cluster.clone()).await;
    until("they know each other", async || {
        one.0.instances() == ["two"] && two.0.instances() == ["one"]
    })
    .await;
    let epoch = async || server.cli(&["HGET", "{gobroke}:state", "epoch"]).await;
    let before = epoch().await;
    // As a former master's would be, to who comes from there.
    server
        .cli(&["HINCRBY", "{gobroke}:state", "list", "-1"])
        .await;
    let beats = cluster.stats().heartbeats;
    until("both have seen it", async || {
        cluster.stats().heartbeats > beats + 4
    })
    .await;
    assert_eq!(epoch().await, before);
    assert!(one.0.is_ready() && two.0.is_ready());
    one.0.stop().await;
    two.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_what_was_lost_has_it_written_again_at_once() {
    let server = Server::start(&[]).await;
    // No heartbeat finds it while the test waits.
    let cluster = over(&server).lease(Duration::from_secs(600));
    let one = start("one", cluster.clone()).await;
    let two = start("two", cluster.clone()).await;
    let client = two.1.connect().await.unwrap();
    let counted = async || one.0.client_count().await.clients == 1;
    until("the client is known", counted).await;
    // Those that the start calls for follow each other within 50 ms.
    until("there are no more heartbeats", async || {
        let before = cluster.stats().heartbeats;
        sleep(Duration::from_millis(500)).await;
        cluster.stats().heartbeats == before
    })
    .await;
    server.cli(&["FLUSHALL"]).await;
    until("it is known again", counted).await;
    drop(client);
    one.0.stop().await;
    two.0.stop().await;
}
