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
        let mut questions = redis::pipe();
        questions.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        // From the promotion until all replicas follow, the first answer has the new epoch, and the former master's
        // address still. Asked in this order, no address seems newer than it is.
        questions
            .cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&self.master);
        let answers = questions.query_async(&mut connection).await?;
        let (said, address): (HashMap<String, String>, Option<(String, u16)>) = answers;
        let epoch = said
            .get("config-epoch")
            .and_then(|epoch| epoch.parse().ok());
        Ok(address.map(|(host, port)| Said {
            epoch: epoch.unwrap_or_default(),
            host,
            port,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fake::server;

    /// What a sentinel answers between a promotion and the end of a failover: the new epoch, and both addresses.
    fn answer(command: &str) -> &'static str {
        if command.contains("GET-MASTER-ADDR-BY-NAME") {
            "*2\r\n$8\r\n10.0.0.2\r\n$4\r\n6379\r\n"
        } else if command.contains("MASTER") {
            "*6\r\n$2\r\nip\r\n$8\r\n10.0.0.1\r\n$4\r\nport\r\n$4\r\n6379\r\n\
             $12\r\nconfig-epoch\r\n$1\r\n7\r\n"
        } else {
            "+OK\r\n"
        }
    }

    #[tokio::test]
    async fn a_failover_under_way_does_not_give_the_former_master_the_new_epoch() {
        let sentinels = Sentinels {
            clients: vec![server(answer).await],
            master: "watched".to_owned(),
            login: RedisConnectionInfo::default(),
        };
        let config =
            AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        let (master, epoch) = sentinels.master(&config).await.unwrap();
        let address = master.get_connection_info().addr().to_string();
        assert_eq!((address.as_str(), epoch), ("10.0.0.2:6379", 7));
    }
}
