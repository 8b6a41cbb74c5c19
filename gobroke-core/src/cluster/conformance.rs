//! What every implementation of [`Cluster`] promises, as checks that it is put through.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use gobroke_core::cluster::{MemoryCluster, conformance};
//!
//! // Each check asks for a cluster of its own, that nobody has joined yet.
//! conformance::run(async || MemoryCluster::new()).await;
//! # }
//! ```
//!
//! Each check is a function of its own, too, for a test of its own. They panic where a promise is not kept, and wait
//! for events, up to half a minute each, so that they also run against the clock.

mod delivery;
mod directory;
mod outage;
mod placed;
mod traffic;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

pub use self::{
    delivery::{
        a_client_that_moved_gets_its_messages_once, joins_are_ordered_with_the_messages_around,
        messages_arrive_once_and_in_order, only_instances_with_members_get_a_groups_messages,
        what_does_not_arrive_is_counted_exactly, what_is_for_nobody_goes_nowhere_and_ends,
    },
    directory::{
        a_dead_instance_takes_its_clients_with_it,
        a_reconnect_elsewhere_replaces_the_older_session, an_instance_that_stops_is_gone_at_once,
        every_instance_knows_the_same_of_a_client, listings_cover_all_instances_in_pages,
        what_is_revoked_is_revoked_everywhere,
    },
    outage::{
        an_outage_is_made_up_for, lost_records_are_written_again, random_faults_are_accounted_for,
    },
    placed::{
        a_dead_holder_is_followed_by_one_with_a_larger_token,
        a_module_on_a_named_instance_gets_what_is_for_it_in_order,
        a_module_runs_once_and_is_handed_over,
    },
};
use super::{Cluster, ClusterStats, Faults, MemoryCluster};
use crate::{
    Admission, Broke, ClientId, ConnectRequest, Grant, Logic, Message, Name, Refusal, Targets,
    testing::{TestClient, TestEndpoint},
};

/// How long a check waits for what is to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);
/// How many bytes a client may have to read: more than any check sends it before it reads.
const UNREAD: usize = 4 << 20;

/// A cluster that checks are run on: nobody has joined it yet, and nobody else does.
#[async_trait]
pub trait Setup: Send + Sync {
    /// What an instance of this name joins by.
    async fn cluster(&self, instance: &str) -> Arc<dyn Cluster>;

    /// Ends an instance's place without a word, as the death of its process would.
    async fn kill(&self, instance: &str);

    /// How long an instance that was killed stays in the directory.
    fn lease(&self) -> Duration;

    /// Takes the cluster away from an instance, or brings it back. `false` where this setup cannot.
    async fn away(&self, _instance: &str, _away: bool) -> bool {
        false
    }

    /// Lets the carrier lose more than can be repaired, until it is told to stop. `false` where this setup cannot.
    async fn disturb(&self, _on: bool) -> bool {
        false
    }

    /// Loses all that instances wrote into the directory. `false` where this setup cannot.
    async fn lose_directory(&self) -> bool {
        false
    }
}

#[async_trait]
impl Setup for MemoryCluster {
    async fn cluster(&self, _instance: &str) -> Arc<dyn Cluster> {
        Arc::new(self.clone())
    }

    async fn kill(&self, instance: &str) {
        MemoryCluster::kill(self, instance);
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    async fn away(&self, instance: &str, away: bool) -> bool {
        MemoryCluster::away(self, instance, away);
        true
    }

    async fn disturb(&self, on: bool) -> bool {
        let lossy = Faults {
            lose: 700,
            double: 100,
            delay: Duration::from_millis(20),
        };
        self.faults(1, if on { lossy } else { Faults::default() });
        true
    }

    async fn lose_directory(&self) -> bool {
        MemoryCluster::lose_directory(self);
        true
    }
}

/// Puts an implementation through all checks, one after the other, each on a setup of its own.
///
/// # Panics
/// Where a promise is not kept.
pub async fn run<S: Setup>(setup: impl AsyncFn() -> S) {
    messages_arrive_once_and_in_order(&setup().await, 1).await;
    only_instances_with_members_get_a_groups_messages(&setup().await).await;
    joins_are_ordered_with_the_messages_around(&setup().await).await;
    a_client_that_moved_gets_its_messages_once(&setup().await).await;
    what_is_for_nobody_goes_nowhere_and_ends(&setup().await).await;
    what_does_not_arrive_is_counted_exactly(&setup().await, 1).await;
    listings_cover_all_instances_in_pages(&setup().await).await;
    every_instance_knows_the_same_of_a_client(&setup().await).await;
    a_reconnect_elsewhere_replaces_the_older_session(&setup().await).await;
    an_instance_that_stops_is_gone_at_once(&setup().await).await;
    a_dead_instance_takes_its_clients_with_it(&setup().await).await;
    what_is_revoked_is_revoked_everywhere(&setup().await).await;
    an_outage_is_made_up_for(&setup().await).await;
    lost_records_are_written_again(&setup().await).await;
    random_faults_are_accounted_for(&setup().await, 1).await;
    a_module_on_a_named_instance_gets_what_is_for_it_in_order(&setup().await).await;
    a_module_runs_once_and_is_handed_over(&setup().await).await;
    a_dead_holder_is_followed_by_one_with_a_larger_token(&setup().await).await;
}

/// An instance of a check.
struct Instance {
    broke: Broke,
    endpoint: TestEndpoint,
}

impl Instance {
    /// Starts one, whose clients name the targets of what they send, and are who they say they are.
    async fn start(setup: &dyn Setup, name: &str) -> Self {
        let endpoint = TestEndpoint::new(Targets::default())
            .options(|options| options.ping_interval = None)
            .capacity(UNREAD);
        Self::start_with(setup, name, endpoint, Vec::new()).await
    }

