//! A Redis Cluster of three masters with a replica each, and proxies before all of them for each instance.

use std::{cell::Cell, collections::BTreeSet, sync::Arc, time::Duration};

use gobroke_core::async_trait;
use gobroke_redis::RedisCluster;
use parking_lot::Mutex;
use redis::Value;
use tokio::time::{Instant, sleep};

use super::{
    Far, Proxy, Server,
    apart::Shared,
    server::Program,
    until,
    way::{Way, port},
};

pub(crate) const MASTERS: usize = 3;
/// How long after it was asked for a failover that did not happen it is asked again.
const AGAIN: Duration = Duration::from_secs(8);

/// What a user needs over a Redis Cluster, for the namespace `gobroke`: also in `src/docs/operating.md`.
pub(crate) const ACL: &str = "~{gobroke}:* &{gobroke}:* &{*}:gobroke:* -@all +ping +info +cluster|info \
    +cluster|keyslot +cluster|slots +ssubscribe +spublish +evalsha +script|load +time +exists +hget +hset +hdel \
    +hmget +hgetall +hincrby +hlen +hvals +hscan +zadd +zrem +zrange +zrangebyscore +sadd +srem +spop +smembers";
const SLOTS: u16 = 16384;

pub(crate) struct Sharded {
    /// The masters as it began, then the replicas in that order.
    pub(crate) servers: Vec<Server>,
    pub(crate) way: Way,
    pub(crate) ports: Vec<u16>,
    pub(crate) ids: Vec<String>,
}

fn text(value: &Value) -> String {
    redis::from_redis_value(value.clone()).unwrap_or_default()
}

impl Sharded {
    pub(crate) async fn start() -> Self {
        Self::start_by(Way::Open).await
    }

    pub(crate) async fn start_by(way: Way) -> Self {
        Self::start_with(Program::Redis, way).await
    }

