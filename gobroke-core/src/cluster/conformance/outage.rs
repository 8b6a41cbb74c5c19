//! The cluster away, and back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Instance, Setup, eventually, expect, settled, stop_all, traffic::Traffic};
use crate::{
    ClientId, Message,
    cluster::{ClusterStats, seed::Seed},
    testing::TestClient,
};

/// While the cluster is away, local traffic goes on, and what is for others waits; when it is back, that arrives, once
/// and in order, and what changed meanwhile is known. Nothing is done where the setup cannot take the cluster away.
///
/// # Panics
/// Where the promise is not kept.
pub async fn an_outage_is_made_up_for(setup: &dyn Setup) {
    let instances = Instance::start_all(setup, ["one", "two", "three"]).await;
    if !setup.away("one", true).await {
        return stop_all(instances).await;
    }
    setup.away("one", false).await;
    let mut traffic = Traffic::new(&instances, 7).await;
    let ids = traffic.ids();
    let [one, two, three] = &instances;
    for away in [one, two] {
        for _ in 0..10 {
            traffic.round().await;
        }
        setup.away(away.name(), true).await;
        eventually("it knows", async || !away.broke.is_ready()).await;
        let mut local = away.connect().await;
        away.send(Message::new("local traffic goes on").to_client(local.id()));
        expect(&mut local, "local traffic goes on").await;
        says_what_is_missing(away, &local, &ids).await;
        for _ in 0..10 {
            traffic.round().await;
        }
        let left = local.id();
        drop(local);
        let stays: Vec<ClientId> = ids.clone();
        setup.away(away.name(), false).await;
        traffic.assert_complete().await;
        eventually("it is ready", async || away.broke.is_ready()).await;
        for instance in &instances {
            let right = async || {
                let listed = instance.broke.clients().await;
                let whole = !listed.partial && listed.len() == stays.len();
                whole && listed.iter().all(|info| info.id != left)
            };
            eventually("everyone is known again", right).await;
        }
    }
    assert_eq!(settled(&[one, two, three]).await, 0, "nothing is lost");
    stop_all(instances).await;
}

/// Without the cluster an instance answers with what is here, and says that it is not all.
async fn says_what_is_missing(away: &Instance, local: &TestClient, all: &[ClientId]) {
    let here = away.broke.local_client_count();
    let listed = away.broke.clients().await;
    assert!(listed.partial, "others are missing");
    assert_eq!(listed.len(), here);
    assert!(listed.iter().any(|info| info.id == local.id()));
    let count = away.broke.client_count().await;
    assert_eq!((count.clients, count.partial), (here, true));
    assert!(away.broke.members("room").await.partial);
    let elsewhere = all
        .iter()
        .filter(|id| away.broke.local_client(**id).is_none());
    for id in elsewhere {
        let found = away.broke.client(*id).await;
        assert!(found.is_err(), "nobody knows of it: {found:?}");
    }
    let found = away.broke.client(local.id()).await;
    assert!(matches!(found, Ok(Some(_))), "{found:?}");
}

/// Under faults by a seed (instances cut off, a carrier that loses for good) whatever arrives does so once and in order,
/// and what does not is counted; afterwards all instances agree again. Only what the setup can do is done, and nobody is
/// cut off for as long as a lease: what was sent to whoever is gone when it ends is in doubt.
///
/// # Panics
/// Where the promise is not kept.
pub async fn random_faults_are_accounted_for(setup: &dyn Setup, seed: u64) {
    let instances = Instance::start_all(setup, ["one", "two", "three"]).await;
    let mut traffic = Traffic::new(&instances, seed).await;
    let mut seed = Seed::new(seed);
    let (mut away, mut ready) = ([false; 3], [Instant::now(); 3]);
    // Who is gone when its lease ends is removed.
    let longest = setup.lease() / 3;
    for _ in 0..60 {
        for (index, instance) in instances.iter().enumerate() {
            if !away[index] && instance.broke.is_ready() {
                ready[index] = Instant::now();
            } else if away[index] && ready[index].elapsed() > longest {
                away[index] = false;
                setup.away(instance.name(), false).await;
            }
        }
        let index = seed.below(3) as usize;
        match seed.below(6) {
            0 | 1 if away[index] || ready[index].elapsed() < longest => {
                away[index] = !away[index];
                setup.away(instances[index].name(), away[index]).await;
            }
            2 => {
                setup.disturb(seed.per_mille(300)).await;
            }
            _ => {}
        }
        for _ in 0..seed.below(4) {
            traffic.round().await;
        }
        sleep(Duration::from_millis(seed.below(600))).await;
    }
    setup.disturb(false).await;
    for (instance, away) in instances.iter().zip(away) {
        if away {
            setup.away(instance.name(), false).await;
        }
    }
    settled(&instances.each_ref()).await;
    let sum = |count: fn(&ClusterStats) -> u64| {
        instances
            .iter()
            .map(|instance| count(&instance.stats()))
            .sum::<u64>()
    };
    // Something lost was for up to two clients of an instance; something dropped, for up to four of two.
    let counted = sum(|stats| 2 * stats.lost + 4 * stats.dropped + stats.unknown);
    let missing = traffic.count_missing(&instances).await;
    assert!(
        missing <= counted,
        "{missing} missing, {counted} accounted for"
    );
    for instance in &instances {
        let agrees =
            async || instance.broke.is_ready() && instance.broke.clients().await.len() == 6;
        eventually("all instances agree", agrees).await;
        instance.sees_members("room", 3).await;
    }
    stop_all(instances).await;
}

/// When the directory has lost what instances wrote, they write it again, and groups and clients are found as before.
/// Nothing is done where the setup cannot lose it.
///
/// # Panics
/// Where the promise is not kept.
pub async fn lost_records_are_written_again(setup: &dyn Setup) {
    let [one, two] = Instance::start_all(setup, ["one", "two"]).await;
    let (mut ann, mut bob) = (one.connect().await, two.connect().await);
    assert!(two.broke.join(bob.id(), "room"));
    two.broke.set_metadata(bob.id(), "name", "Bob");
    one.sees_members("room", 1).await;
    let known = one.broke.client(bob.id()).await;
    let Ok(Some(known)) = known else {
        panic!("{known:?}")
    };
    if setup.lose_directory().await {
        let again = async || {
            let info = one.broke.client(bob.id()).await;
            info.is_ok_and(|info| info.is_some_and(|info| info.metadata == known.metadata))
        };
        eventually("the record is written again", again).await;
        two.knows(ann.id(), &one).await;
        one.sees_members("room", 1).await;
        one.send(Message::new("found again").to_group("room"));
        expect(&mut bob, "found again").await;
        two.send(Message::new("and here").to_client(ann.id()));
        expect(&mut ann, "and here").await;
        assert_eq!(one.broke.clients().await.len(), 2);
    }
    stop_all([one, two]).await;
}
