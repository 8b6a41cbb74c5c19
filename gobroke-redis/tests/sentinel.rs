//! A master with two replicas, watched by three sentinels: what every cluster promises, and failovers under load.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{sync::Arc, time::Duration};

use gobroke_core::cluster::conformance;
use tokio::time::timeout;

use self::support::{
    apart::Apart,
    load::Load,
    sentinel::{ACL, ASKING, MORE, Watched},
};

/// How long a failover may take, and until the instances have found the new master.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_cluster_promises_holds_behind_sentinels_for_users_who_may_do_only_what_is_needed()
 {
    let watched = Arc::new(Watched::start().await);
    conformance::run(async || Apart::new(&watched)).await;
    assert_eq!(watched.denied().await, Vec::new());
}

#[test]
fn the_rights_of_the_page_on_operating_are_those_that_were_tried() {
    let page = include_str!("../src/docs/operating.md");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(page).contains(&words(ACL)));
    let asking = ASKING.trim_start_matches("-@all ");
    let more = format!("Behind Sentinels also `{MORE}`; on the Sentinels themselves `{asking}`.");
    assert!(words(page).contains(&more));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_and_a_dead_master_are_made_up_for() {
    let mut watched = Watched::start().await;
    let clusters = vec![watched.cluster(), watched.cluster(), watched.cluster()];
    let load = Load::start(clusters).await;
    load.flows().await;
    watched.fail_over().await;
    load.agrees().await;
    load.flows().await;

    let acting = watched.acting().await;
    watched.servers[acting].kill();
    watched.another_than(acting).await;
    load.flows().await;
    load.agrees().await;
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_a_master_that_stands_still_is_answered_when_another_took_over() {
    let watched = Watched::start().await;
    let patient = || watched.cluster().response_timeout(Duration::from_secs(600));
    let load = Load::start(vec![patient(), patient()]).await;
    load.flows().await;
    let acting = watched.acting().await;
    watched.servers[acting].freeze(true);
    let listed = timeout(PATIENCE, load.instances[0].clients()).await;
    assert!(
        listed.is_ok(),
        "it still waits for the one that stands still"
    );
    watched.another_than(acting).await;
    load.agrees().await;
    load.lost_nothing().await;
}
