//! [`Apart`]: a cluster of instances beside others over the same servers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gobroke_core::{
    async_trait,
    cluster::{Cluster, conformance::Setup},
};
use gobroke_redis::RedisCluster;
use parking_lot::Mutex;

use super::Proxy;

/// Servers that take long to start, so that many clusters share them.
#[async_trait]
pub(crate) trait Shared: Send + Sync + 'static {
    /// Proxies before all of them, for one instance, and what it joins by through them, as who may do little.
    async fn behind_proxies(&self) -> (Vec<Proxy>, RedisCluster);

    /// Has the server with the directory of a namespace lose its data.
    async fn lose_directory(&self, namespace: &str);
}

/// A cluster of instances in a namespace of its own, each behind proxies of its own.
pub(crate) struct Apart<S> {
    servers: Arc<S>,
    namespace: String,
    proxies: Mutex<HashMap<String, Vec<Proxy>>>,
}

impl<S: Shared> Apart<S> {
    pub(crate) fn new(servers: &Arc<S>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self {
            servers: servers.clone(),
            namespace: format!("apart-{}", COUNT.fetch_add(1, Relaxed)),
            proxies: Mutex::default(),
        }
    }

    /// Cuts an instance off from everything, or lets it through again.
    fn cut(&self, instance: &str, cut: bool) {
        let proxies = self.proxies.lock();
        proxies[instance].iter().for_each(|proxy| proxy.cut(cut));
    }
}

#[async_trait]
impl<S: Shared> Setup for Apart<S> {
    async fn cluster(&self, instance: &str) -> Arc<dyn Cluster> {
        let (proxies, cluster) = self.servers.behind_proxies().await;
        self.proxies.lock().insert(instance.to_owned(), proxies);
        Arc::new(cluster.namespace(&self.namespace).lease(self.lease()))
    }

    async fn kill(&self, instance: &str) {
        self.cut(instance, true);
    }

    fn lease(&self) -> Duration {
        Duration::from_secs(8)
    }

    async fn away(&self, instance: &str, away: bool) -> bool {
        self.cut(instance, away);
        true
    }

    /// Not over TLS, where nobody between can tell what is published.
    async fn disturb(&self, on: bool) -> bool {
        let proxies = self.proxies.lock();
        let proxies = proxies.values().flatten();
        proxies.filter(|proxy| proxy.disturb(on)).count() > 0
    }

    async fn lose_directory(&self) -> bool {
        self.servers.lose_directory(&self.namespace).await;
        true
    }
}