    /// The same with these logic modules.
    async fn start_with(
        setup: &dyn Setup,
        name: &str,
        endpoint: TestEndpoint,
        logic: Vec<Logic>,
    ) -> Self {
        let builder = logic
            .into_iter()
            .fold(Broke::builder(), |builder, module| builder.logic(module));
        let broke = builder
            .instance(name)
            .endpoint(endpoint.clone())
            .on_connect(async |request: ConnectRequest| {
                let subject = request.query.unwrap_or_default();
                let id = subject.parse::<ClientId>();
                let admission = id.map_or_else(|_| Admission::anonymous(), Admission::identified);
                Ok(admission.with_grant(Grant::of_subject(subject)))
            })
            .cluster(setup.cluster(name).await)
            .start()
            .await;
        match broke {
            Ok(broke) => Self { broke, endpoint },
            Err(error) => panic!("instance {name} does not start: {error:?}"),
        }
    }

    /// Starts several that know each other.
    async fn start_all<const N: usize>(setup: &dyn Setup, names: [&str; N]) -> [Self; N] {
        let mut instances = Vec::new();
        for name in names {
            instances.push(Self::start(setup, name).await);
        }
        for instance in &instances {
            eventually("instances know each other", async || {
                instance.broke.instances().len() == N - 1
            })
            .await;
        }
        instances
            .try_into()
            .unwrap_or_else(|_| unreachable!("one for each name"))
    }

    async fn connect(&self) -> TestClient {
        self.connect_as(ClientId::new()).await
    }

    /// Connects a client that is known by this id.
    async fn connect_as(&self, id: ClientId) -> TestClient {
        match self.try_connect_as(id).await {
            Ok(client) => client,
            Err(refusal) => panic!("a client is refused: {refusal}"),
        }
    }

    async fn try_connect_as(&self, id: ClientId) -> Result<TestClient, Refusal> {
        let request = ConnectRequest {
            query: Some(id.to_string()),
            ..ConnectRequest::default()
        };
        self.endpoint.connect_as(request).await
    }

    fn name(&self) -> &Name {
        self.broke.instance()
    }

    fn stats(&self) -> ClusterStats {
        self.broke.stats().cluster.unwrap_or_default()
    }

    fn send(&self, message: Message) {
        if let Err(error) = self.broke.send(message) {
            panic!("a message is refused: {error}");
        }
    }

    /// Waits until this instance's directory has a client where it is.
    async fn knows(&self, client: ClientId, on: &Instance) {
        let is_there = async || {
            let found = self.broke.client(client).await;
            found.is_ok_and(|info| info.is_some_and(|info| info.instance == *on.name()))
        };
        eventually("a client is in the directory", is_there).await;
    }

    /// Waits until this instance sees as many members of a group.
    async fn sees_members(&self, group: &str, count: usize) {
        let sees = async || self.broke.members(group).await.len() == count;
        eventually("members of a group are in the directory", sees).await;
    }
}

async fn stop_all(instances: impl IntoIterator<Item = Instance>) {
    for instance in instances {
        instance.broke.stop().await;
    }
}

/// Waits until something is so.
async fn eventually(what: &str, so: impl AsyncFn() -> bool) {
    within(PATIENCE, what, so).await;
}

/// Waits until something is so, for this long at the most.
async fn within(patience: Duration, what: &str, so: impl AsyncFn() -> bool) {
    let end = Instant::now() + patience;
    while !so().await {
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        sleep(LOOK).await;
    }
}

/// Waits until all that these instances sent has been taken or counted as lost, and says how much was lost.
async fn settled(instances: &[&Instance]) -> u64 {
    let sum = |count: fn(&ClusterStats) -> u64| {
        instances
            .iter()
            .map(|instance| count(&instance.stats()))
            .sum::<u64>()
    };
    let accounted = async || {
        let queued = instances
            .iter()
            .any(|instance| instance.stats().queue_bytes > 0);
        !queued && sum(|stats| stats.sent) == sum(|stats| stats.received + stats.lost)
    };
    eventually("what is sent is received or counted as lost", accounted).await;
    sum(|stats| stats.lost)
}

/// What a client reads next has to be this.
async fn expect(client: &mut TestClient, text: &str) {
    let next = client.next_text().await;
    assert_eq!(next.as_deref(), Some(text), "client {}", client.id());
}
