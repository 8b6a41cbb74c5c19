//! [`Servers`]: which server to talk to, and the [`Session`] that is made with it.

use std::time::Duration;

use gobroke_core::cluster::ClusterError;
use redis::{
    AsyncConnectionConfig, Client, RedisError, RedisResult,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::time::timeout;

use crate::{
    config::Config,
    error::meaning,
    sentinel::{self, Sentinels},
};

/// The oldest server that works.
const OLDEST: u32 = 7;

/// Where the server is.
#[derive(Clone, Debug)]
pub(crate) enum Servers {
    /// This one.
    Single(Client),
    /// The one that these say is the master.
    Sentinel(Sentinels),
}

/// The connections that an instance has to a server, each for one purpose, so that none waits for another.
pub(crate) struct Session {
    /// Directory and heartbeats.
    pub(crate) commands: MultiplexedConnection,
    /// What is published.
    pub(crate) publishing: MultiplexedConnection,
    /// What is heard.
    pub(crate) subscription: PubSub,
}

impl Servers {
    async fn master(&self, config: &AsyncConnectionConfig) -> Result<Client, ClusterError> {
        match self {
            Self::Single(client) => Ok(client.clone()),
            Self::Sentinel(sentinels) => sentinels.master(config).await,
        }
    }

    /// Makes all connections. Those that are made already are closed where one fails.
    pub(crate) async fn connect(&self, config: &Config) -> Result<Session, ClusterError> {
        let patience = config.connect_timeout;
        let connecting = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(config.response_timeout));
        let client = self.master(&connecting).await?;
        let made = async {
            let commands = client
                .get_multiplexed_async_connection_with_config(&connecting)
                .await?;
            let publishing = client
                .get_multiplexed_async_connection_with_config(&connecting)
                .await?;
            let subscription = within(patience, client.get_async_pubsub()).await?;
            Ok::<_, RedisError>(Session {
                commands,
                publishing,
                subscription,
            })
        };
        let mut session = made
            .await
            .map_err(|error| meaning("cannot connect", &error))?;
        if let Self::Sentinel(_) = self {
            sentinel::confirm(&mut session.commands).await?;
        }
        Ok(session)
    }
}

async fn within<T>(
    patience: Duration,
    made: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    timeout(patience, made)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
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
    let value = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value.trim())
    };
    let version = value("redis_version");
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < OLDEST) {
        return Err(ClusterError::Refused(format!(
            "this is Redis {version}, and {OLDEST}.0 is the oldest that works"
        )));
    }
    let policy = value("maxmemory_policy");
    if policy.starts_with("allkeys-") {
        return Err(ClusterError::Refused(format!(
            "Redis has the eviction policy {policy}, by which it could take our keys: set maxmemory-policy to \
             noeviction, or to one of volatile-*"
        )));
    }
    Ok(())
}
