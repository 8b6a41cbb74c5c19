//! [`RedisCluster`]: what a program gives to its router.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gobroke_core::{
    Name, async_trait,
    cluster::{Cluster, ClusterError, Inbox, Incarnation, InstanceId, Membership, Notice},
};
use redis::{Client, IntoConnectionInfo, RedisConnectionInfo, RedisResult};
use tokio_util::sync::CancellationToken;

use crate::{
    carrier::Seal,
    config::Config,
    directory::Place,
    error::meaning,
    instance::Instance,
    keys::Keys,
    lease::Ended,
    nodes::Nodes,
    script,
    sentinel::Sentinels,
    servers::{self, Servers},
    stats::{Counters, RedisStats},
    supervisor::{self, Joined},
};

/// Joins instances over Redis. Cheap to clone; see the [crate's page](crate) for a program.
///
/// All instances that share a namespace of one Redis are one cluster. They must agree on the lease.
#[derive(Clone, Debug)]
pub struct RedisCluster {
    servers: Result<Servers, String>,
    config: Arc<Config>,
    counters: Arc<Counters>,
}

impl RedisCluster {
    /// Over a single server: `redis://[user:password@]host[:port][/database]`, `rediss://..` for TLS (feature `tls`;
    /// the server's certificate has to be one that the system trusts, or see `certificates`), or `unix:///path/to/socket` (with
    /// `?user=..&pass=..&db=..`).
    ///
    /// What is wrong with the address, joining says.
    pub fn new(url: impl IntoConnectionInfo) -> Self {
        choose_cryptography();
        let client = open(url).map_err(|error| format!("the address of Redis: {error}"));
        Self::over(client.map(Servers::Single))
    }

    /// Over a single server that the program has a client for. Connections of its own are made with it. Unless its settings
    /// say otherwise, it tells the server which library it is (`CLIENT SETINFO`), for which the user needs the right.
    pub fn from_client(client: Client) -> Self {
        choose_cryptography();
        Self::over(Ok(Servers::Single(client)))
    }

    /// Over the master of this name that these sentinels watch, whichever server that is: `redis://host:26379`, or
    /// `rediss://..`, by which the master is then spoken to as well.
    ///
    /// ```
    /// use gobroke_redis::RedisCluster;
    ///
    /// let sentinels = ["redis://10.0.0.1:26379", "redis://10.0.0.2:26379", "redis://10.0.0.3:26379"];
    /// let cluster = RedisCluster::sentinel(sentinels, "mymaster").login("router", "secret");
    /// ```
    pub fn sentinel<U: IntoConnectionInfo>(
        sentinels: impl IntoIterator<Item = U>,
        master: impl Into<String>,
    ) -> Self {
        choose_cryptography();
        let clients = sentinels.into_iter().map(open);
        let clients = clients.collect::<Result<Vec<_>, _>>();
        let sentinels = clients.map(|clients| Sentinels {
            clients,
            master: master.into(),
            login: RedisConnectionInfo::default().set_skip_set_lib_name(),
        });
        let wrong = |error| format!("the address of a sentinel: {error}");
        Self::over(sentinels.map(Servers::Sentinel).map_err(wrong))
    }

    /// Over a Redis Cluster, of which these nodes are some: `redis://[user:password@]host:port`, or `rediss://..`; the
    /// others are spoken to alike. Messages are spread over all nodes (sharded channels); the directory is on the one
    /// that has the namespace's slot.
    ///
    /// ```
    /// use gobroke_redis::RedisCluster;
    ///
    /// let nodes = ["redis://10.0.0.1:6379", "redis://10.0.0.2:6379", "redis://10.0.0.3:6379"];
    /// let cluster = RedisCluster::cluster(nodes);
    /// ```
    pub fn cluster<U: IntoConnectionInfo>(nodes: impl IntoIterator<Item = U>) -> Self {
        choose_cryptography();
        let seeds = nodes.into_iter().map(open);
        let seeds = seeds.collect::<Result<Vec<_>, _>>();
        let wrong = |error| format!("the address of a node: {error}");
        Self::over(
            seeds
                .map(|seeds| Servers::Cluster(Nodes::new(seeds)))
                .map_err(wrong),
        )
    }

    /// As whom to talk to Redis, instead of whom the address names: to the server, to the master that sentinels name
    /// (as whom to talk to the sentinels, their addresses say), or to all nodes of a Redis Cluster.
    #[must_use]
    pub fn login(self, user: &str, password: &str) -> Self {
        let login = |known: RedisConnectionInfo| known.set_username(user).set_password(password);
        self.spoken_to(|servers| servers.login(login))
    }

