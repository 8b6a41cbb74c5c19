//! Instances under load, and the account of what they sent to each other.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gobroke_core::{
    Broke, ClientId, Message, Targets,
    cluster::ClusterStats,
    testing::{TestClient, TestEndpoint},
};
use gobroke_redis::RedisCluster;
use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::interval};

use super::until;

/// How often an instance sends.
const PACE: Duration = Duration::from_millis(2);
/// How many messages of each instance are a while of load: half a second of it.
const WHILE: u64 = 250;
/// What every instance sends to every client at last.
const END: &str = "end";

/// What a client got of each sender, in the order in which it came.
type Got = HashMap<usize, Vec<u64>>;

/// Instances with a client each. Each instance sends to the client of the next one, and every tenth message to all.
pub(crate) struct Load {
    pub(crate) instances: Vec<Broke>,
    pub(crate) clients: Vec<ClientId>,
    endpoints: Vec<TestEndpoint>,
    readers: Vec<JoinHandle<()>>,
    senders: Vec<JoinHandle<()>>,
    /// What each client has got so far.
    got: Vec<Arc<Mutex<Got>>>,
    /// How many messages each instance has sent so far.
    sent: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Account {
    /// Messages times the clients that they were for.
    pub(crate) owed: u64,
    pub(crate) missing: u64,
    /// What the instances say was lost, dropped, or for nobody.
    pub(crate) counted: u64,
}

/// Starts an instance without any endpoint but the one for clients of the test.
pub(crate) async fn start(name: &str, cluster: RedisCluster) -> (Broke, TestEndpoint) {
    let endpoint = TestEndpoint::new(Targets::default())
        .options(|options| options.ping_interval = None)
        .capacity(64 << 20);
    let broke = Broke::builder()
        .instance(name)
        .endpoint(endpoint.clone())
        .cluster(cluster)
        .start()
        .await
        .unwrap();
    (broke, endpoint)
}

pub(crate) fn stats(broke: &Broke) -> ClusterStats {
    broke.stats().cluster.unwrap()
}

impl Load {
    pub(crate) async fn start(clusters: Vec<RedisCluster>) -> Self {
        let count = clusters.len();
        let (mut instances, mut endpoints, mut clients) = (Vec::new(), Vec::new(), Vec::new());
        for (number, cluster) in clusters.into_iter().enumerate() {
            let (broke, endpoint) = start(&format!("instance-{number}"), cluster).await;
            clients.push(endpoint.connect().await.unwrap());
            instances.push(broke);
            endpoints.push(endpoint);
        }
        let ids: Vec<ClientId> = clients.iter().map(TestClient::id).collect();
        let got: Vec<Arc<Mutex<Got>>> = clients.iter().map(|_| Arc::default()).collect();
        let load = Self {
            readers: clients
                .into_iter()
                .zip(&got)
                .map(|(client, got)| tokio::spawn(read(client, count, got.clone())))
                .collect(),
            senders: Vec::new(),
            got,
            sent: (0..count).map(|_| Arc::default()).collect(),
            stop: Arc::default(),
            clients: ids,
            endpoints,
            instances,
        };
        load.agrees().await;
        let senders = (0..count).map(|number| {
            let to = load.clients[(number + 1) % count];
            tokio::spawn(send(
                load.instances[number].clone(),
                number,
                to,
                load.sent[number].clone(),
                load.stop.clone(),
            ))
        });
        let senders = senders.collect();
        Self { senders, ..load }
    }

    /// Waits until every instance is ready, and has the same clients and instances.
    pub(crate) async fn agrees(&self) {
        let mut all = self.clients.clone();
        all.sort();
        for broke in &self.instances {
            until("instances agree on who is there", async || {
                let listed = broke.clients().await;
                let mut listed: Vec<_> = listed.iter().map(|info| info.id).collect();
                listed.sort();
                let known = broke.instances().len() == self.instances.len() - 1;
                let count = broke.client_count().await;
                broke.is_ready() && known && listed == all && count.clients == all.len()
            })
            .await;
        }
    }

