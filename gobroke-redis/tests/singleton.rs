//! A logic module that runs once, through faults of Redis: never two at a time, and always one again.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use gobroke_core::{Broke, ClientId, Logic, Message};
use gobroke_redis::RedisCluster;
use tokio::time::{Instant, sleep};

use self::support::{
    Redis, Server,
    load::{start, stats},
    until,
    way::port,
};

const LEASE: Duration = Duration::from_secs(2);

/// What the instances' modules note: who runs now, and how it went.
#[derive(Default)]
struct Noted {
    running: AtomicUsize,
    most: AtomicUsize,
    reigns: AtomicUsize,
    token: AtomicU64,
    stale: AtomicUsize,
}

/// Runs, until it is dropped.
struct Running(Arc<Noted>);

impl Running {
    fn begin(noted: &Arc<Noted>, token: u64) -> Self {
        let running = noted.running.fetch_add(1, SeqCst) + 1;
        noted.most.fetch_max(running, SeqCst);
        noted.reigns.fetch_add(1, SeqCst);
        // The same where the last holder goes on after a pause.
        let before = noted.token.fetch_max(token, SeqCst);
        noted.stale.fetch_add(usize::from(token < before), SeqCst);
        Self(noted.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

async fn instance(name: &str, cluster: RedisCluster, noted: &Arc<Noted>) -> Broke {
    let noted = noted.clone();
    let feed = Logic::passive("feed", move |ctx| {
        let noted = noted.clone();
        async move {
            let _running = Running::begin(&noted, ctx.fencing_token().unwrap());
            ctx.cancelled().await;
            Ok(())
        }
    });
    Broke::builder()
        .instance(name)
        .logic(feed.singleton())
        .cluster(cluster)
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_never_run_it_at_a_time_and_one_does_again_after_each_fault() {
    let mut redis = Redis::start().await;
    redis.lease = LEASE;
    let noted = Arc::<Noted>::default();
    let names = ["one", "two", "three"];
    let mut instances = Vec::new();
    for name in names {
        let cluster = redis.through(name).await;
        instances.push(instance(name, cluster, &noted).await);
    }
    let runs = async |reigns: usize| {
        until("one runs it", async || {
            noted.running.load(SeqCst) == 1 && noted.reigns.load(SeqCst) >= reigns
        })
        .await;
    };
    runs(1).await;
    let holder = || {
        let holder = instances.iter().find_map(|instance| {
            let at = instance.runs_on("feed")?;
            (at == *instance.instance()).then_some(at)
        });
        holder.unwrap().to_string()
    };

    let cut = holder();
    redis.cut(&cut, true);
    runs(2).await;
    assert_ne!(holder(), cut);
    redis.cut(&cut, false);

    redis.server.freeze(true);
    until("it stops by its own clock", async || {
        noted.running.load(SeqCst) == 0
    })
    .await;
    redis.server.freeze(false);
    runs(3).await;

    // Its data are lost, and no connection notices. Then an empty restart: who holds it goes on, and nobody else takes it
    // before a whole lease has been answered, nor in another one.
    let reigns = noted.reigns.load(SeqCst);
    redis.server.cli(&["FLUSHALL"]).await;
    sleep(2 * LEASE).await;
    runs(reigns).await;
    redis.server.kill();
    redis.server.run().await;
    sleep(2 * LEASE).await;
    runs(reigns).await;

    let stopping = instances
        .iter()
        .position(|instance| *instance.instance() == *holder());
    let reigns = noted.reigns.load(SeqCst);
    let begun = Instant::now();
    instances[stopping.unwrap()].stop().await;
    runs(reigns + 1).await;
    assert!(begun.elapsed() < LEASE, "it was handed over");

    assert_eq!(noted.most.load(SeqCst), 1, "never two at a time");
    assert_eq!(noted.stale.load(SeqCst), 0, "tokens grow");
    for instance in instances {
        instance.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_too_few_replicas_confirm_does_not_count() {
    let server = Server::start(&[]).await;
    let noted = Arc::<Noted>::default();
    let cluster = RedisCluster::new(server.url()).lease(LEASE).replicas(1);
    let one = instance("one", cluster, &noted).await;
    let stored = async || {
        let stored = server.cli(&["HLEN", "{gobroke}:singletons"]).await;
        stored == redis::Value::Int(1)
    };
    until("it has asked for it", stored).await;
    // It asks five times a lease.
    sleep(LEASE).await;
    assert_eq!(noted.reigns.load(SeqCst), 0);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_a_replica_confirms_counts_and_waiting_for_it_holds_up_no_look_ups() {
    // Ten times as long as a lease is waited for: longer than what a look-up has.
    let lease = Duration::from_secs(6);
    let port = port().to_string();
    let master = Server::start(&["--port", &port]).await;
    let replica = Server::start(&[]).await;
    replica.cli(&["REPLICAOF", "127.0.0.1", &port]).await;
    let over = || RedisCluster::new(master.url()).lease(lease);
    let noted = Arc::<Noted>::default();
    let one = instance("one", over().replicas(1), &noted).await;
    let two = start("two", over()).await;
    until("it runs", async || noted.running.load(SeqCst) == 1).await;

    replica.freeze(true);
    // The lease is asked for each fifth of it, and waited for: so twice meanwhile.
    let asked = 2 * lease.as_millis() as u64 / 5 / 50;
    for _ in 0..asked {
        one.send(Message::new("x").to_client(ClientId::new()))
            .unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    let looked_up = async || stats(&one).unknown + stats(&one).dropped == asked;
    until("all are looked up", looked_up).await;
    assert_eq!(stats(&one).dropped, 0);
    until("it has stopped, since no replica confirms", async || {
        noted.running.load(SeqCst) == 0
    })
    .await;
    replica.freeze(false);
    until("it runs again", async || noted.running.load(SeqCst) == 1).await;
    one.stop().await;
    two.0.stop().await;
}
