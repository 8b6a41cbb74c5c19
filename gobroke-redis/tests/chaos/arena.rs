//! Instances over servers, and what happens to them.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    fault::{Fault, LONG},
    servers::{Servers, TAGS},
    support::process::{Process, Report},
};

pub(crate) const LEASE: Duration = Duration::from_secs(6);
/// How long anything may take at the most until all is as it should be.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often all instances are asked what they see.
const POLL: Duration = Duration::from_millis(20);
/// How many large messages a burst is: less than a line keeps, more than the server's limit for a slow subscriber.
const BURST: u64 = 400;

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// How long it took until all was right again, and how long it may take.
#[derive(Clone, Copy)]
pub(crate) struct Again {
    pub(crate) took: Duration,
    pub(crate) bound: Duration,
}

/// A fault that is over.
pub(crate) struct Over {
    pub(crate) again: Vec<Again>,
    /// The client whose instance did not live through it.
    pub(crate) died: Option<String>,
}

/// Servers, and instances over them.
pub(crate) struct Arena {
    pub(crate) servers: Servers,
    pub(crate) instances: Vec<Process>,
    started: usize,
    random: Random,
    /// What the instances said when it was quiet last, by their clients.
    pub(crate) quiet: HashMap<String, Report>,
}

impl Arena {
    pub(crate) async fn start(setup: &str, count: usize, seed: u64) -> Self {
        let mut arena = Self {
            servers: Servers::start(setup).await,
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

    /// Starts one more instance.
    async fn join(&mut self) {
        let (proxies, urls) = self.servers.proxies().await;
        let name = format!("instance-{}", self.started);
        self.started += 1;
        let environment = [
            ("SETUP", self.servers.setup().to_owned()),
            ("URLS", urls.join(" ")),
        ];
        let instance = Process::start(&name, &environment, proxies);
        self.instances.push(instance);
    }

    /// Tells all instances whom to send to.
    pub(crate) fn introduce(&mut self) {
        let clients = self.clients();
        for (number, instance) in self.instances.iter_mut().enumerate() {
            let others = clients
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != number);
            let others: Vec<&str> = others.map(|(_, client)| client.as_str()).collect();
            instance.tell(&format!("peers {}", others.join(" ")));
        }
    }

    /// The clients that send and count, in the order of their instances.
    pub(crate) fn clients(&self) -> Vec<String> {
        let clients = self.instances.iter().map(|one| one.client.clone());
        clients.collect()
    }

    pub(crate) fn reports(&mut self) -> Vec<Report> {
        self.instances.iter_mut().map(Process::report).collect()
    }

    /// One of the instances, by chance.
    pub(crate) fn victim(&mut self) -> usize {
        self.random.below(self.instances.len())
    }

    /// What some do not see of the clients, groups and metadata that there are in truth, or that they are not ready.
    fn amiss(&self, reports: &[Report]) -> Vec<String> {
        let sorted = |mut texts: Vec<String>| {
            texts.sort();
            texts
        };
        let members = sorted(self.clients());
        let near = self.instances.iter().map(|one| one.near.clone());
        let clients = sorted(members.iter().cloned().chain(near).collect());
        let of = |one: &Process| format!("{} {:?}", one.client, one.name);
        let metadata = sorted(self.instances.iter().map(of).collect());
        let mut amiss = Vec::new();
        for (one, report) in self.instances.iter().zip(reports) {
            let so = [
                ("readiness", report.ready),
                (
                    "instances",
                    report.instances == self.instances.len() as u64 - 1,
                ),
                ("clients", report.clients == clients),
                ("members", report.members == members),
                ("metadata", report.metadata == metadata),
            ];
            let not = so.iter().filter(|(_, so)| !so);
            amiss.extend(not.map(|(what, _)| format!("{}: {what}", one.name)));
        }
        amiss
    }

    /// Waits until all see the truth. Gives what was amiss at last.
    pub(crate) async fn works(&mut self) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let mut last = Vec::new();
        loop {
            let reports = self.reports();
            let amiss = self.amiss(&reports);
            if amiss.is_empty() {
                return last;
            }
            if Instant::now() >= end {
                let servers = self.servers.say().await;
                panic!("{amiss:?}: {reports:#?}, over servers that say {servers}");
            }
            last = amiss;
            sleep(POLL).await;
        }
    }

