//! Instances that stop, start again and die, under clients that connect anew.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use gobroke_core::{Broke, ClientId, CloseReason, Message, testing::TestEndpoint};
use gobroke_redis::RedisCluster;
use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{Instant, interval, sleep, timeout},
};

use self::support::{Redis, Server, load, until};

const INSTANCES: usize = 3;
const PEOPLE: usize = 1000;
/// How many of those that stay on an instance send to somebody on the other one.
const TALKERS: usize = 20;
const ROOM: &str = "room";

/// Somebody who connects again, elsewhere, whenever the connection ends.
#[derive(Default)]
struct Person {
    /// Who it is now, and where.
    now: Option<(ClientId, usize)>,
    heard: Vec<String>,
}

/// Instances, of which one may be down, and people who are on the others.
struct Town {
    server: Server,
    instances: Mutex<Vec<Option<(Broke, TestEndpoint)>>>,
    people: Vec<Mutex<Person>>,
    closing: AtomicBool,
}

fn name(instance: usize) -> String {
    format!("instance-{instance}")
}

impl Town {
    async fn start() -> Arc<Self> {
        let town = Arc::new(Self {
            server: Server::start(&[]).await,
            instances: Mutex::new(vec![None; INSTANCES]),
            people: (0..PEOPLE).map(|_| Mutex::default()).collect(),
            closing: AtomicBool::new(false),
        });
        for instance in 0..INSTANCES {
            town.run(instance).await;
        }
        town
    }

    async fn run(&self, instance: usize) {
        let cluster = RedisCluster::new(self.server.url());
        let running = load::start(&name(instance), cluster).await;
        self.instances.lock()[instance] = Some(running);
    }

    async fn stop(&self, instance: usize) {
        // Nobody comes any more, as when a load balancer is told first.
        let (broke, _) = self.instances.lock()[instance].take().unwrap();
        broke.stop().await;
    }

    fn broke(&self, instance: usize) -> Broke {
        self.instances.lock()[instance].as_ref().unwrap().0.clone()
    }

    /// Lives as one of the people until the town closes.
    async fn live(self: Arc<Self>, number: usize) {
        let mut turn = number;
        while !self.closing.load(Relaxed) {
            turn += 1;
            let Some((broke, endpoint)) = self.instances.lock()[turn % INSTANCES].clone() else {
                continue;
            };
            let Ok(mut client) = endpoint.connect().await else {
                // It stops, and has not been taken from the list for long.
                sleep(Duration::from_millis(5)).await;
                continue;
            };
            let id = client.id();
            broke.set_metadata(id, "person", number as u64);
            broke.join(id, ROOM);
            self.people[number].lock().now = Some((id, turn % INSTANCES));
            while let Some(text) = client.next_text().await {
                self.people[number].lock().heard.push(text);
            }
            self.people[number].lock().now = None;
        }
    }

    /// Who is there: the clients of people, and whose they are.
    fn truth(&self) -> BTreeMap<ClientId, u64> {
        let people = self.people.iter().enumerate();
        let there =
            people.filter_map(|(number, person)| Some((person.lock().now?.0, number as u64)));
        there.collect()
    }

    /// Waits until all instances that run list everybody once, and nobody else, with the room and what is known of them.
    async fn agrees(&self) {
        let running = self.instances.lock().clone();
        for (broke, _) in running.iter().flatten() {
            until("everybody is listed once, and nobody else", async || {
                let truth = self.truth();
                let listed = broke.clients().await;
                let person =
                    |info: &gobroke_core::ClientInfo| info.metadata.get("person")?.as_u64();
                let count = listed.len();
                let all = listed
                    .iter()
                    .filter_map(|info| Some((info.id, person(info)?)));
                let all: BTreeMap<ClientId, u64> = all.collect();
                let members = broke.members(ROOM).await;
                let members: BTreeSet<ClientId> = members.iter().map(|info| info.id).collect();
                truth.len() == PEOPLE
                    && count == PEOPLE
                    && all == truth
                    && members == truth.keys().copied().collect()
                    && broke.client_count().await.clients == PEOPLE
            })
            .await;
        }
    }

    /// Has every second of the people go elsewhere, so that an instance that has started again is not left empty.
    async fn mix(&self) {
        for person in self.people.iter().step_by(2) {
            let (id, on) = person.lock().now.unwrap();
            self.broke(on).disconnect(id, CloseReason::Normal);
        }
        until("they are somebody else now", async || {
            (0..INSTANCES).all(|instance| self.some_on(instance).len() == TALKERS)
        })
        .await;
        self.agrees().await;
    }

    /// What one of the people has heard of an instance in a round.
    fn heard(&self, person: usize, round: usize, from: usize) -> Vec<String> {
        let prefix = format!("{round} {from} ");
        let person = self.people[person].lock();
        let heard = person.heard.iter().filter(|text| text.starts_with(&prefix));
        heard.cloned().collect()
    }

    /// Those who are on an instance: some people, and who they are now.
    fn some_on(&self, instance: usize) -> Vec<(usize, ClientId)> {
        let people = self.people.iter().enumerate();
        let here = people.filter_map(|(number, person)| match person.lock().now {
            Some((id, on)) if on == instance => Some((number, id)),
            _ => None,
        });
        here.take(TALKERS).collect()
    }
}

