//! [`Sentinels`]: who says which server is the master.

use std::{collections::HashMap, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use gobroke_core::cluster::ClusterError;
use redis::{
    AsyncConnectionConfig, Client, RedisConnectionInfo, RedisResult, aio::MultiplexedConnection,
};

use tokio::time::timeout;

use crate::{error::meaning, servers::named_by};

/// How long those are waited for that have not answered when most have.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// The sentinels of a master.
#[derive(Clone, Debug)]
pub(crate) struct Sentinels {
    pub(crate) clients: Vec<Client>,
    /// What they call the master.
    pub(crate) master: String,
    /// As whom to talk to the master.
    pub(crate) login: RedisConnectionInfo,
}

/// What a sentinel says: where the master is, and since which failover.
struct Said {
    epoch: u64,
    host: String,
    port: u16,
}

impl Sentinels {
    /// Asks all of them, since one that is cut off tells of a former master, and believes the latest; gives its failover,
    /// too. One that does not answer holds nothing up, as long as most do.
    pub(crate) async fn master(
        &self,
        config: &AsyncConnectionConfig,
    ) -> Result<(Client, u64), ClusterError> {
        let mut asked: FuturesUnordered<_> = self
            .clients
            .iter()
            .map(|sentinel| async move { (self.ask(sentinel, config).await, sentinel) })
            .collect();
        let most = self.clients.len() / 2 + 1;
        let mut answered = 0;
        let mut failed = None;
        let mut latest: Option<(Said, &Client)> = None;
        loop {
            let next = if answered < most {
                asked.next().await
            } else {
                timeout(STRAGGLERS, asked.next()).await.ok().flatten()
            };
            let Some((said, sentinel)) = next else { break };
            match said {
                Ok(said) => {
                    answered += 1;
                    let known = latest.as_ref().map(|(known, _)| known.epoch);
                    if let Some(said) = said.filter(|said| known < Some(said.epoch)) {
                        latest = Some((said, sentinel));
                    }
                }
                Err(error) => failed = Some(meaning("asking a sentinel", &error)),
            }
        }
        let Some((Said { epoch, host, port }, client)) = latest else {
            let nothing =
                || ClusterError::Unreachable(format!("no sentinel knows a master {}", self.master));
            return Err(failed.unwrap_or_else(nothing));
        };
        // The master speaks TLS where the sentinels do.
        let master = named_by(client, host, port, self.login.clone());
        let master = master.map_err(|error| meaning("the address of the master", &error))?;
        Ok((master, epoch))
    }

    async fn ask(
        &self,
        sentinel: &Client,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<Option<Said>> {
        let mut connection = sentinel
            .get_multiplexed_async_connection_with_config(config)
            .await?;
        let said: HashMap<String, String> = redis::cmd("SENTINEL")
            .arg("MASTER")
            .arg(&self.master)
            .query_async(&mut connection)
            .await?;
        let number = |name: &str| said.get(name).and_then(|value| value.parse::<u64>().ok());
        Ok(said.get("ip").and_then(|host| {
            Some(Said {
                epoch: number("config-epoch").unwrap_or_default(),
                host: host.clone(),
                port: number("port")?.try_into().ok()?,
            })
        }))
    }
}

/// Refuses a server that is not, or not yet, the master.
pub(crate) async fn confirm(connection: &mut MultiplexedConnection) -> Result<(), ClusterError> {
    let role: Vec<redis::Value> = redis::cmd("ROLE")
        .query_async(connection)
        .await
        .map_err(|error| meaning("ROLE", &error))?;
    let role = role
        .into_iter()
        .next()
        .and_then(|role| redis::from_redis_value::<String>(role).ok());
    match role.as_deref() {
        Some("master") => Ok(()),
        role => Err(ClusterError::Unreachable(format!(
            "it is no master, but {role:?}"
        ))),
    }
}
