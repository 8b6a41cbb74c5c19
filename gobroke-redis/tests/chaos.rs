//! Instances as processes of their own, under load and under faults: what was sent is what came, once and in order, and
//! what is counted.
//!
//! `make chaos SEED=.. MINUTES=.. SETUP=single|sentinel|cluster` goes on for longer, and prints a table.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{collections::HashMap, time::Duration};

use gobroke_redis::RedisCluster;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use self::support::{
    Far, Proxy, Server,
    process::{Process, Report},
    sentinel::Watched,
    sharded::Sharded,
};

const LEASE: Duration = Duration::from_secs(6);
/// How long there is load before a fault.
const AROUND: Duration = Duration::from_millis(700);
/// How long anything may take at the most until all is as it should be.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many large messages a burst is: less than a line keeps, more than the server's limit for a slow subscriber.
const BURST: u64 = 400;

/// The servers under an arena's instances.
enum Servers {
    Single { server: Server, proxies: Vec<Proxy> },
    Sentinel(Watched),
    Cluster(Sharded),
}

impl Servers {
    fn all(&self) -> Vec<&Server> {
        match self {
            Self::Single { server, .. } => vec![server],
            Self::Sentinel(watched) => watched.servers.iter().collect(),
            Self::Cluster(sharded) => sharded.servers.iter().collect(),
        }
    }

    /// What those that run say of each other.
    async fn say(&self) -> String {
        let command: &[&str] = match self {
            Self::Cluster(_) => &["CLUSTER", "NODES"],
            _ => &["INFO", "replication"],
        };
        let mut said = String::new();
        for server in self.all().into_iter().filter(|server| server.runs()) {
            let answer = server.cli(command).await;
            let answer: String = redis::from_redis_value(answer).unwrap_or_default();
            said.push_str(&format!("\n{answer}"));
        }
        said
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Empty,
    Restarted,
    Frozen,
    CutOff,
    Slow,
    PlannedFailover,
    Failover,
    MovedSlots,
    InstanceKilled,
    InstanceFrozen,
}

impl Fault {
    /// Whether an instance does not live through it.
    fn is_deadly(self) -> bool {
        matches!(self, Self::InstanceKilled | Self::InstanceFrozen)
    }

