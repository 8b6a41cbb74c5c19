//! [`Servers`]: which servers to talk to, and the [`Session`] that is made with them.

use std::{fmt, time::Duration};

use gobroke_core::cluster::ClusterError;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisResult, aio::MultiplexedConnection,
};
use tokio::{sync::mpsc::unbounded_channel, time::timeout};

use crate::{
    carrier::Hearing,
    config::Config,
    error::meaning,
    keys::Place,
    nodes::Nodes,
    sentinel::{self, Sentinels},
};

/// The oldest server that works.
const OLDEST: u32 = 7;

/// Where the servers are.
#[derive(Clone, Debug)]
pub(crate) enum Servers {
    /// This one.
    Single(Client),
    /// The one that these say is the master.
    Sentinel(Sentinels),
    /// Those that hold the slots of a Redis Cluster.
    Cluster(Nodes),
}

/// Which servers do what, as far as is known now.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Since which failover or move it is so.
    pub(crate) epoch: u64,
    pub(crate) nodes: Vec<Client>,
    /// Which of the nodes has the directory.
    pub(crate) directory: usize,
    /// Which of them each trunk passes, in a Redis Cluster; elsewhere nothing.
    pub(crate) trunks: Vec<usize>,
}

impl Layout {
    fn of_one(node: Client, epoch: u64) -> Self {
        Self {
            epoch,
            nodes: vec![node],
            directory: 0,
            trunks: Vec::new(),
        }
    }

    /// Which of the nodes it is on.
    pub(crate) fn node(&self, place: Place) -> usize {
        match place {
            Place::Directory => self.directory,
            Place::Trunk(trunk) => self.trunks.get(trunk).copied().unwrap_or(self.directory),
        }
    }

    /// Whether something is elsewhere by `newer`.
    pub(crate) fn is_overtaken_by(&self, newer: &Self) -> bool {
        let address = |layout: &Self, place| {
            let node = layout.nodes.get(layout.node(place));
            node.map(|node| node.get_connection_info().addr().to_string())
        };
        let trunks = (0..self.trunks.len()).map(Place::Trunk);
        newer.epoch >= self.epoch
            && trunks
                .chain([Place::Directory])
                .any(|place| address(self, place) != address(newer, place))
    }
}

/// The connections that an instance has, each for one purpose, so that none waits for another.
pub(crate) struct Session {
    /// Directory and heartbeats.
    pub(crate) commands: MultiplexedConnection,
    /// Leases that replicas have to confirm: whatever comes behind waits for that.
    pub(crate) claiming: Option<MultiplexedConnection>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) layout: Layout,
}

/// The connections to one node.
pub(crate) struct Node {
    /// What is published.
    pub(crate) publishing: MultiplexedConnection,
    /// What is heard.
    pub(crate) hearing: Hearing,
}

impl Servers {
    /// Whether they are the nodes of a Redis Cluster.
    pub(crate) fn are_sharded(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// The same, spoken to as somebody else.
    pub(crate) fn login(
        self,
        login: impl Fn(RedisConnectionInfo) -> RedisConnectionInfo,
    ) -> RedisResult<Self> {
        if let Self::Sentinel(mut sentinels) = self {
            sentinels.login = login(sentinels.login);
            return Ok(Self::Sentinel(sentinels));
        }
        self.each(|info| {
            let settings = login(info.redis_settings().clone());
            Client::open(info.set_redis_settings(settings))
        })
    }

    /// The same, each that the program named spoken to by another client.
    pub(crate) fn each(
        self,
        client: impl Fn(ConnectionInfo) -> RedisResult<Client>,
    ) -> RedisResult<Self> {
        let again = |known: Client| client(known.get_connection_info().clone());
        let all = |known: Vec<Client>| {
            let again = known.into_iter().map(again);
            again.collect::<RedisResult<Vec<_>>>()
        };
        Ok(match self {
            Self::Single(client) => Self::Single(again(client)?),
            Self::Sentinel(sentinels) => Self::Sentinel(Sentinels {
                clients: all(sentinels.clients)?,
                ..sentinels
            }),
            Self::Cluster(nodes) => Self::Cluster(Nodes::new(all(nodes.seeds())?)),
        })
    }

    /// Finds out which servers do what.
    pub(crate) async fn find(&self, config: &Config) -> Result<Layout, ClusterError> {
        let connecting = connecting(config);
        match self {
            Self::Single(client) => Ok(Layout::of_one(client.clone(), 0)),
            Self::Sentinel(sentinels) => {
                let (master, epoch) = sentinels.master(&connecting).await?;
                Ok(Layout::of_one(master, epoch))
            }
            Self::Cluster(nodes) => nodes.layout(&config.namespace, &connecting).await,
        }
    }

    /// Makes all connections. Those that are made already are closed where one fails.
    pub(crate) async fn connect(&self, config: &Config) -> Result<Session, ClusterError> {
        let layout = self.find(config).await?;
        let session = self.session(layout, config).await;
        let mut session = session.map_err(|error| meaning("cannot connect", &error))?;
        if let Self::Sentinel(_) = self {
            sentinel::confirm(&mut session.commands).await?;
        }
        Ok(session)
    }

    async fn session(&self, layout: Layout, config: &Config) -> RedisResult<Session> {
        let connecting = connecting(config);
        let patience = config.connect_timeout;
        let directory = &layout.nodes[layout.directory];
        let commands = directory
            .get_multiplexed_async_connection_with_config(&connecting)
            .await?;
        let claiming = match config.replicas {
            0 => None,
            _ => Some(
                directory
                    .get_multiplexed_async_connection_with_config(&connecting)
                    .await?,
            ),
        };
        let mut nodes = Vec::with_capacity(layout.nodes.len());
        for client in &layout.nodes {
            let publishing = client
                .get_multiplexed_async_connection_with_config(&connecting)
                .await?;
            let hearing = if self.are_sharded() {
                let (sender, pushed) = unbounded_channel();
                let connection = over_resp3(client)?
                    .get_multiplexed_async_connection_with_config(
                        &connecting.clone().set_push_sender(sender),
                    )
                    .await?;
                Hearing::Sharded { connection, pushed }
            } else {
                Hearing::Plain(within(patience, client.get_async_pubsub()).await?)
            };
            nodes.push(Node {
                publishing,
                hearing,
            });
        }
        Ok(Session {
            commands,
            claiming,
            nodes,
            layout,
        })
    }
}

fn connecting(config: &Config) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(config.response_timeout))
}

