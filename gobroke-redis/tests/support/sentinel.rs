//! A master with two replicas that three sentinels watch, and proxies before all of them for each instance.

use std::{
    cell::Cell,
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use gobroke_core::async_trait;
use gobroke_redis::RedisCluster;
use parking_lot::Mutex;
use redis::{Client, RedisResult, Value};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    Far, Proxy, Server,
    apart::Shared,
    server::Program,
    until,
    way::{Way, port},
};

/// What a user needs, for the namespace `gobroke`, of one server too: also in `src/docs/operating.md`.
pub(crate) const ACL: &str = "~{gobroke}:* &{gobroke}:* -@all +ping +info +subscribe +publish +evalsha \
    +script|load +time +exists +hget +hset +hdel +hmget +hgetall +hincrby +hlen +hvals +hscan +zadd +zrem +zrange \
    +zrangebyscore +sadd +srem +spop +smembers";
/// And beside that, as behind Sentinels the master is asked whether it is one.
pub(crate) const MORE: &str = "+role";
/// What a user of the sentinels themselves needs.
pub(crate) const ASKING: &str = "-@all +sentinel|master +sentinel|get-master-addr-by-name";
/// How long after it asked for a failover that did not happen somebody asks again.
const AGAIN: Duration = Duration::from_secs(8);

pub(crate) struct Watched {
    pub(crate) servers: Vec<Server>,
    pub(crate) way: Way,
    ports: [u16; 3],
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    process: Child,
    port: u16,
    client: Client,
    _directory: TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Sentinel {
    fn start(way: &Way, master: u16) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), port());
        let file = directory.path().join("sentinel.conf");
        let options = way.options(port).into_iter();
        let options: String = options
            .map(|(name, value)| format!("{name} {value}\n"))
            .collect();
        let text = format!(
            "{options}dir {}\nsentinel monitor watched 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds watched 1000\nsentinel failover-timeout watched 5000\n",
            directory.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let process = Program::Redis
            .command()
            .arg(file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process,
            port,
            client: way.client(port),
            _directory: directory,
        }
    }

    async fn master(&self) -> Option<Value> {
        let asked = self.ask(&["GET-MASTER-ADDR-BY-NAME", "watched"]);
        asked.await.ok()
    }

    async fn ask(&self, command: &[&str]) -> RedisResult<Value> {
        self.command("SENTINEL", command).await
    }

    async fn command(&self, name: &str, arguments: &[&str]) -> RedisResult<Value> {
        let mut connection = self.client.get_multiplexed_async_connection().await?;
        redis::cmd(name)
            .arg(arguments)
            .query_async(&mut connection)
            .await
    }
}

impl Watched {
    pub(crate) async fn start() -> Self {
        Self::start_by(Way::Open).await
    }

    pub(crate) async fn start_by(way: Way) -> Self {
        let ports = [port(), port(), port()];
        let mut servers = Vec::new();
        for own in ports {
            let mut arguments = way.arguments(own);
            arguments.extend(["--repl-diskless-sync-delay", "0"].map(str::to_owned));
            let server = Server::start_with(Program::Redis, arguments).await;
            if own != ports[0] {
                // Not by its arguments: it may be the master when it is started again.
                let master = ports[0].to_string();
                server.cli(&["REPLICAOF", "127.0.0.1", &master]).await;
            }
            // The same for namespaces of tests.
            let acl = ACL.replace("{gobroke}", "{apart-*}");
            let mut user = vec!["ACL", "SETUSER", "router", "on", ">secret"];
            user.extend(acl.split_whitespace());
            user.push(MORE);
            server.cli(&user).await;
            server.cli(&["CONFIG", "REWRITE"]).await;
            servers.push(server);
        }
        let sentinels: Vec<_> = ports
            .iter()
            .map(|_| Sentinel::start(&way, ports[0]))
            .collect();
        for sentinel in &sentinels {
            let mut user = vec!["SETUSER", "asking", "on", ">secret"];
            user.extend(ASKING.split_whitespace());
            until("the sentinel has a user", async || {
                sentinel.command("ACL", &user).await.is_ok()
            })
            .await;
            until(
                "the sentinels know each other and the replicas",
                async || {
                    let knows = async |what: &str, count: usize| {
                        let known = sentinel.ask(&[what, "watched"]).await;
                        matches!(known, Ok(Value::Array(known)) if known.len() == count)
                    };
                    let agreed = sentinel.ask(&["CKQUORUM", "watched"]).await.is_ok();
                    agreed && knows("SENTINELS", 2).await && knows("REPLICAS", 2).await
                },
            )
            .await;
        }
        Self {
            servers,
            way,
            ports,
            sentinels,
        }
    }

