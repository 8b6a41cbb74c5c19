//! [`Nodes`]: the nodes of a Redis Cluster, and which of them holds what.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use gobroke_core::cluster::ClusterError;
use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, Client, RedisResult, Value, from_redis_value};
use tokio::time::{Instant, timeout};

use crate::{
    error::meaning,
    keys::{Keys, TRUNKS},
    servers::{Layout, named_by, value},
};

/// How long others are waited for when the first node has answered: one that is cut off tells of former masters, and one
/// that stands still says nothing.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// The nodes of a Redis Cluster: those that the program named, and those that they named.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    seeds: Vec<Client>,
    known: Arc<Mutex<BTreeMap<String, Client>>>,
}

/// What a node says.
struct Said {
    epoch: u64,
    /// Whether the cluster works.
    works: bool,
    /// The slot of the namespace's keys.
    slot: u16,
    ranges: Vec<Range>,
}

/// The first slot, the last, and who has them, by host and port: the master first, then its replicas.
type Range = (u16, u16, Vec<(String, u16)>);

impl Nodes {
    pub(crate) fn new(seeds: Vec<Client>) -> Self {
        Self {
            seeds,
            known: Arc::default(),
        }
    }

    /// Those that the program named.
    pub(crate) fn seeds(self) -> Vec<Client> {
        self.seeds
    }

    /// Asks all nodes, and believes the one with the latest epoch among those that say that the cluster works.
    pub(crate) async fn layout(
        &self,
        namespace: &str,
        config: &AsyncConnectionConfig,
    ) -> Result<Layout, ClusterError> {
        let mut clients: Vec<Client> = self.known.lock().values().cloned().collect();
        clients.extend(self.seeds.iter().cloned());
        let keys = Keys::new(namespace);
        let mut asked: FuturesUnordered<_> = clients
            .iter()
            .map(|client| {
                let asked = ask(client, &keys.state, config);
                async move { (asked.await, client) }
            })
            .collect();
        let mut failed = None;
        let mut latest: Option<(Said, &Client)> = None;
        let mut end: Option<Instant> = None;
        loop {
            let next = match end {
                None => asked.next().await,
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    timeout(left, asked.next()).await.ok().flatten()
                }
            };
            let Some((said, client)) = next else { break };
            match said {
                Ok(said) => {
                    end.get_or_insert_with(|| Instant::now() + STRAGGLERS);
                    let known = latest.as_ref().map(|(known, _)| known.epoch);
                    if !said.works {
                        failed = Some(ClusterError::Unreachable(format!(
                            "the Redis Cluster is down, says {}",
                            client.get_connection_info().addr()
                        )));
                    } else if known < Some(said.epoch) {
                        latest = Some((said, client));
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        let Some((said, client)) = latest else {
            let nobody = || ClusterError::Refused("no node is named".to_owned());
            return Err(failed.unwrap_or_else(nobody));
        };
        let layout = self.lay(&said, client);
        layout.map_err(|error| meaning("the address of a node", &error))?
    }

    fn lay(&self, said: &Said, client: &Client) -> RedisResult<Result<Layout, ClusterError>> {
        let settings = client.get_connection_info().redis_settings();
        let mut known = BTreeMap::new();
        for (host, port) in said.ranges.iter().flat_map(|(_, _, nodes)| nodes) {
            let node = named_by(client, host.clone(), *port, settings.clone())?;
            known.insert(format!("{host}:{port}"), node);
        }
        let (mut names, mut nodes) = (Vec::new(), Vec::new());
        let mut holder = |slot: u16| {
            let range = said
                .ranges
                .iter()
                .find(|(first, last, _)| (*first..=*last).contains(&slot));
            let (host, port) = range.and_then(|(_, _, nodes)| nodes.first())?;
            let name = format!("{host}:{port}");
            if let Some(place) = names.iter().position(|known| *known == name) {
                return Some(place);
            }
            nodes.push(known.get(&name)?.clone());
            names.push(name);
            Some(nodes.len() - 1)
        };
        let directory = holder(said.slot);
        let trunks: Option<Vec<usize>> = TRUNKS.iter().map(|(_, slot)| holder(*slot)).collect();
        let (Some(directory), Some(trunks)) = (directory, trunks) else {
            return Ok(Err(ClusterError::Unreachable(
                "nobody holds all slots of the Redis Cluster".to_owned(),
            )));
        };
        *self.known.lock() = known;
        Ok(Ok(Layout {
            epoch: said.epoch,
            nodes,
            directory,
            trunks,
        }))
    }
}

async fn ask(
    client: &Client,
    key: &str,
    config: &AsyncConnectionConfig,
) -> Result<Said, ClusterError> {
    let wrong = |error| meaning("asking a node for the slots", &error);
    let connection = client.get_multiplexed_async_connection_with_config(config);
    let mut connection = connection.await.map_err(wrong)?;
    let mut questions = redis::pipe();
    questions.cmd("CLUSTER").arg("INFO");
    questions.cmd("CLUSTER").arg("KEYSLOT").arg(key);
    questions.cmd("CLUSTER").arg("SLOTS");
    let answers = questions.query_async(&mut connection).await;
    let (info, slot, slots): (String, u16, Vec<Vec<Value>>) = answers.map_err(wrong)?;
    let asked = client.get_connection_info().addr().to_string();
    let asked = asked.rsplit_once(':').map_or("", |(host, _)| host);
    let ranges = slots.into_iter().map(|range| {
        let mut range = range.into_iter();
        let mut number = || from_redis_value(range.next().unwrap_or(Value::Nil));
        let (first, last) = (number()?, number()?);
        let nodes = range.map(|node| {
            let mut node = from_redis_value::<Vec<Value>>(node)?.into_iter();
            let host: Option<String> = from_redis_value(node.next().unwrap_or(Value::Nil))?;
            let port = from_redis_value(node.next().unwrap_or(Value::Nil))?;
            // A node that does not know its own address leaves it out: it is the one that was asked.
            let host = host.filter(|host| !host.is_empty() && host != "?");
            Ok((host.unwrap_or_else(|| asked.to_owned()), port))
        });
        Ok((first, last, nodes.collect::<RedisResult<_>>()?))
    });
    let ranges = ranges.collect::<RedisResult<_>>().map_err(wrong)?;
    Ok(Said {
        works: value(&info, "cluster_state") == "ok",
        epoch: value(&info, "cluster_current_epoch")
            .parse()
            .unwrap_or_default(),
        slot,
        ranges,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::server;

    /// What a node says of a cluster that nobody has decided about yet.
    fn answer(command: &str) -> &'static str {
        if command.contains("INFO") {
            "$18\r\ncluster_state:fail\r\n"
        } else if command.contains("KEYSLOT") {
            ":7\r\n"
        } else {
            "*0\r\n"
        }
    }

    #[tokio::test]
    async fn a_node_that_stands_still_holds_nothing_up_while_the_cluster_is_down() {
        let nodes = Nodes::new(vec![server(|_| "").await, server(answer).await]);
        let hour = Some(Duration::from_secs(3600));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(hour)
            .set_response_timeout(hour);
        let layout = timeout(Duration::from_secs(30), nodes.layout("test", &config)).await;
        let error = layout.unwrap().unwrap_err().to_string();
        assert!(error.contains("the Redis Cluster is down"), "{error}");
    }
}
