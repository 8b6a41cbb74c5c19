//! A Redis Cluster of three masters and three replicas: what every cluster promises, and failovers and moves under load.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{sync::Arc, time::Duration};

use gobroke_core::{Message, cluster::conformance};
use gobroke_redis::RedisCluster;
use tokio::time::{Instant, sleep, timeout};

use self::support::{
    Program,
    apart::Apart,
    load::{Load, start, stats},
    sharded::{ACL, MASTERS, Sharded},
    until,
    way::Way,
};

/// How long there is load before a fault and after it.
const AROUND: Duration = Duration::from_millis(500);
/// The slots of some trunks, a hash tag each.
const TAGS: [&str; 3] = ["{u0}", "{ly}", "{ha}"];
/// How long slots move to and fro.
const STORM: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_cluster_promises_holds_for_a_user_who_may_do_only_what_is_needed() {
    let sharded = Arc::new(Sharded::start().await);
    conformance::run(async || Apart::new(&sharded)).await;
    nobody_was_denied(&sharded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_user_gets_by_where_the_nodes_are_valkey() {
    let sharded = Arc::new(Sharded::start_with(Program::Valkey, Way::Open).await);
    let apart = || Apart::new(&sharded);
    conformance::messages_arrive_once_and_in_order(&apart(), 1).await;
    conformance::listings_cover_all_instances_in_pages(&apart()).await;
    conformance::lost_records_are_written_again(&apart()).await;
    nobody_was_denied(&sharded).await;
}

async fn nobody_was_denied(sharded: &Sharded) {
    for server in &sharded.servers {
        let denied = server.cli(&["ACL", "LOG"]).await;
        assert_eq!(denied, redis::Value::Array(Vec::new()));
    }
}

#[test]
fn the_rights_of_the_page_on_operating_are_those_that_were_tried() {
    let page = include_str!("../src/docs/operating.md");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(page).contains(&words(ACL)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_sealed_is_lost_by_failovers_moves_of_slots_and_killed_connections() {
    let mut sharded = Sharded::start().await;
    let directory = sharded.slot_of("{gobroke}").await;
    let cluster = || sharded.cluster().secret("sixteen bytes or more");
    let load = Load::start(vec![cluster(), cluster(), cluster()]).await;
    sleep(AROUND).await;
    for server in &sharded.servers {
        for kind in ["normal", "pubsub"] {
            let kill = ["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"];
            server.cli(&kill).await;
        }
    }
    load.agrees().await;

    for tag in TAGS {
        let slot = sharded.slot_of(tag).await;
        sharded.migrate(slot).await;
    }
    load.agrees().await;
    sharded.migrate(directory).await;
    sleep(AROUND).await;
    load.agrees().await;

    sharded.fail_over(directory).await;
    sleep(AROUND).await;
    load.agrees().await;

    sharded.works().await;
    let master = sharded.master_of(directory).await;
    sharded.servers[master].kill();
    sharded.elected(directory, master).await;
    sleep(AROUND).await;
    load.agrees().await;
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_slots_move_to_and_fro() {
    let sharded = Sharded::start().await;
    let cluster = sharded.cluster();
    let load = Load::start(vec![cluster.clone(), cluster.clone(), cluster.clone()]).await;
    let trunk = sharded.trunks().await.pop_first().unwrap();
    let slots = [
        sharded.slot_of(&trunk).await,
        sharded.slot_of("{gobroke}").await,
    ];
    let before = cluster.stats().connected;
    let (mut moves, end) = (0, Instant::now() + STORM);
    while Instant::now() < end {
        for slot in slots {
            sharded.migrate(slot).await;
            // Some moves come while others are being made up for, some afterwards.
            sleep(Duration::from_millis(moves % 5 * 50)).await;
            moves += 1;
        }
    }
    load.agrees().await;
    let connected = cluster.stats().connected - before;
    println!("{moves} moves, {connected} times connected anew");
    assert!(moves >= 10 && connected >= 15, "it was a storm");
    sleep(AROUND).await;
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_from_one_master_keeps_its_place_and_what_passes_others() {
    let sharded = Sharded::start().await;
    let (proxies, urls) = sharded.proxies().await;
    let lease = Duration::from_secs(1);
    let one = start("one", RedisCluster::cluster(urls).lease(lease)).await;
    let two = start("two", sharded.cluster().lease(lease)).await;
    let (mut ann, mut bob) = (
        one.1.connect().await.unwrap(),
        two.1.connect().await.unwrap(),
    );
    until("all are known", async || {
        let clients = matches!(one.0.client(bob.id()).await, Ok(Some(_)))
            && matches!(two.0.client(ann.id()).await, Ok(Some(_)));
        clients && one.0.instances() == ["two"] && two.0.instances() == ["one"]
    })
    .await;
    let directory = sharded.slot_of("{gobroke}").await;
    let directory = sharded.master_of(directory).await;
    let mut passed = 0;
    for master in (0..MASTERS).filter(|master| *master != directory) {
        proxies[master].cut(true);
        until("it is not ready", async || !one.0.is_ready()).await;
        let to = |client| Message::new("across").to_client(client);
        one.0.send(to(bob.id())).unwrap();
        two.0.send(to(ann.id())).unwrap();
        let came = timeout(lease, bob.next_text()).await;
        if let Ok(came) = &came {
            assert_eq!(came.as_deref(), Some("across"));
            passed += 1;
        }
        // Whoever cannot say that it lives is gone by then.
        sleep(2 * lease).await;
        assert_eq!(two.0.instances(), ["one"]);
        assert!(!one.0.is_ready());
        proxies[master].cut(false);
        if came.is_err() {
            assert_eq!(bob.next_text().await.as_deref(), Some("across"));
        }
        assert_eq!(ann.next_text().await.as_deref(), Some("across"));
        until("it is ready again", async || one.0.is_ready()).await;
    }
    assert!(passed > 0, "it publishes over one of the nodes alone");
    for instance in [&one.0, &two.0] {
        let stats = stats(instance);
        assert_eq!((stats.lost, stats.dropped, stats.in_doubt), (0, 0, 0));
    }
    one.0.stop().await;
    two.0.stop().await;
}
