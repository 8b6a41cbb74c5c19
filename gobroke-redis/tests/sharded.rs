//! A Redis Cluster of three masters and three replicas: what every cluster promises, and failovers and moves under load.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{sync::Arc, time::Duration};

use gobroke_core::cluster::conformance;
use tokio::time::{Instant, sleep};

use self::support::{
    apart::Apart,
    load::Load,
    sharded::{ACL, Sharded},
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
