//! One node: the connections to it, and what is done over them until one of them is of no use any more.

use std::{
    future::{Future, pending},
    sync::Arc,
};

use gobroke_core::cluster::{ClusterError, InstanceId};
use redis::{Client, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};

use crate::{
    carrier::{self, Subscribed},
    commands::{Commands, Use},
    error::meaning,
    instance::Instance,
    keys::Keys,
    lease::{self, Beaten, Ended},
    servers::{self, Layout},
    stats::count,
};

/// What an instance does at a node.
#[derive(Clone, Debug)]
pub(super) struct Role {
    client: Client,
    /// It keeps its place among the instances there.
    pub(super) directory: bool,
    pub(super) publishes: bool,
    /// Where it listens.
    channels: Vec<String>,
}

impl Role {
    /// What it does by this layout, the directory last: who has a place there hears all that is sent to it.
    pub(super) fn all(layout: &Layout, keys: &Keys, id: &InstanceId) -> Vec<Self> {
        let channels = keys.heard(id);
        let publishing = layout.node(keys.trunk(id));
        let roles = layout.nodes.iter().enumerate().map(|(node, client)| Self {
            client: client.clone(),
            directory: node == layout.directory,
            publishes: node == publishing,
            channels: channels
                .iter()
                .filter(|(place, _)| layout.node(*place) == node)
                .map(|(_, channel)| channel.clone())
                .collect(),
        });
        let mut roles: Vec<_> = roles.collect();
        roles.sort_by_key(|role| role.directory);
        roles
    }

    pub(super) fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }
}

impl PartialEq for Role {
    fn eq(&self, other: &Self) -> bool {
        let what = |role: &Self| (role.address(), role.directory, role.publishes);
        what(self) == what(other) && self.channels == other.channels
    }
}

/// Connections to a node that work, each for one purpose, so that none waits for another.
pub(super) struct Open {
    publishing: MultiplexedConnection,
    publishes: bool,
    subscribed: Subscribed,
    directory: Option<Directory>,
}

struct Directory {
    /// Heartbeats.
    commands: MultiplexedConnection,
    beaten: Beaten,
    /// Whether what is asked and written, and leases of logic modules, find the connections of use.
    used: Use,
    claimed: Use,
    _kept: Kept,
}

impl Open {
    /// Connects and subscribes, so that nothing is missed from then on, and where the directory is, takes the
    /// instance's place; `checked` is a connection to the directory that there is already.
    pub(super) async fn new(
        instance: &Arc<Instance>,
        role: &Role,
        checked: Option<MultiplexedConnection>,
    ) -> Result<Self, Ended> {
        let (servers, config, client) = (&instance.servers, &instance.config, &role.client);
        let commands = match checked {
            None if role.directory => {
                let commands = servers.directory(client, config).await;
                let mut commands = commands.map_err(Ended::Away)?;
                check(instance, &mut commands).await?;
                Some(commands)
            }
            checked => checked,
        };
        let hearing = servers.hearing(client, config).await;
        let hearing = hearing.map_err(Ended::Away)?;
        let subscribing = Subscribed::new(hearing, role.channels.clone());
        let subscribed = timeout(config.response_timeout, subscribing)
            .await
            .map_err(|_| ClusterError::Unreachable("SUBSCRIBE was not answered".to_owned()))
            .and_then(|subscribed| subscribed.map_err(|error| meaning("SUBSCRIBE", &error)))
            .map_err(Ended::Away)?;
        let connect = || async {
            let connection = servers::connect(client, config).await;
            connection.map_err(Ended::Away)
        };
        let publishing = connect().await?;
        let directory = match commands {
            None => None,
            Some(commands) => {
                // Leases that replicas have to confirm: whatever comes behind waits for that.
                let claiming = match config.replicas {
                    0 => commands.clone(),
                    _ => connect().await?,
                };
                Some(Directory::new(instance, commands, claiming).await?)
            }
        };
        count(&instance.counters.connected);
        Ok(Self {
            publishing,
            publishes: role.publishes,
            subscribed,
            directory,
        })
    }

    /// Publishes, listens, probes and keeps the instance's place, as far as that is done here, until one of these fails.
    pub(super) async fn serve(self, instance: &Instance) -> Ended {
        let Self {
            publishing,
            publishes,
            subscribed,
            directory,
        } = self;
        let heard = subscribed.heard();
        let publish = carrier::publish(&instance.queue, instance.keys.publish(), &publishing);
        tokio::select! {
            ended = wanted(directory.map(|directory| directory.keep(instance))) => ended,
            () = carrier::listen(subscribed, instance) => away("a connection that listens has ended"),
            published = wanted(publishes.then_some(publish)) => match published {
                Err(error) => Ended::Away(meaning("PUBLISH", &error)),
                Ok(()) => away("the connection that publishes has ended"),
            },
            probed = carrier::probe(&heard, &publishing, instance) => match probed {
                Err(error) => Ended::Away(meaning("probe", &error)),
                Ok(()) => {
                    count(&instance.counters.deaf);
                    away("a subscription is deaf")
                }
            },
        }
    }
}