/// What some who stay send to some who stay elsewhere: for each pair, how many, until it is told to stop.
fn talk(
    town: &Town,
    round: usize,
    (here, there): (usize, usize),
    stop: &Arc<AtomicBool>,
) -> (Vec<(usize, ClientId)>, JoinHandle<u64>) {
    let broke = town.broke(here);
    let to = town.some_on(there);
    assert_eq!(to.len(), TALKERS, "somebody is on {}", name(there));
    let (receivers, stop) = (to.clone(), stop.clone());
    let talk = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(5));
        let mut sent = 0;
        while !stop.load(Relaxed) {
            ticks.tick().await;
            sent += 1;
            for (_, id) in &to {
                let message = Message::new(format!("{round} {here} {sent}")).to_client(*id);
                broke.send(message).unwrap();
            }
        }
        sent
    });
    (receivers, talk)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_leaves_no_ghost_and_no_double_and_loses_nothing_between_those_who_stay()
{
    let town = Town::start().await;
    let lives: Vec<_> = (0..PEOPLE)
        .map(|number| tokio::spawn(town.clone().live(number)))
        .collect();
    town.agrees().await;
    for round in 0..INSTANCES {
        let stay = [(round + 1) % INSTANCES, (round + 2) % INSTANCES];
        let stop = Arc::new(AtomicBool::new(false));
        let talks = [
            talk(&town, round, (stay[0], stay[1]), &stop),
            talk(&town, round, (stay[1], stay[0]), &stop),
        ];
        town.stop(round).await;
        town.agrees().await;
        town.run(round).await;
        town.agrees().await;
        for (from, (receivers, _)) in stay.iter().zip(&talks) {
            for (person, _) in receivers {
                let count = || town.heard(*person, round, *from).len();
                let before = count();
                until("something comes with all of them there", async || {
                    count() > before
                })
                .await;
            }
        }
        stop.store(true, Relaxed);
        for (from, (receivers, talk)) in stay.into_iter().zip(talks) {
            let sent = talk.await.unwrap();
            let want: Vec<String> = (1..=sent)
                .map(|number| format!("{round} {from} {number}"))
                .collect();
            for (person, id) in receivers {
                let heard = || town.heard(person, round, from);
                until("what was sent last comes", async || {
                    heard().last() == want.last()
                })
                .await;
                assert_eq!(heard(), want, "each once, and in order");
                let now = town.people[person].lock().now.map(|(id, _)| id);
                assert_eq!(now, Some(id), "who is not on the instance that stops stays");
            }
        }
        town.mix().await;
    }
    town.closing.store(true, Relaxed);
    for instance in 0..INSTANCES {
        town.stop(instance).await;
    }
    for life in lives {
        life.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_instance_is_gone_a_second_after_its_lease_and_no_call_waits_for_it() {
    let mut redis = Redis::start().await;
    redis.lease = Duration::from_secs(3);
    let one = load::start("one", redis.through("one").await).await;
    let other = load::start("other", redis.through("other").await).await;
    let dead = load::start("dead", redis.through("dead").await).await;
    let ann = one.1.connect().await.unwrap();
    let mut bob = other.1.connect().await.unwrap();
    let zoe = dead.1.connect().await.unwrap();
    for (broke, client) in [(&one.0, &ann), (&other.0, &bob), (&dead.0, &zoe)] {
        broke.join(client.id(), ROOM);
    }
    until("all are known", async || {
        one.0.members(ROOM).await.len() == 3 && other.0.members(ROOM).await.len() == 3
    })
    .await;
    redis.cut("dead", true);
    let died = Instant::now();
    let mut sent = 0;
    // A call that waited for the dead would wait until its lease ends.
    let prompt = redis.lease / 3;
    let in_time = async |what: &str, call: &mut (dyn Future<Output = usize> + Unpin)| {
        let count = timeout(prompt, call).await;
        count.unwrap_or_else(|_| panic!("{what} waits for the dead instance"))
    };
    loop {
        let call = &mut Box::pin(async { one.0.clients().await.len() });
        let clients = in_time("clients()", call).await;
        let call = &mut Box::pin(async { one.0.members(ROOM).await.len() });
        let members = in_time("members()", call).await;
        let call = &mut Box::pin(async { one.0.client_count().await.clients });
        let count = in_time("client_count()", call).await;
        let call =
            &mut Box::pin(async { one.0.client(zoe.id()).await.into_iter().flatten().count() });
        let known = in_time("client()", call).await;
        sent += 1;
        let text = format!("{sent}");
        one.0
            .send(Message::new(text.clone()).to_group(ROOM))
            .unwrap();
        let next = timeout(prompt, bob.next_text()).await;
        assert_eq!(
            next.ok().flatten(),
            Some(text),
            "a room waits for the dead instance"
        );
        if (clients, members, count, known) == (2, 2, 2, 0)
            && one.0.instances() == ["other"]
            && other.0.instances() == ["one"]
        {
            break;
        }
        assert!(
            died.elapsed() < redis.lease + Duration::from_secs(1),
            "it is still there: {clients} clients, {members} members, {count} counted"
        );
        sleep(Duration::from_millis(10)).await;
    }
    println!(
        "gone {:?} after it died, of a lease of {:?}",
        died.elapsed(),
        redis.lease
    );
    one.0.stop().await;
    other.0.stop().await;
}
