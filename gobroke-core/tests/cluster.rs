//! Several routers in one process keep what every cluster promises, on a carrier that works and on one that does not.

use std::{sync::Arc, time::Duration};

use gobroke_core::{
    async_trait,
    cluster::{Cluster, Faults, MemoryCluster, conformance, conformance::Setup},
};

/// A carrier that loses, doubles and disorders, by a seed, and that can be repaired.
struct Faulty {
    cluster: MemoryCluster,
    seed: u64,
}

fn faulty(seed: u64) -> Faulty {
    let cluster = MemoryCluster::new();
    let faulty = Faulty { cluster, seed };
    faulty.begin();
    faulty
}

impl Faulty {
    fn begin(&self) {
        self.cluster.faults(
            self.seed,
            Faults {
                lose: 50,
                double: 50,
                delay: Duration::from_millis(5),
            },
        );
    }
}

#[async_trait]
impl Setup for Faulty {
    async fn cluster(&self, instance: &str) -> Arc<dyn Cluster> {
        Setup::cluster(&self.cluster, instance).await
    }

    async fn kill(&self, instance: &str) {
        self.cluster.kill(instance);
    }

    fn lease(&self) -> Duration {
        Setup::lease(&self.cluster)
    }

    async fn away(&self, instance: &str, away: bool) -> bool {
        Setup::away(&self.cluster, instance, away).await
    }

    /// Makes it worse, and as bad as before again.
    async fn disturb(&self, on: bool) -> bool {
        match on {
            true => Setup::disturb(&self.cluster, true).await,
            false => {
                self.begin();
                true
            }
        }
    }

    async fn lose_directory(&self) -> bool {
        Setup::lose_directory(&self.cluster).await
    }
}

/// `SEED=17 cargo test` repeats one, `SEEDS=1000` tries many.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(count),
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_suite_passes() {
    conformance::run(async || MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn the_whole_suite_passes_on_a_bad_carrier_whatever_the_seed() {
    for seed in seeds(10) {
        println!("seed {seed}");
        conformance::run(async || faulty(seed)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn order_holds_on_a_bad_carrier_whatever_the_seed() {
    for seed in seeds(10) {
        println!("seed {seed}");
        conformance::messages_arrive_once_and_in_order(&faulty(seed), seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn random_faults_are_accounted_for_whatever_the_seed() {
    for seed in seeds(20) {
        println!("seed {seed}");
        conformance::random_faults_are_accounted_for(&MemoryCluster::new(), seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_once_and_in_order() {
    conformance::messages_arrive_once_and_in_order(&MemoryCluster::new(), 1).await;
}

#[tokio::test(start_paused = true)]
async fn only_instances_with_members_get_a_groups_messages() {
    conformance::only_instances_with_members_get_a_groups_messages(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn joins_are_ordered_with_the_messages_around() {
    conformance::joins_are_ordered_with_the_messages_around(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_moved_gets_its_messages_once() {
    conformance::a_client_that_moved_gets_its_messages_once(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_for_nobody_goes_nowhere_and_ends() {
    conformance::what_is_for_nobody_goes_nowhere_and_ends(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_arrive_is_counted_exactly() {
    conformance::what_does_not_arrive_is_counted_exactly(&MemoryCluster::new(), 1).await;
}

#[tokio::test(start_paused = true)]
async fn listings_cover_all_instances_in_pages() {
    conformance::listings_cover_all_instances_in_pages(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn every_instance_knows_the_same_of_a_client() {
    conformance::every_instance_knows_the_same_of_a_client(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_is_revoked_everywhere() {
    conformance::what_is_revoked_is_revoked_everywhere(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_elsewhere_replaces_the_older_session() {
    conformance::a_reconnect_elsewhere_replaces_the_older_session(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_stops_is_gone_at_once() {
    conformance::an_instance_that_stops_is_gone_at_once(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_instance_takes_its_clients_with_it() {
    conformance::a_dead_instance_takes_its_clients_with_it(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_made_up_for() {
    conformance::an_outage_is_made_up_for(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn lost_records_are_written_again() {
    conformance::lost_records_are_written_again(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_module_on_a_named_instance_gets_what_is_for_it_in_order() {
    conformance::a_module_on_a_named_instance_gets_what_is_for_it_in_order(&MemoryCluster::new())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_module_runs_once_and_is_handed_over() {
    conformance::a_module_runs_once_and_is_handed_over(&MemoryCluster::new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_followed_by_one_with_a_larger_token() {
    conformance::a_dead_holder_is_followed_by_one_with_a_larger_token(&MemoryCluster::new()).await;
}
