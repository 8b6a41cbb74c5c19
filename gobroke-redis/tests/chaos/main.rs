//! Instances as processes of their own, under load and under faults: what was sent is what came, once and in order, and
//! what is counted.
//!
//! `make chaos` goes on for longer, and over other servers.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod account;
mod arena;
mod fault;
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::time::Duration;

use gobroke_redis::RedisCluster;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use self::{
    arena::{Arena, LEASE, Random},
    fault::{Fault, LONG},
    support::process::Process,
    table::{Row, Table},
};

/// How long there is load before a fault, at the least during it, and after it.
const AROUND: Duration = Duration::from_millis(700);

/// Runs faults one after the other, each with its account. Gives what was slower than it may be.
async fn through(
    arena: &mut Arena,
    faults: impl Iterator<Item = (Fault, Duration)>,
) -> Vec<String> {
    let mut table = Table::default();
    for (fault, length) in faults {
        println!("{fault:?}, {} ms", length.as_millis());
        let row = one(arena, fault, length).await;
        assert_eq!(
            row.account.missing, 0,
            "{fault:?}: of {} between those who lived; the outage is within the bounds",
            row.account.owed,
        );
        table.push(row);
    }
    table.sum_up(&Fault::of(&arena.servers))
}

async fn one(arena: &mut Arena, fault: Fault, length: Duration) -> Row {
    let victim = arena.victim();
    // Its own clients notice if it stands still itself.
    let stopped = fault
        .stops_an_instance()
        .then(|| arena.instances[victim].client.clone());
    arena.introduce();
    times(arena, None);
    if fault == Fault::Slow {
        arena.burst(victim);
    }
    arena.watch(Instant::now() + AROUND).await;
    let before = times(arena, stopped.as_deref());

    let begun = Instant::now();
    let over = arena.fault(fault, length, victim).await;
    arena.watch(begun + AROUND).await;
    let during = times(arena, stopped.as_deref());

    // All works again: the load afterwards is to be accounted for, too.
    sleep(AROUND).await;
    let account = arena.account(over.died.as_deref()).await;
    // It did not only seem so.
    arena.works().await;
    Row {
        fault,
        again: over.again,
        account,
        before,
        during,
    }
}

/// How long messages within the instances took since this was asked last, but for one that was stopped.
fn times(arena: &mut Arena, stopped: Option<&str>) -> Vec<u64> {
    let mut times = Vec::new();
    for instance in &mut arena.instances {
        let of_one = Process::times(instance);
        if stopped != Some(instance.client.as_str()) {
            times.extend(of_one);
        }
    }
    times
}

/// Not a test: what a process runs that is an instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is started by the tests"]
async fn an_instance_of_its_own() {
    let Ok(setup) = std::env::var("SETUP") else {
        return;
    };
    let urls = std::env::var("URLS").unwrap();
    let urls: Vec<&str> = urls.split(' ').collect();
    let cluster = match &*setup {
        "single" => RedisCluster::new(urls[0]),
        "sentinel" => RedisCluster::sentinel(urls, "watched"),
        _ => RedisCluster::cluster(urls),
    };
    support::process::run(cluster.lease(LEASE)).await;
}

/// Seven processes at a time are too much for a small machine.
static ONE_AFTER_THE_OTHER: Mutex<()> = Mutex::const_new(());

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Each fault of a set-up once.
fn each(arena: &Arena) -> impl Iterator<Item = (Fault, Duration)> + use<> {
    Fault::of(&arena.servers).into_iter().map(|fault| {
        let length = match fault {
            Fault::Frozen => LONG,
            _ => Duration::from_millis(1500),
        };
        (fault, length)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_account_for_every_message_through_each_fault_of_a_single_server() {
    let _one = ONE_AFTER_THE_OTHER.lock().await;
    let mut arena = Arena::start("single", 3, 1).await;
    let faults = each(&arena);
    // What is slow is asserted by `make chaos` only: the machine may be busy here.
    through(&mut arena, faults).await;
    arena.stop().await;
}

/// `SEED`, `MINUTES`, `SETUP` and `FAULTS` choose others; where there is a `SETUP`, nothing may be slow, either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_account_for_every_message_through_a_minute_of_random_faults() {
    let _one = ONE_AFTER_THE_OTHER.lock().await;
    let seed = given("SEED").map_or_else(
        || uuid::Uuid::new_v4().as_u64_pair().0,
        |seed| seed.parse().unwrap(),
    );
    let minutes: f64 = given("MINUTES").map_or(1.0, |minutes| minutes.parse().unwrap());
    let setup = given("SETUP");
    let name = setup.as_deref().unwrap_or("single");
    let mut arena = Arena::start(name, 4, seed).await;
    let faults = given("FAULTS").unwrap_or_else(|| "random".to_owned());
    let what = format!("SEED={seed} SETUP={name} FAULTS={faults}");
    println!("{what}");
    let slow = if faults == "random" {
        let faults = random(&arena, seed, Duration::from_secs_f64(60.0 * minutes));
        through(&mut arena, faults).await
    } else {
        let chosen = |fault: &Fault| {
            let fault = format!("{fault:?}");
            faults == "each" || faults.split(',').any(|name| name == fault)
        };
        let faults = each(&arena).filter(|(fault, _)| chosen(fault));
        through(&mut arena, faults).await
    };
    assert!(setup.is_none() || slow.is_empty(), "{what}: {slow:#?}");
    println!("{what}: no finding");
    arena.stop().await;
}

/// Faults by chance, for so long.
fn random(
    arena: &Arena,
    seed: u64,
    time: Duration,
) -> impl Iterator<Item = (Fault, Duration)> + use<> {
    let all = Fault::of(&arena.servers);
    let mut random = Random(seed);
    let end = Instant::now() + time;
    std::iter::from_fn(move || {
        let fault = all[random.below(all.len())];
        let length = Duration::from_millis(200 + random.below(2800) as u64);
        let long = fault == Fault::Frozen && random.below(3) == 0;
        (Instant::now() < end).then_some((fault, if long { LONG } else { length }))
    })
}
