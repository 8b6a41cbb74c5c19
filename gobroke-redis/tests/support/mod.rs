//! What the tests need: real servers, started by the test and ended with it, and a way to cut an instance off.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses a part; a test's set-up may fail"
)]

pub(crate) mod apart;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod sentinel;
pub(crate) mod server;
pub(crate) mod sharded;
pub(crate) mod sieve;
pub(crate) mod way;

use std::{collections::HashMap, sync::Arc, time::Duration};

use gobroke_core::{
    async_trait,
    cluster::{Cluster, conformance::Setup},
};
use gobroke_redis::RedisCluster;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

pub(crate) use self::{
    proxy::{Far, Proxy},
    server::{Program, Server},
};

/// A server, and a proxy before it for each instance.
pub(crate) struct Redis {
    pub(crate) server: Server,
    proxies: Mutex<HashMap<String, Proxy>>,
    pub(crate) lease: Duration,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::start_with(Program::Redis).await
    }

    pub(crate) async fn start_with(program: Program) -> Self {
        Self {
            server: Server::start_with(program, Vec::new()).await,
            proxies: Mutex::default(),
            lease: Duration::from_secs(8),
        }
    }

    /// What an instance joins by, through a proxy of its own.
    pub(crate) async fn through(&self, instance: &str) -> RedisCluster {
        let proxy = Proxy::start(Far::Socket(self.server.socket())).await;
        let url = format!("redis://{}", proxy.addr());
        self.proxies.lock().insert(instance.to_owned(), proxy);
        RedisCluster::new(url).lease(self.lease)
    }

    /// Lets nothing through any more that comes through the subscriptions made by now.
    pub(crate) fn deafen(&self, instance: &str) {
        self.proxies.lock()[instance].deafen();
    }

    /// Lets no connection through that is made from now on, or lets them through again.
    pub(crate) fn close(&self, instance: &str, closed: bool) {
        self.proxies.lock()[instance].close(closed);
    }

    pub(crate) fn cut(&self, instance: &str, cut: bool) {
        self.proxies.lock()[instance].cut(cut);
    }
}

#[async_trait]
impl Setup for Redis {
    async fn cluster(&self, instance: &str) -> Arc<dyn Cluster> {
        Arc::new(self.through(instance).await)
    }

    async fn kill(&self, instance: &str) {
        self.cut(instance, true);
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    async fn away(&self, instance: &str, away: bool) -> bool {
        self.cut(instance, away);
        true
    }

    async fn disturb(&self, on: bool) -> bool {
        let proxies = self.proxies.lock();
        proxies.values().filter(|proxy| proxy.disturb(on)).count() > 0
    }

    async fn lose_directory(&self) -> bool {
        self.server.cli(&["FLUSHALL"]).await;
        true
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so().await {
        assert!(Instant::now() < end, "it does not happen: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
