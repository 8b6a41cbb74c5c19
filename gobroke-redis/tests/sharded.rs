//! A Redis Cluster of three masters and three replicas: what every cluster promises, and failovers and moves under load.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{sync::Arc, time::Duration};

use gobroke_core::{Message, cluster::conformance};
use gobroke_redis::RedisCluster;
use tokio::time::{Instant, sleep};

use self::support::{
    Program,
    apart::Apart,
    load::{Load, start, stats},
    sharded::{ACL, MASTERS, Sharded},
    until,
    way::Way,
};

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
    load.flows().await;
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
    load.flows().await;
    load.agrees().await;

    sharded.fail_over(directory).await;
    load.flows().await;
    load.agrees().await;

    sharded.works().await;
    let master = sharded.master_of(directory).await;
    sharded.servers[master].kill();
    sharded.elected(directory, master).await;
    load.flows().await;
    load.agrees().await;
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_slots_move_to_and_fro() {
    let sharded = Sharded::start().await;
    let cluster = sharded.cluster();
    let load = Load::start(vec![cluster.clone(), cluster.clone(), cluster.clone()]).await;
    let trunk = sharded.trunk().await;
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
    load.flows().await;
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_from_one_master_keeps_its_place_unless_it_publishes_there() {
    let sharded = Sharded::start().await;
    let (proxies, urls) = sharded.proxies().await;
    let lease = Duration::from_secs(1);
    let two = start("two", sharded.cluster().lease(lease)).await;
    let mut bob = two.1.connect().await.unwrap();
    let directory = sharded.slot_of("{gobroke}").await;
    let directory = sharded.master_of(directory).await;
    let others = (0..MASTERS).filter(|master| *master != directory);
    let (mut kept, mut left) = (false, false);
    // Where an instance publishes is chance: on the node that is cut off in a third of the tries.
    for master in others.cycle().take(60) {
        if kept && left {
            break;
        }
        let one = RedisCluster::cluster(urls.clone()).lease(lease);
        let one = start("one", one).await;
        let mut ann = one.1.connect().await.unwrap();
        let (ann_id, bob_id) = (ann.id(), bob.id());
        let all_are_known = async || {
            let clients = [one.0.client(bob_id).await, two.0.client(ann_id).await];
            let known = clients.iter().all(|client| matches!(client, Ok(Some(_))));
            known && one.0.instances() == ["two"] && two.0.instances() == ["one"]
        };
        until("all are known", all_are_known).await;
        let (to_ann, to_bob) = (
            Message::new("across").to_client(ann_id),
            Message::new("across").to_client(bob_id),
        );
        proxies[master].cut(true);
        until("it is not ready", async || !one.0.is_ready()).await;
        one.0.send(to_bob).unwrap();
        let came = tokio::select! {
            came = bob.next_text() => Some(came),
            () = until("it comes, or it is gone", async || two.0.instances().is_empty()) => None,
        };
        if let Some(came) = came {
            kept = true;
            assert_eq!(came.as_deref(), Some("across"));
            two.0.send(to_ann).unwrap();
            // Whoever does not say that it lives is gone by then.
            sleep(2 * lease).await;
            assert_eq!(two.0.instances(), ["one"]);
            assert!(!one.0.is_ready());
            proxies[master].cut(false);
            assert_eq!(ann.next_text().await.as_deref(), Some("across"));
            let stats = stats(&two.0);
            assert_eq!((stats.lost, stats.dropped), (0, 0));
        } else {
            left = true;
            until("it is gone, and its client", async || {
                two.0.instances().is_empty() && two.0.clients().await.len() == 1
            })
            .await;
            proxies[master].cut(false);
            assert_eq!(bob.next_text().await.as_deref(), Some("across"));
            until("all are known again", all_are_known).await;
        }
        until("it is ready again", async || one.0.is_ready()).await;
        one.0.stop().await;
    }
    assert!(kept && left, "it publishes here and there");
    two.0.stop().await;
}