    fn of(setup: &Servers) -> &'static [Self] {
        match setup {
            Servers::Single { .. } => &[
                Self::Killed,
                Self::Empty,
                Self::Restarted,
                Self::Frozen,
                Self::CutOff,
                Self::Slow,
                Self::InstanceKilled,
                Self::InstanceFrozen,
            ],
            Servers::Sentinel(_) => &[
                Self::Killed,
                Self::PlannedFailover,
                Self::Failover,
                Self::InstanceKilled,
                Self::InstanceFrozen,
            ],
            Servers::Cluster(_) => &[
                Self::Killed,
                Self::PlannedFailover,
                Self::Failover,
                Self::MovedSlots,
                Self::InstanceKilled,
                Self::InstanceFrozen,
            ],
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Servers, and instances over them.
struct Arena {
    servers: Servers,
    instances: Vec<Process>,
    started: usize,
    random: Random,
    /// What the instances said when it was quiet last, by their clients.
    quiet: HashMap<String, Report>,
}

impl Arena {
    async fn start(servers: Servers, count: usize, seed: u64) -> Self {
        let mut arena = Self {
            servers,
            instances: Vec::new(),
            started: 0,
            random: Random(seed),
            quiet: HashMap::new(),
        };
        for _ in 0..count {
            arena.join().await;
        }
        arena.works().await;
        arena.account(None).await;
        arena
    }

    async fn single() -> Servers {
        let limit = "pubsub 1048576 0 0";
        let arguments = [
            "--client-output-buffer-limit",
            limit,
            "--dbfilename",
            "dump.rdb",
        ];
        Servers::Single {
            server: Server::start(&arguments).await,
            proxies: Vec::new(),
        }
    }

    /// Starts one more instance.
    async fn join(&mut self) {
        let (setup, urls) = match &mut self.servers {
            Servers::Single { server, proxies } => {
                let proxy = Proxy::start(Far::Socket(server.socket())).await;
                let url = format!("redis://{}", proxy.addr());
                proxies.push(proxy);
                ("single", url)
            }
            Servers::Sentinel(watched) => {
                let urls: Vec<_> = watched.urls().collect();
                ("sentinel", urls.join(" "))
            }
            Servers::Cluster(sharded) => {
                let urls: Vec<_> = sharded.urls().collect();
                ("cluster", urls.join(" "))
            }
        };
        let name = format!("instance-{}", self.started);
        self.started += 1;
        let environment = [("SETUP", setup.to_owned()), ("URLS", urls)];
        self.instances.push(Process::start(&name, &environment));
    }

    /// Tells all instances whom to send to.
    fn introduce(&mut self) {
        let clients: Vec<String> = self
            .instances
            .iter()
            .map(|one| one.client.clone())
            .collect();
        for (number, instance) in self.instances.iter_mut().enumerate() {
            let others = clients
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != number);
            let others: Vec<&str> = others.map(|(_, client)| client.as_str()).collect();
            instance.tell(&format!("peers {}", others.join(" ")));
        }
    }

    /// Waits until all instances are ready and know each other, and their clients, groups and metadata.
    async fn works(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let reports: Vec<Report> = self.instances.iter_mut().map(Process::report).collect();
            let count = reports.len();
            let first = &reports[0];
            let agree = reports.iter().all(|report| {
                report.ready
                    && report.instances == count as u64 - 1
                    && report.clients == first.clients
                    && report.members == first.members
                    && report.metadata == first.metadata
            });
            // Each has a client in the room, with metadata, and one more.
            let all = first.clients.len() == 2 * count
                && first.members.len() == count
                && first.metadata.len() == count;
            if agree && all {
                return;
            }
            if Instant::now() >= end {
                let servers = self.servers.say().await;
                panic!("they do not agree: {reports:#?}, over servers that say {servers}");
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets something go wrong, and says since when it could be right again, and whose client's instance died.
    async fn fault(&mut self, fault: Fault, length: Duration) -> (Instant, Option<String>) {
        let victim = self.random.below(self.instances.len());
        let died = fault
            .is_deadly()
            .then(|| self.instances[victim].client.clone());
        match (fault, &mut self.servers) {
            (Fault::Killed, servers) => {
                for server in servers.all().into_iter().filter(|server| server.runs()) {
                    for kind in ["normal", "pubsub"] {
                        let kill = ["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"];
                        server.cli(&kill).await;
                    }
                }
            }
            (Fault::Empty, Servers::Single { server, .. }) => {
                server.kill();
                std::fs::remove_file(server.path().join("dump.rdb")).ok();
                sleep(length).await;
                server.run().await;
            }
            (Fault::Restarted, Servers::Single { server, .. }) => {
                server.cli(&["SAVE"]).await;
                server.kill();
                sleep(length).await;
                server.run().await;
            }
            (Fault::Frozen, Servers::Single { server, .. }) => {
                server.signal("STOP");
                sleep(length).await;
                server.signal("CONT");
            }
            (Fault::CutOff, Servers::Single { proxies, .. }) => {
                // Shorter than a lease.
                proxies[victim].cut(true);
                sleep(length.min(LEASE / 4)).await;
                proxies[victim].cut(false);
            }
            (Fault::Slow, _) => {
                self.instances[victim].signal("STOP");
                for (number, instance) in self.instances.iter_mut().enumerate() {
                    if number != victim {
                        instance.tell(&format!("burst {BURST}"));
                    }
                }
                sleep(Duration::from_millis(300)).await;
                self.instances[victim].signal("CONT");
            }
            (Fault::PlannedFailover, Servers::Sentinel(watched)) => watched.fail_over().await,
            (Fault::Failover, Servers::Sentinel(watched)) => {
                let (before, acting) = (watched.master().await, watched.acting().await);
                watched.servers[acting].kill();
                watched.another_than(before).await;
                let decided = Instant::now();
                watched.servers[acting].run().await;
                return (decided, died);
            }
            (Fault::PlannedFailover, Servers::Cluster(sharded)) => {
                let slot = sharded.slot_of("{gobroke}").await;
                sharded.works().await;
                sharded.fail_over(slot).await;
            }
            (Fault::Failover, Servers::Cluster(sharded)) => {
                let slot = sharded.slot_of("{gobroke}").await;
                sharded.works().await;
                let master = sharded.master_of(slot).await;
                sharded.servers[master].kill();
                sharded.elected(slot, master).await;
                let decided = Instant::now();
                sharded.servers[master].run().await;
                return (decided, died);
            }
            (Fault::MovedSlots, Servers::Cluster(sharded)) => {
                sharded.works().await;
                for tag in ["{gobroke}", "{u0}", "{pv}", "{uv}", "{ha}"] {
                    let slot = sharded.slot_of(tag).await;
                    sharded.migrate(slot).await;
                }
            }
            (Fault::InstanceKilled, _) => {
                self.instances[victim].signal("KILL");
                drop(self.instances.remove(victim));
                if let Servers::Single { proxies, .. } = &mut self.servers {
                    proxies.remove(victim);
                }
                let end = Instant::now() + LEASE;
                self.join().await;
                self.introduce();
                // Its lease has to end first.
                return (end, died);
            }
            (Fault::InstanceFrozen, _) => {
                self.instances[victim].signal("STOP");
                sleep(LEASE + LEASE / 2).await;
                self.instances[victim].signal("CONT");
            }
            (fault, _) => unreachable!("{fault:?} is not one of this set-up"),
        }
        (Instant::now(), died)
    }

    /// Has all rest until what was sent has come or is counted, and gives what they say then.
    async fn settled(&mut self, victim: Option<&str>) -> Vec<Report> {
        for instance in &mut self.instances {
            instance.tell("rest");
        }
        let end = Instant::now() + PATIENCE;
        let mut before = (0, 0);
        loop {
            let reports: Vec<Report> = self.instances.iter_mut().map(Process::report).collect();
            let sum = |name| self.since(&reports, name);
            let (sent, taken) = (sum("sent"), sum("received") + sum("lost"));
            let got = reports.iter().flat_map(|report| report.got.values());
            let got = got.map(|got| got.direct + got.group + got.all).sum::<u64>();
            let waits = reports.iter().any(|report| report.stat("queue") > 0);
            // What went to one that died is nobody's. And clients may be behind their instances.
            let accounted = victim.is_some() || sent == taken;
            if !waits && accounted && before == (taken, got) {
                return reports;
            }
            assert!(
                Instant::now() < end,
                "it does not settle, {sent} sent and {taken} taken: {reports:#?}"
            );
            before = (taken, got);
            sleep(Duration::from_millis(if victim.is_none() {
                300
            } else {
                1500
            }))
            .await;
        }
    }

    /// How much more has been counted than when it was quiet before.
    fn since(&self, reports: &[Report], name: &str) -> u64 {
        let before = |client| self.quiet.get(client).map_or(0, |report| report.stat(name));
        let clients = self.instances.iter().map(|one| &one.client);
        let more = clients
            .zip(reports)
            .map(|(client, report)| report.stat(name) - before(client));
        more.sum()
    }

    /// Accounts for what those have sent each other, since it was quiet before, who lived through it all. Gives what was
    /// owed, and what did not come.
    async fn account(&mut self, victim: Option<&str>) -> (u64, u64) {
        let reports = self.settled(victim).await;
        let clients: Vec<String> = self
            .instances
            .iter()
            .map(|one| one.client.clone())
            .collect();
        let (mut owed, mut missing) = (0, 0);
        for (from, sender) in clients.iter().zip(&reports) {
            for (to, receiver) in clients.iter().zip(&reports).filter(|(to, _)| *to != from) {
                let got = receiver.got.get(from).cloned().unwrap_or_default();
                assert_eq!(got.wrong, 0, "{from} to {to}: twice, or out of order");
                let (Some(sent), Some(received)) = (self.quiet.get(from), self.quiet.get(to))
                else {
                    continue;
                };
                let had = received.got.get(from).cloned().unwrap_or_default();
                let direct = |report: &Report| report.direct.get(to).copied().unwrap_or_default();
                for (owes, has) in [
                    (direct(sender) - direct(sent), got.direct - had.direct),
                    (sender.group - sent.group, got.group - had.group),
                    (sender.all - sent.all, got.all - had.all),
                ] {
                    assert!(has <= owes, "{from} to {to}: {has} of {owes}");
                    if victim.is_none_or(|victim| victim != from && victim != to) {
                        owed += owes;
                        missing += owes - has;
                    }
                }
            }
        }
        if victim.is_none() {
            let names = ["lost", "dropped", "unknown", "in_doubt"];
            let counted = names.map(|name| self.since(&reports, name));
            println!("  missing {missing} of {owed}; {names:?}: {counted:?}");
            // Nobody died, so nothing is in doubt.
            assert_eq!(
                counted[3], 0,
                "an instance that lives was taken for dead: {reports:#?}"
            );
            assert_eq!(
                missing,
                counted.iter().sum::<u64>(),
                "of {owed}: {reports:#?}"
            );
        }
        self.quiet = clients.into_iter().zip(reports).collect();
        (owed, missing)
    }

    async fn stop(self) {
        for mut instance in self.instances {
            instance.tell("rest");
            drop(instance);
        }
    }
}

/// Runs faults one after the other, each with its account, and prints a line for each.
async fn through(arena: &mut Arena, faults: impl Iterator<Item = (Fault, Duration)>) {
    println!(
        "{:<16} {:>9} {:>8} {:>8} {:>14}",
        "fault", "again", "owed", "missing", "local p99"
    );
    for (fault, length) in faults {
        arena.introduce();
        arena
            .instances
            .iter_mut()
            .for_each(|one| drop(one.report()));
        sleep(AROUND).await;
        let quiet = arena
            .instances
            .iter_mut()
            .map(|one| one.report().local_p99)
            .max();
        println!("{fault:?}, {} ms", length.as_millis());
        let (since, died) = arena.fault(fault, length).await;
        arena.works().await;
        let again = since.elapsed();
        let during = arena
            .instances
            .iter_mut()
            .map(|one| one.report().local_p99)
            .max();
        sleep(AROUND).await;
        let (owed, missing) = arena.account(died.as_deref()).await;
        // A slow subscriber may be sent more than it can be sent again; what is lost of it is counted.
        assert!(
            missing == 0 || fault == Fault::Slow,
            "{fault:?}: {missing} of {owed} between those who lived; the outage is within the bounds"
        );
        println!(
            "{:<16} {:>6} ms {owed:>8} {missing:>8} {:>6} {:>6} µs",
            format!("{fault:?}"),
            again.as_millis(),
            quiet.unwrap_or_default(),
            during.unwrap_or_default(),
        );
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_account_for_every_message_through_each_fault_of_a_single_server() {
    let _one = ONE_AFTER_THE_OTHER.lock().await;
    let mut arena = Arena::start(Arena::single().await, 3, 1).await;
    let faults = Fault::of(&arena.servers).iter();
    let length = Duration::from_millis(1500);
    through(&mut arena, faults.map(|fault| (*fault, length))).await;
    arena.stop().await;
}

/// `SEED`, `MINUTES` and `SETUP` choose others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_account_for_every_message_through_a_minute_of_random_faults() {
    let _one = ONE_AFTER_THE_OTHER.lock().await;
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let seed = given("SEED").map_or_else(
        || uuid::Uuid::new_v4().as_u64_pair().0,
        |seed| seed.parse().unwrap(),
    );
    let minutes: f64 = given("MINUTES").map_or(1.0, |minutes| minutes.parse().unwrap());
    let setup = given("SETUP").unwrap_or_else(|| "single".to_owned());
    println!("SEED={seed} SETUP={setup}");
    let servers = match &*setup {
        "single" => Arena::single().await,
        "sentinel" => Servers::Sentinel(Watched::start().await),
        "cluster" => Servers::Cluster(Sharded::start().await),
        other => panic!("SETUP={other} is none of single, sentinel, cluster"),
    };
    let mut arena = Arena::start(servers, 4, seed).await;
    let all = Fault::of(&arena.servers);
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let faults = std::iter::from_fn(move || {
        let fault = all[random.below(all.len())];
        let length = Duration::from_millis(200 + random.below(2800) as u64);
        (Instant::now() < end).then_some((fault, length))
    });
    through(&mut arena, faults).await;
    println!("SEED={seed} SETUP={setup}: no finding");
    arena.stop().await;
}