    /// Certificates of your own for `rediss://..`: the authority that the servers' certificates come from, where the
    /// system does not trust it, and the certificate that a server may ask a client for. They hold for whatever the
    /// addresses lead to: the server, sentinels and the masters that they name, all nodes of a Redis Cluster. A server is
    /// named by others by its IP address, unless they are told to announce host names, so that is what its
    /// certificate has to be for.
    ///
    /// ```no_run
    /// use gobroke_redis::{RedisCluster, redis::{ClientTlsConfig, TlsCertificates}};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let certificates = TlsCertificates {
    ///     root_cert: Some(std::fs::read("authority.pem")?),
    ///     client_tls: Some(ClientTlsConfig {
    ///         client_cert: std::fs::read("client.pem")?,
    ///         client_key: std::fs::read("client.key")?,
    ///     }),
    /// };
    /// let sentinels = ["rediss://10.0.0.1:26379", "rediss://10.0.0.2:26379", "rediss://10.0.0.3:26379"];
    /// let cluster = RedisCluster::sentinel(sentinels, "mymaster").certificates(&certificates);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn certificates(self, certificates: &redis::TlsCertificates) -> Self {
        self.spoken_to(|servers| {
            servers.each(|info| Client::build_with_tls(info, certificates.clone()))
        })
    }

    fn spoken_to(mut self, again: impl FnOnce(Servers) -> RedisResult<Servers>) -> Self {
        self.servers = self.servers.and_then(|servers| {
            again(servers).map_err(|error| format!("the address of Redis: {error}"))
        });
        self
    }

    fn over(servers: Result<Servers, String>) -> Self {
        Self {
            servers,
            config: Arc::default(),
            counters: Arc::default(),
        }
    }

    fn set(mut self, set: impl FnOnce(&mut Config)) -> Self {
        set(Arc::make_mut(&mut self.config));
        self
    }

    /// The name that sets this cluster apart from others in the same Redis: all its keys and channels begin with it,
    /// in braces. Without spaces, braces and pattern characters. Default: `gobroke`.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.set(|config| config.namespace = namespace.into())
    }

    /// How long an instance that does not say that it lives stays in the cluster. It says so each fifth of that.
    /// What others send to it meanwhile is kept for it, for 30 s at most, however long the lease is. At least 1 s,
    /// and 365 days at the most. Default: 15 s.
    #[must_use]
    pub fn lease(self, lease: Duration) -> Self {
        self.set(|config| config.lease = lease)
    }

    /// How long an answer of Redis may take; after that the connections to that node are made anew. At least
    /// 10 ms, and an hour at the most. Default: 5 s, since a busy server may well take a second.
    #[must_use]
    pub fn response_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.response_timeout = timeout)
    }

    /// How long making one connection may take. At least 10 ms, and an hour at the most. Default: 2 s.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.connect_timeout = timeout)
    }

    /// How many bytes may wait to be published, or for the answer to it. Beyond, core's own queue fills. At
    /// least 1 byte, by which one frame goes at a time. Default: 8 MiB.
    #[must_use]
    pub fn queue(self, bytes: usize) -> Self {
        self.set(|config| config.queue = bytes)
    }

    /// Starts alone where Redis cannot be reached at the start, and joins when it can. Without this, the start fails.
    ///
    /// Until then the instance is not ready. A wrong address, or a server that refuses to be worked with, is an error
    /// all the same; where such a server comes later, the instance goes on alone, and logs why.
    #[must_use]
    pub fn optional(self) -> Self {
        self.set(|config| config.optional = true)
    }

    /// How many replicas have to have confirmed the lease of a logic module that
    /// [runs once](gobroke_core::Logic::singleton) before it counts (`WAIT`). Without it, a master that is cut off from
    /// its replicas goes on giving leases, and so does the replica that takes its place: for up to a lease two
    /// instances may run the module. With as many as make a majority together with the master, none can be lost by a
    /// failover. Where too few confirm, the holder stops when its time is over. Default: 0.
    #[must_use]
    pub fn replicas(self, replicas: usize) -> Self {
        self.set(|config| config.replicas = replicas)
    }

    /// A secret that all instances share, 16 random bytes or more: what they carry to each other is sealed with it
    /// (HMAC-SHA-256 over the channel, and the packet's number, origin and frames), and what comes without its seal is
    /// refused and counted as [`unreadable`](RedisStats::unreadable). What comes again is refused by its number, and
    /// counted as [`replayed`](RedisStats::replayed); so is what was published to all before an instance was there, of
    /// whoever is gone or not. So who can write to Redis can neither forge what instances carry to each other nor
    /// repeat it, to those who heard it and to newcomers. It costs about 80 bytes a packet, which may carry many
    /// messages. Default: none.
    ///
    /// All must have the same: to introduce one, or to change it, stop all instances. What it does not do: it hides
    /// nothing from who can read in Redis (take `rediss://` for the way there). Who can break connections of others can
    /// make messages late or lost, as an outage does. And it guards the channels between instances, not the directory:
    /// keys, and the channel on which scripts tell that the list of instances changed, are guarded by Redis' own users
    /// (ACL). A probe has no seal: that it comes through a subscription proves that the subscription works, whoever sent
    /// it.
    ///
    /// ```
    /// use gobroke_redis::RedisCluster;
    ///
    /// let secret = std::env::var("CLUSTER_SECRET").unwrap_or_else(|_| "at least sixteen bytes".into());
    /// let cluster = RedisCluster::new("redis://127.0.0.1:6379").secret(secret);
    /// ```
    #[must_use]
    pub fn secret(self, secret: impl AsRef<[u8]>) -> Self {
        self.set(|config| config.seal = Some(Seal::new(secret.as_ref())))
    }

    /// What has been counted, over all instances that joined with this value or a clone of it.
    pub fn stats(&self) -> RedisStats {
        self.counters.snapshot()
    }

    fn instance(&self, servers: &Servers, id: InstanceId, inbox: Inbox) -> Arc<Instance> {
        let (config, counters) = (self.config.clone(), self.counters.clone());
        Arc::new(Instance::new(config, servers.clone(), counters, id, inbox))
    }

    /// Joins, in an incarnation that Redis draws.
    async fn join_now(
        &self,
        servers: &Servers,
        name: &Name,
        inbox: &Inbox,
    ) -> Result<(Arc<Instance>, Joined), ClusterError> {
        let layout = servers.find(&self.config).await?;
        let directory = &layout.nodes[layout.directory];
        let mut commands = servers.directory(directory, &self.config).await?;
        servers::check(&mut commands).await?;
        let keys = Keys::new(&self.config.namespace);
        let drawn = script::DRAW
            .key(&keys.state)
            .invoke_async(&mut commands)
            .await;
        let drawn = drawn.map_err(|error| meaning("drawing an incarnation", &error))?;
        let id = InstanceId::new(name, Incarnation::new(drawn, nonce()));
        let instance = self.instance(servers, id, inbox.clone());
        match supervisor::join(&instance, layout, commands).await {
            Ok(joined) => Ok((instance, joined)),
            Err(Ended::Away(error)) => Err(error),
            Err(Ended::Expelled) => Err(ClusterError::Expelled),
            Err(Ended::Superseded { .. }) => Err(ClusterError::Refused(format!(
                "a newer instance has the name {name}"
            ))),
        }
    }
}