    /// Waits until all see the truth again, and says how long after it could be so that was.
    async fn again(&mut self, since: Instant, bound: Duration) -> Again {
        let amiss = self.works().await;
        let took = since.elapsed();
        if took > bound {
            println!("  again after {took:?}; not before: {amiss:?}");
        }
        Again { took, bound }
    }

    /// Asks all what they see as often as when it is waited for that all works, so that the machine has that load, too.
    pub(crate) async fn watch(&mut self, until: Instant) {
        while Instant::now() < until {
            self.reports();
            sleep(POLL).await;
        }
    }

    /// Has all instances send large messages but one, which is to be slow.
    pub(crate) fn burst(&mut self, slow: usize) {
        for (number, instance) in self.instances.iter_mut().enumerate() {
            if number != slow {
                instance.tell(&format!("burst {BURST}"));
            }
        }
    }

    /// Lets something go wrong, with one of the instances if it is an instance's fault, and waits until all works again.
    pub(crate) async fn fault(&mut self, fault: Fault, length: Duration, victim: usize) -> Over {
        let died = fault
            .is_deadly()
            .then(|| self.instances[victim].client.clone());
        let tag = TAGS[self.random.below(TAGS.len())];
        let bound = fault.bound(&self.servers, length);
        let mut again = Vec::new();
        let since = match fault {
            Fault::Killed => {
                self.servers.kill_connections().await;
                Instant::now()
            }
            Fault::Empty => self.servers.restart(tag, false, length).await,
            Fault::Restarted => self.servers.restart(tag, true, length).await,
            Fault::Frozen => {
                let end = Instant::now() + length;
                let server = self.servers.freeze(tag).await;
                if self.servers.are_replicated() && length >= LONG {
                    let decided = self.servers.decided(tag, server).await;
                    let bound = Fault::bound_before_it_goes_on();
                    again.push(self.again(decided, bound).await);
                }
                sleep_until(end).await;
                self.servers.thaw(server);
                Instant::now()
            }
            Fault::CutOff => {
                self.instances[victim].cut(true);
                // Shorter than a lease.
                sleep(length.min(LEASE / 4)).await;
                self.instances[victim].cut(false);
                Instant::now()
            }
            Fault::Slow => self.slow(victim).await,
            Fault::PlannedFailover => {
                self.servers.plan_failover(tag).await;
                Instant::now()
            }
            Fault::Failover => self.servers.fail_over(tag).await,
            Fault::MovedSlots => {
                self.servers.move_slots().await;
                Instant::now()
            }
            Fault::InstanceKilled => {
                self.instances[victim].signal("KILL");
                // Its lease has to end first.
                let end = Instant::now() + LEASE;
                drop(self.instances.remove(victim));
                self.join().await;
                self.introduce();
                end
            }
            Fault::InstanceFrozen => {
                self.instances[victim].signal("STOP");
                // Its lease ends meanwhile.
                sleep(LEASE + LEASE / 2).await;
                self.instances[victim].signal("CONT");
                Instant::now()
            }
        };
        again.push(self.again(since, bound).await);
        Over { again, died }
    }

    /// Has an instance stand still until a server has cut it off. Gives when it went on.
    async fn slow(&mut self, victim: usize) -> Instant {
        let before = self.servers.cut_off();
        self.instances[victim].read_nothing(true);
        self.burst(victim);
        let end = Instant::now() + LEASE / 3;
        while self.servers.cut_off() == before {
            assert!(
                Instant::now() < end,
                "no server cuts off an instance that does not read"
            );
            sleep(POLL).await;
        }
        self.instances[victim].read_nothing(false);
        Instant::now()
    }

    pub(crate) async fn stop(self) {
        for mut instance in self.instances {
            instance.tell("rest");
            drop(instance);
        }
    }
}