    pub(crate) fn urls(&self) -> impl Iterator<Item = String> {
        let ports = self.sentinels.iter().map(|sentinel| sentinel.port);
        ports.map(|port| self.way.url(port))
    }

    pub(crate) fn cluster(&self) -> RedisCluster {
        let cluster = RedisCluster::sentinel(self.urls(), "watched");
        self.way.equip(cluster).lease(Duration::from_secs(10))
    }

    /// Proxies before all of them, for one instance, and where it finds the sentinels then.
    pub(crate) async fn proxies(&self) -> (Vec<Proxy>, Vec<String>) {
        let (mut proxies, mut ports, mut urls) = (Vec::new(), Vec::new(), Vec::new());
        for (server, port) in self.servers.iter().zip(self.ports) {
            let proxy = Proxy::start(Far::Socket(server.socket())).await;
            ports.push((port, proxy.addr().port()));
            proxies.push(proxy);
        }
        let ports = Arc::new(Mutex::new(ports));
        for sentinel in &self.sentinels {
            let proxy = Proxy::start(Far::Port(sentinel.port, ports.clone())).await;
            urls.push(format!("redis://{}", proxy.addr()));
            proxies.push(proxy);
        }
        (proxies, urls)
    }

    /// What servers and sentinels have denied to anybody.
    pub(crate) async fn denied(&self) -> Vec<Value> {
        let mut denied = Vec::new();
        for server in &self.servers {
            denied.push(server.cli(&["ACL", "LOG"]).await);
        }
        for sentinel in &self.sentinels {
            denied.push(sentinel.command("ACL", &["LOG"]).await.unwrap());
        }
        let nothing = Value::Array(Vec::new());
        denied.retain(|denied| *denied != nothing);
        denied
    }

    /// Waits until all sentinels name the same master, and it takes itself for it.
    pub(crate) async fn agree(&self) {
        until("the sentinels agree on a master that is one", async || {
            let master = self.master().await;
            for sentinel in &self.sentinels[1..] {
                if sentinel.master().await != master {
                    return false;
                }
            }
            let acting = &self.servers[self.acting().await];
            let role = acting.cli(&["INFO", "replication"]).await;
            let role: String = redis::from_redis_value(role).unwrap_or_default();
            role.contains("role:master")
        })
        .await;
    }

    /// Where the first sentinel says that the master is.
    pub(crate) async fn master(&self) -> Option<Value> {
        self.sentinels[0].master().await
    }

    /// Which server the sentinels take for the master. A former one says for seconds that it is it, too.
    pub(crate) async fn acting(&self) -> usize {
        // A sentinel that is changing masters may not answer in time, and is asked again.
        for _ in 0..50 {
            let master = self.master().await;
            let named = |port: &u16| {
                let port = port.to_string().into_bytes();
                matches!(&master, Some(Value::Array(at)) if at.last() == Some(&Value::BulkString(port)))
            };
            if let Some(acting) = self.ports.iter().position(named) {
                return acting;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("the sentinels name none of the servers");
    }

    /// Has the sentinels promote a replica, and waits until they say that they did.
    pub(crate) async fn fail_over(&self) {
        let before = self.acting().await;
        let asked = Cell::new(None::<Instant>);
        until("there is another master", async || {
            let done = self.acting().await != before;
            // It is refused, or given up, while no replica can take over: whoever wants it asks again.
            if !done && asked.get().is_none_or(|asked| asked.elapsed() > AGAIN) {
                asked.set(Some(Instant::now()));
                let _ = self.sentinels[0].ask(&["FAILOVER", "watched"]).await;
            }
            done
        })
        .await;
    }

    /// Waits until the sentinels take another server for the master than this one.
    pub(crate) async fn another_than(&self, before: usize) {
        until("there is another master", async || {
            self.acting().await != before
        })
        .await;
    }
}

#[async_trait]
impl Shared for Watched {
    async fn behind_proxies(&self) -> (Vec<Proxy>, RedisCluster) {
        let (proxies, urls) = self.proxies().await;
        let asking = |url: String| url.replace("redis://", "redis://asking:secret@");
        let cluster = RedisCluster::sentinel(urls.into_iter().map(asking), "watched");
        (proxies, cluster.login("router", "secret"))
    }

    async fn lose_directory(&self, _: &str) {
        let acting = self.acting().await;
        self.servers[acting].cli(&["FLUSHALL"]).await;
    }
}