#[async_trait]
impl Cluster for RedisCluster {
    async fn join(&self, name: &Name, inbox: Inbox) -> Result<Box<dyn Membership>, ClusterError> {
        self.config.check().map_err(ClusterError::Refused)?;
        let servers = self
            .servers
            .as_ref()
            .map_err(|error| ClusterError::Refused(error.clone()))?;
        let (instance, joined) = match self.join_now(servers, name, &inbox).await {
            Ok((instance, joined)) => (instance, Some(joined)),
            Err(ClusterError::Unreachable(error)) if self.config.optional => {
                tracing::warn!(instance = %name, %error, "Redis cannot be reached; this instance starts alone");
                let id = InstanceId::new(name, Incarnation::new(unix_micros(), nonce()));
                inbox.notice(Notice::Away);
                (self.instance(servers, id, inbox), None)
            }
            Err(error) => return Err(error),
        };
        let stop = CancellationToken::new();
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(supervisor::run(instance.clone(), joined)),
        );
        Ok(Box::new(Place {
            instance,
            _serving: stop.drop_guard(),
        }))
    }
}

/// A client that does not say which library it is: that would take one more right, and each refusal is logged by the
/// server.
fn open(url: impl IntoConnectionInfo) -> RedisResult<Client> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    Client::open(info.set_redis_settings(settings))
}

/// The client takes the process' default, and panics where several might be meant and none is chosen.
fn choose_cryptography() {
    #[cfg(feature = "tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Whoever was quicker has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Tells apart two numbers that were drawn alike, after a loss of data.
fn nonce() -> u32 {
    RandomState::new().hash_one(()) as u32
}

fn unix_micros() -> u64 {
    // A clock before 1970 reads as 1970: the instance then is older than any other of its name.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}