    pub(crate) async fn start_with(program: Program, way: Way) -> Self {
        let (mut servers, mut ports, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 * MASTERS {
            let (own, bus) = (port(), port());
            let mut arguments = way.arguments(own);
            let bus_port = bus.to_string();
            let more = [
                ["--cluster-enabled", "yes"],
                ["--cluster-port", &bus_port],
                ["--cluster-node-timeout", "1500"],
                ["--repl-diskless-sync-delay", "0"],
                ["--cluster-allow-replica-migration", "no"],
            ];
            arguments.extend(more.as_flattened().iter().map(|&more| more.to_owned()));
            let server = Server::start_with(program, arguments).await;
            // The same for namespaces of tests.
            let acl = ACL
                .replace("{gobroke}", "{apart-*}")
                .replace(":gobroke:", ":apart-*:");
            let mut user = vec!["ACL", "SETUSER", "router", "on", ">secret"];
            user.extend(acl.split_whitespace());
            server.cli(&user).await;
            ids.push(text(&server.cli(&["CLUSTER", "MYID"]).await));
            ports.push((own, bus));
            servers.push(server);
        }
        for (number, server) in servers.iter().enumerate().take(MASTERS) {
            let epoch = (number + 1).to_string();
            server.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            let each = SLOTS / MASTERS as u16;
            let first = number as u16 * each;
            let last = match number + 1 {
                MASTERS => SLOTS - 1,
                _ => first + each - 1,
            };
            let (first, last) = (first.to_string(), last.to_string());
            server
                .cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])
                .await;
        }
        for (own, bus) in &ports[1..] {
            let (own, bus) = (own.to_string(), bus.to_string());
            servers[0]
                .cli(&["CLUSTER", "MEET", "127.0.0.1", &own, &bus])
                .await;
        }
        let ports = ports.into_iter().map(|(own, _)| own).collect();
        let sharded = Self {
            servers,
            way,
            ports,
            ids,
        };
        for server in &sharded.servers {
            until("all nodes know each other", async || {
                let nodes = text(&server.cli(&["CLUSTER", "NODES"]).await);
                nodes.lines().count() == 2 * MASTERS && !nodes.contains("handshake")
            })
            .await;
        }
        for replica in MASTERS..2 * MASTERS {
            let master = &sharded.ids[replica - MASTERS];
            let server = &sharded.servers[replica];
            server.cli(&["CLUSTER", "REPLICATE", master]).await;
        }
        sharded.works().await;
        sharded
    }

    /// Waits until all nodes that run say that all works, and replicas follow.
    pub(crate) async fn works(&self) {
        for server in self.servers.iter().filter(|server| server.runs()) {
            until("the cluster works", async || {
                let info = text(&server.cli(&["CLUSTER", "INFO"]).await);
                let role = text(&server.cli(&["INFO", "replication"]).await);
                info.contains("cluster_state:ok")
                    && !role.contains("master_link_status:down")
                    && (role.contains("role:master") || role.contains("master_link_status:up"))
            })
            .await;
        }
    }

    pub(crate) fn urls(&self) -> impl Iterator<Item = String> {
        self.ports.iter().map(|port| self.way.url(*port))
    }

    /// Proxies before all of them, for one instance, and where it finds the nodes then.
    pub(crate) async fn proxies(&self) -> (Vec<Proxy>, Vec<String>) {
        let ports = Arc::new(Mutex::new(Vec::new()));
        let (mut proxies, mut urls) = (Vec::new(), Vec::new());
        for (server, port) in self.servers.iter().zip(&self.ports) {
            let proxy = Proxy::start(Far::Node(server.socket(), ports.clone())).await;
            ports.lock().push((*port, proxy.addr().port()));
            urls.push(format!("redis://{}", proxy.addr()));
            proxies.push(proxy);
        }
        (proxies, urls)
    }

    /// What an instance joins by. One of the nodes is enough to find the others.
    pub(crate) fn cluster(&self) -> RedisCluster {
        let cluster = RedisCluster::cluster(self.urls().take(2));
        self.way.equip(cluster).lease(Duration::from_secs(10))
    }

    fn any(&self) -> &Server {
        self.servers.iter().find(|server| server.runs()).unwrap()
    }

    /// Waits until a node takes part. One that was started again waits for two seconds before it does.
    pub(crate) async fn serves(&self, node: usize) {
        until("the node takes part", async || {
            let info = self.servers[node].cli(&["CLUSTER", "INFO"]).await;
            text(&info).contains("cluster_state:ok")
        })
        .await;
    }

    /// Which of the servers is the master of a slot.
    pub(crate) async fn master_of(&self, slot: u16) -> usize {
        for _ in 0..1_000 {
            if let Some(holder) = self.holder_of(slot).await {
                return holder;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody has had the slot {slot} for 10 s");
    }

    /// The same, as one node sees it: nobody, for a moment, while a master gives its slots to another.
    async fn holder_of(&self, slot: u16) -> Option<usize> {
        let nodes = text(&self.any().cli(&["CLUSTER", "NODES"]).await);
        self.ids.iter().position(|id| has(&nodes, id, slot))
    }

    pub(crate) async fn slot_of(&self, key: &str) -> u16 {
        let slot = self.any().cli(&["CLUSTER", "KEYSLOT", key]).await;
        redis::from_redis_value(slot).unwrap()
    }

    /// The hash tag of a trunk that something is published to, by what the servers log of a moment.
    pub(crate) async fn trunk(&self) -> String {
        let slower_than = async |micros: &str| {
            for server in &self.servers {
                let set = ["CONFIG", "SET", "slowlog-log-slower-than", micros];
                server.cli(&set).await;
            }
        };
        slower_than("0").await;
        until("something is published", async || {
            !self.logged_trunks().await.is_empty()
        })
        .await;
        slower_than("10000").await;
        let mut tags = self.logged_trunks().await;
        tags.pop_first().unwrap()
    }

    /// The hash tags of the trunks that the servers have logged as published to.
    async fn logged_trunks(&self) -> BTreeSet<String> {
        type Logged = (u64, u64, u64, Vec<Vec<u8>>, String, String);
        let mut tags = BTreeSet::new();
        for server in &self.servers {
            let logged = server.cli(&["SLOWLOG", "GET", "-1"]).await;
            for (.., command, _, _) in redis::from_redis_value::<Vec<Logged>>(logged).unwrap() {
                if let [name, channel, ..] = &*command
                    && name == b"SPUBLISH"
                    && let Some((tag, _)) = String::from_utf8_lossy(channel).split_once(':')
                {
                    tags.insert(tag.to_owned());
                }
            }
        }
        tags
    }

    /// Has the replica of a master take over, planned.
    pub(crate) async fn fail_over(&self, slot: u16) {
        let before = self.master_of(slot).await;
        let replica = (before + MASTERS) % (2 * MASTERS);
        let asked = Cell::new(None::<Instant>);
        until("another master has it", async || {
            let done = self.holder_of(slot).await == Some(replica);
            // It is given up where the replica does not catch up in time: whoever wants it asks again.
            if !done && asked.get().is_none_or(|asked| asked.elapsed() > AGAIN) {
                asked.set(Some(Instant::now()));
                self.servers[replica].cli(&["CLUSTER", "FAILOVER"]).await;
            }
            done
        })
        .await;
    }

    /// Waits until another master has the slot than the one that was killed.
    pub(crate) async fn elected(&self, slot: u16, killed: usize) {
        until("a replica was elected", async || {
            let holder = self.holder_of(slot).await;
            holder.is_some_and(|holder| holder != killed)
        })
        .await;
    }

    /// Moves a slot, with the keys in it, to the next master, as `redis-cli --cluster reshard` does.
    pub(crate) async fn migrate(&self, slot: u16) {
        let from = self.master_of(slot).await;
        let to = (from % MASTERS + 1) % MASTERS;
        let to = self.master_of(to as u16 * (SLOTS / MASTERS as u16)).await;
        let (number, source, target) = (slot.to_string(), &self.ids[from], &self.ids[to]);
        let importing = ["CLUSTER", "SETSLOT", &number, "IMPORTING", source];
        self.servers[to].cli(&importing).await;
        let migrating = ["CLUSTER", "SETSLOT", &number, "MIGRATING", target];
        self.servers[from].cli(&migrating).await;
        loop {
            let keys = self.servers[from]
                .cli(&["CLUSTER", "GETKEYSINSLOT", &number, "10"])
                .await;
            let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
            if keys.is_empty() {
                break;
            }
            let port = self.ports[to].to_string();
            for key in &keys {
                let migrate = ["MIGRATE", "127.0.0.1", &port, key, "0", "5000"];
                self.servers[from].cli(&migrate).await;
            }
        }
        let node = ["CLUSTER", "SETSLOT", &number, "NODE", target];
        self.servers[to].cli(&node).await;
        self.servers[from].cli(&node).await;
        until("all know who has the slot", async || {
            let mut agree = true;
            let running = self.servers.iter().zip(&self.ids);
            for (server, id) in running.filter(|(server, _)| server.runs()) {
                let nodes = text(&server.cli(&["CLUSTER", "NODES"]).await);
                if !has(&nodes, target, slot) {
                    agree = false;
                    // Two moves in short order may leave nodes that name each other, for good: whoever moves slots
                    // tells the masters again.
                    if has_slots(&nodes, id) {
                        server.cli(&node).await;
                    }
                }
            }
            agree
        })
        .await;
    }
}

/// Whether a node is a master with slots, by an answer of `CLUSTER NODES`.
fn has_slots(nodes: &str, id: &str) -> bool {
    ranges(nodes, id).next().is_some()
}

/// Whether a node has a slot.
fn has(nodes: &str, id: &str, slot: u16) -> bool {
    ranges(nodes, id).any(|(first, last)| (first..=last).contains(&slot))
}

fn ranges<'a>(nodes: &'a str, id: &'a str) -> impl Iterator<Item = (u16, u16)> + 'a {
    let node = nodes.lines().find(move |line| line.starts_with(id));
    let slots = node.unwrap_or_default().split(' ').skip(8);
    slots.filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?))
    })
}

#[async_trait]
impl Shared for Sharded {
    async fn behind_proxies(&self) -> (Vec<Proxy>, RedisCluster) {
        let (proxies, urls) = self.proxies().await;
        let cluster = RedisCluster::cluster(urls);
        (proxies, cluster.login("router", "secret"))
    }

    async fn lose_directory(&self, namespace: &str) {
        let slot = self.slot_of(&format!("{{{namespace}}}")).await;
        let master = self.master_of(slot).await;
        self.servers[master].cli(&["FLUSHALL"]).await;
    }
}
