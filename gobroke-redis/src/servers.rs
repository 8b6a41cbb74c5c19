//! [`Servers`]: which servers to talk to, which of them does what, and the connections to them.

use std::time::Duration;

use gobroke_core::cluster::ClusterError;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult, aio::MultiplexedConnection,
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

    /// A connection to the node that has the directory.
    pub(crate) async fn directory(
        &self,
        node: &Client,
        config: &Config,
    ) -> Result<MultiplexedConnection, ClusterError> {
        let mut connection = connect(node, config).await?;
        if let Self::Sentinel(_) = self {
            sentinel::confirm(&mut connection).await?;
        }
        Ok(connection)
    }

    /// A connection that is to listen.
    pub(crate) async fn hearing(
        &self,
        node: &Client,
        config: &Config,
    ) -> Result<Hearing, ClusterError> {
        let hearing = async {
            if !self.are_sharded() {
                let connecting = within(config.connect_timeout, node.get_async_pubsub());
                return Ok(Hearing::Plain(connecting.await?));
            }
            let (sender, pushed) = unbounded_channel();
            let connecting = connecting(config).set_push_sender(sender);
            let node = over_resp3(node)?;
            let connection = node.get_multiplexed_async_connection_with_config(&connecting);
            Ok(Hearing::Sharded {
                connection: connection.await?,
                pushed,
            })
        };
        hearing.await.map_err(|error| cannot(&error))
    }
}

/// A connection for commands.
pub(crate) async fn connect(
    node: &Client,
    config: &Config,
) -> Result<MultiplexedConnection, ClusterError> {
    let connecting = connecting(config);
    let connection = node.get_multiplexed_async_connection_with_config(&connecting);
    connection.await.map_err(|error| cannot(&error))
}

fn cannot(error: &RedisError) -> ClusterError {
    meaning("cannot connect", error)
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
                "the version and the eviction policy of the server were not checked: the user may not call INFO"
            );
            return Ok(());
        }
        Err(error) => return Err(meaning("INFO", &error)),
    };
    objection(&info).map_or(Ok(()), |why| Err(ClusterError::Refused(why)))
}

/// Why a server that says this of itself is refused.
fn objection(info: &str) -> Option<String> {
    let (version, valkey) = (value(info, "redis_version"), value(info, "valkey_version"));
    let server = match valkey {
        "" => format!("Redis {version}"),
        // Beside its own version it says with which Redis it is compatible.
        valkey => format!("Valkey {valkey}"),
    };
    let major = version.split('.').next().unwrap_or_default();
    if major.parse().is_ok_and(|major: u32| major < OLDEST) {
        return Some(format!(
            "this is {server}, and Redis {OLDEST}.0 is the oldest that works"
        ));
    }
    let policy = value(info, "maxmemory_policy");
    policy.starts_with("allkeys-").then(|| {
        format!(
            "{server} has the eviction policy {policy}, by which it could take our keys: set maxmemory-policy to \
             noeviction, or to one of volatile-*"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_or_could_take_our_keys_is_refused_by_its_name() {
        let says = |version: &str, policy: &str| {
            objection(&format!(
                "# Server\r\n{version}\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n"
            ))
        };
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1";
        assert_eq!(says("redis_version:7.0.0", "noeviction"), None);
        assert_eq!(says("redis_version:8.2.1", "volatile-lru"), None);
        assert_eq!(says(valkey, "volatile-ttl"), None);
        let old = says("redis_version:6.2.14", "noeviction").unwrap();
        assert_eq!(
            old,
            "this is Redis 6.2.14, and Redis 7.0 is the oldest that works"
        );
        let taking = |version| says(version, "allkeys-lru").unwrap();
        assert!(taking("redis_version:7.0.15").starts_with("Redis 7.0.15 has the eviction policy"));
        assert!(taking(valkey).starts_with("Valkey 8.0.1 has the eviction policy allkeys-lru"));
    }
}