/// A server that another one named: spoken to as that one is (TLS or not), and as this user.
pub(crate) fn named_by(
    client: &Client,
    host: String,
    port: u16,
    login: RedisConnectionInfo,
) -> RedisResult<Client> {
    let known = client.get_connection_info().clone();
    let addr = match known.addr() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    let info = IntoConnectionInfo::into_connection_info(addr)?;
    Client::open(info.set_redis_settings(login))
}

/// The same server by the protocol that tells what was published to shards.
fn over_resp3(client: &Client) -> RedisResult<Client> {
    let info = client.get_connection_info().clone();
    let settings = info.redis_settings().clone();
    Client::open(info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3)))
}

async fn within<T>(
    patience: Duration,
    made: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    timeout(patience, made)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

/// What an answer of `INFO` says of something, or nothing.
pub(crate) fn value<'a>(info: &'a str, name: &str) -> &'a str {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(key, _)| *key == name)
        .map_or("", |(_, value)| value.trim())
}

/// Refuses a server that is too old, or that could take our keys.
pub(crate) async fn check(connection: &mut MultiplexedConnection) -> Result<(), ClusterError> {
    let info: String = match redis::cmd("INFO").query_async(connection).await {
        Ok(info) => info,
        Err(error) if error.code() == Some("NOPERM") => {
            tracing::warn!(
                "the version and the eviction policy of Redis were not checked: the user may not call INFO"
            );
            return Ok(());
        }
        Err(error) => return Err(meaning("INFO", &error)),
    };
    let version = value(&info, "redis_version");
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < OLDEST) {
        return Err(ClusterError::Refused(format!(
            "this is Redis {version}, and {OLDEST}.0 is the oldest that works"
        )));
    }
    let policy = value(&info, "maxmemory_policy");
    if policy.starts_with("allkeys-") {
        return Err(ClusterError::Refused(format!(
            "Redis has the eviction policy {policy}, by which it could take our keys: set maxmemory-policy to \
             noeviction, or to one of volatile-*"
        )));
    }
    Ok(())
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(epoch: u64, ports: &[u16], trunks: &[usize]) -> Layout {
        let open = |port: &u16| Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        Layout {
            epoch,
            nodes: ports.iter().map(open).collect(),
            directory: 0,
            trunks: trunks.to_vec(),
        }
    }

    #[test]
    fn a_layout_is_overtaken_by_one_that_is_not_older_and_has_something_elsewhere() {
        let now = layout(2, &[1, 2], &[0, 1]);
        assert!(!now.is_overtaken_by(&layout(3, &[1, 2], &[0, 1])));
        assert!(!now.is_overtaken_by(&layout(1, &[1, 3], &[0, 1])));
        assert!(
            now.is_overtaken_by(&layout(2, &[1, 3], &[0, 1])),
            "another node"
        );
        assert!(
            now.is_overtaken_by(&layout(3, &[1, 2], &[0, 0])),
            "another trunk"
        );
        assert!(
            now.is_overtaken_by(&layout(3, &[3, 2], &[0, 1])),
            "the directory"
        );
    }
}