    /// Waits for a while of load from now on: until every client has got what every instance sends at its end.
    pub(crate) async fn flows(&self) {
        let ends = self.sent.iter().map(|sent| sent.load(Relaxed) + WHILE);
        let ends: Vec<u64> = ends.collect();
        until("what is sent from now on comes", async || {
            self.got.iter().all(|got| {
                let got = got.lock();
                let last = |from: usize| got.get(&from)?.last().copied();
                let mut ends = ends.iter().enumerate();
                ends.all(|(from, end)| last(from).is_some_and(|last| last >= *end))
            })
        })
        .await;
    }

    /// Connects one more client to an instance.
    pub(crate) async fn connect(&self, instance: usize) -> TestClient {
        self.endpoints[instance].connect().await.unwrap()
    }

    /// Ends the load: nothing of it is missing, and nothing counted as lost.
    pub(crate) async fn lost_nothing(self) {
        let Account {
            owed,
            missing,
            counted,
        } = self.account().await;
        assert!(owed > 500, "there was load: {owed}");
        assert_eq!((missing, counted), (0, 0), "of {owed}");
    }

    /// Ends the load, waits until everything is accounted for, and checks that what came is in order and came once.
    pub(crate) async fn account(mut self) -> Account {
        self.stop.store(true, Relaxed);
        for sender in self.senders.drain(..) {
            sender.await.unwrap();
        }
        let sent: Vec<u64> = self.sent.iter().map(|sent| sent.load(Relaxed)).collect();
        let sum = |of: fn(&ClusterStats) -> u64| {
            self.instances
                .iter()
                .map(|broke| of(&stats(broke)))
                .sum::<u64>()
        };
        until("what was sent is received or lost", async || {
            let queued = sum(|stats| stats.queue_bytes as u64);
            queued == 0 && sum(|stats| stats.sent) == sum(|stats| stats.received + stats.lost)
        })
        .await;
        self.agrees().await;
        let counted = sum(|stats| stats.lost + stats.dropped + stats.unknown);
        let mut account = Account {
            owed: 0,
            missing: 0,
            counted,
        };
        let count = self.instances.len();
        // What is received may not have been delivered yet. What the same instance sends behind it does not overtake it.
        for broke in &self.instances {
            for client in &self.clients {
                broke.send(Message::new(END).to_client(*client)).unwrap();
            }
        }
        for (number, reader) in self.readers.drain(..).enumerate() {
            reader.await.unwrap();
            let mut got = std::mem::take(&mut *self.got[number].lock());
            for (from, sent) in sent.iter().enumerate() {
                let got = got.remove(&from).unwrap_or_default();
                assert!(
                    got.is_sorted_by(|a, b| a < b),
                    "{from} to {number}: twice, or out of order"
                );
                let next = (from + 1) % count == number;
                let owed = if next { *sent } else { sent / 10 };
                assert!(got.len() as u64 <= owed && got.iter().all(|message| message <= sent));
                account.owed += owed;
                account.missing += owed - got.len() as u64;
            }
        }
        for broke in &self.instances {
            if account.missing > 0 {
                eprintln!("{}: {:?}", broke.instance(), stats(broke));
            }
            broke.stop().await;
        }
        account
    }
}

async fn send(
    broke: Broke,
    number: usize,
    to: ClientId,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    let mut ticks = interval(PACE);
    while !stop.load(Relaxed) {
        ticks.tick().await;
        let sent = count.fetch_add(1, Relaxed) + 1;
        let message = Message::new(format!("{number} {sent}"));
        let message = if sent.is_multiple_of(10) {
            message.to_all()
        } else {
            message.to_client(to)
        };
        broke.send(message).unwrap();
    }
}

/// Reads until as many senders have said that there is no more.
async fn read(mut client: TestClient, senders: usize, got: Arc<Mutex<Got>>) {
    let mut ended = 0;
    while ended < senders {
        let text = client
            .next_text()
            .await
            .expect("the client is not cut, and hears something");
        if text == END {
            ended += 1;
            continue;
        }
        let (from, number) = text.split_once(' ').unwrap();
        let (from, number) = (from.parse().unwrap(), number.parse().unwrap());
        got.lock().entry(from).or_default().push(number);
    }
}