impl Directory {
    /// Takes the instance's place; commands can be used from then on.
    async fn new(
        instance: &Arc<Instance>,
        mut commands: MultiplexedConnection,
        claiming: MultiplexedConnection,
    ) -> Result<Self, Ended> {
        // A server that took over may have lost changes of the list, and have counted others since.
        instance.standing.lock().version = 0;
        let beaten = lease::beat(instance, &mut commands).await?;
        let (shared, used) = Commands::new(commands.clone());
        let (claims, claimed) = Commands::new(claiming);
        *instance.commands.lock() = Some(shared);
        *instance.claims.lock() = Some(claims);
        instance.standing.lock().since = Some(Instant::now());
        Ok(Self {
            commands,
            beaten,
            used,
            claimed,
            _kept: Kept(instance.clone()),
        })
    }

    /// Renews the lease until that fails, or a command does.
    async fn keep(self, instance: &Instance) -> Ended {
        tokio::select! {
            ended = lease::renew(instance, &self.commands, self.beaten) => ended,
            () = self.used.broken() => away("a command was not answered"),
            () = self.claimed.broken() => away("a lease was not answered"),
        }
    }
}

/// While it is there, commands can be used.
struct Kept(Arc<Instance>);

impl Drop for Kept {
    fn drop(&mut self) {
        *self.0.commands.lock() = None;
        *self.0.claims.lock() = None;
        self.0.standing.lock().since = None;
    }
}

/// What there is to do; nothing where it is `None`.
async fn wanted<T>(work: Option<impl Future<Output = T>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

fn away(what: &str) -> Ended {
    Ended::Away(ClusterError::Unreachable(what.to_owned()))
}

/// Refuses a server that an instance could not join with, unless this one has joined already.
async fn check(instance: &Instance, commands: &mut MultiplexedConnection) -> Result<(), Ended> {
    match servers::check(commands).await {
        Err(error @ ClusterError::Refused(_)) if instance.has_joined() => {
            // Staying away would be worse than what may happen.
            tracing::error!(instance = %instance.id, %error, "this instance goes on with a server that no other could join");
            Ok(())
        }
        checked => checked.map_err(Ended::Away),
    }
}

#[cfg(test)]
mod tests {
    use gobroke_core::cluster::Incarnation;

    use super::*;
    use crate::keys::TRUNKS;

    #[test]
    fn what_moves_concerns_the_nodes_that_it_moves_between() {
        let (keys, id) = (
            Keys::sharded("test"),
            InstanceId::new("one", Incarnation::new(1, 0)),
        );
        let roles = |ports: [u16; 3], directory: usize, moved: Option<usize>| {
            let open = |port| Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
            let node = |trunk: usize| match moved {
                Some(moved) if moved == trunk => 2,
                _ => trunk % 2,
            };
            let layout = Layout {
                epoch: 1,
                nodes: ports.into_iter().map(open).collect(),
                directory,
                trunks: (0..TRUNKS.len()).map(node).collect(),
            };
            let mut roles = Role::all(&layout, &keys, &id);
            assert!(roles.last().unwrap().directory);
            let counts = |which: fn(&Role) -> bool| roles.iter().filter(|role| which(role)).count();
            assert_eq!(counts(|role| role.directory), 1);
            assert_eq!(counts(|role| role.publishes), 1);
            let heard = roles.iter().flat_map(|role| role.channels.clone());
            let all = keys.heard(&id).into_iter().map(|(_, channel)| channel);
            let sorted = |channels: Vec<String>| std::collections::BTreeSet::from_iter(channels);
            assert_eq!(sorted(heard.collect()), sorted(all.collect()));
            roles.sort_by_key(Role::address);
            roles
        };
        let same = |one: &[Role], other: &[Role]| -> Vec<bool> {
            let pairs = one.iter().zip(other);
            pairs.map(|(one, other)| one == other).collect()
        };
        let before = roles([1, 2, 3], 2, None);
        assert_eq!(same(&before, &roles([1, 2, 3], 2, None)), [true; 3]);
        let moved = roles([1, 2, 3], 2, Some(5));
        assert_eq!(same(&before, &moved), [true, false, false]);
        let failed_over = roles([1, 4, 3], 2, None);
        let kept = before.iter().filter(|role| failed_over.contains(role));
        assert_eq!(kept.count(), 2);
        let directory = roles([1, 2, 3], 0, None);
        assert_eq!(same(&before, &directory), [false, true, false]);
    }
}
