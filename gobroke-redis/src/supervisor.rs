//! The supervisor: makes the connections, and makes them anew whenever one of them is of no use any more.
//!
//! Whatever breaks, all of an instance's connections are given up together, the server is asked for again, and
//! everything is subscribed again. What was missed meanwhile the lines repair, and the directory tells by its numbers
//! what it lost.

use std::{sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use gobroke_core::cluster::{ClusterError, Notice};
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    carrier::{self, Subscribed},
    commands::Commands,
    error::meaning,
    instance::Instance,
    lease::{self, Beaten, Ended},
    servers::{self, Layout, Session},
    stats::count,
};

/// How long it waits before it tries again: at first, and at the most.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(250);

/// An instance that has joined over connections that work.
pub(crate) struct Joined {
    commands: MultiplexedConnection,
    claiming: Option<MultiplexedConnection>,
    /// To each node, what is published to it and heard from it.
    nodes: Vec<(MultiplexedConnection, Subscribed)>,
    layout: Layout,
    beaten: Beaten,
}

/// Subscribes, so that nothing is missed from then on, and takes its place among the instances.
pub(crate) async fn join(instance: &Instance, session: Session) -> Result<Joined, Ended> {
    let Session {
        mut commands,
        claiming,
        nodes: connected,
        layout,
    } = session;
    let patience = instance.config.response_timeout;
    let channels = instance.keys.heard(&instance.id);
    let mut nodes = Vec::with_capacity(connected.len());
    for (number, node) in connected.into_iter().enumerate() {
        let here = channels
            .iter()
            .filter(|(place, _)| layout.node(*place) == number);
        let here = here.map(|(_, channel)| channel.clone()).collect();
        let subscribed = timeout(patience, Subscribed::new(node.hearing, here)).await;
        let subscribed = subscribed
            .map_err(|_| ClusterError::Unreachable("SUBSCRIBE was not answered".to_owned()))
            .and_then(|subscribed| subscribed.map_err(|error| meaning("SUBSCRIBE", &error)))
            .map_err(Ended::Away)?;
        nodes.push((node.publishing, subscribed));
    }
    // A server that took over may have lost changes of the list, and have counted others since.
    instance.standing.lock().version = 0;
    let beaten = lease::beat(instance, &mut commands).await?;
    count(&instance.counters.connected);
    Ok(Joined {
        commands,
        claiming,
        nodes,
        layout,
        beaten,
    })
}

/// Keeps an instance in the cluster until it has lost its place. `joined` is `None` where Redis is away already.
pub(crate) async fn run(instance: Arc<Instance>, mut joined: Option<Joined>) {
    let mut pause = FIRST;
    // Why it was not possible to join again, as it was said last.
    let mut said = String::new();
    loop {
        let ended = match joined.take() {
            Some(joined) => {
                let since = Instant::now();
                let ended = serve(&instance, joined).await;
                if since.elapsed() > LONGEST {
                    pause = FIRST;
                }
                ended
            }
            None => {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
                match again(&instance).await {
                    Ok(again) => {
                        tracing::info!(instance = %instance.id, "Redis is back");
                        said.clear();
                        instance.inbox.notice(Notice::Back);
                        joined = Some(again);
                        continue;
                    }
                    Err(ended) => {
                        count(&instance.counters.failed);
                        match ended {
                            Ended::Away(error) => {
                                let why = error.to_string();
                                if why != said {
                                    tracing::warn!(instance = %instance.id, %error, "joining failed; it is tried until it works");
                                    said = why;
                                }
                                continue;
                            }
                            lost => lost,
                        }
                    }
                }
            }
        };
        match ended {
            Ended::Away(error) => {
                tracing::warn!(instance = %instance.id, %error, "Redis is away");
                instance.inbox.notice(Notice::Away);
            }
            Ended::Expelled => return instance.inbox.notice(Notice::Expelled),
            Ended::Superseded { .. } => return instance.inbox.notice(Notice::Superseded),
        }
    }
}

async fn again(instance: &Instance) -> Result<Joined, Ended> {
    let session = instance.servers.connect(&instance.config).await;
    let mut session = session.map_err(Ended::Away)?;
    let has_never_joined = instance.standing.lock().epoch.is_empty();
    match servers::check(&mut session.commands).await {
        Ok(()) => {}
        Err(error @ ClusterError::Refused(_)) if !has_never_joined => {
            // Staying away would be worse than what may happen.
            tracing::error!(instance = %instance.id, %error, "this instance goes on with a server that no other could join");
        }
        Err(error) => return Err(Ended::Away(error)),
    }
    match join(instance, session).await {
        // Its number is that of this machine's clock, which may be wrong. It joins anew, with one that Redis draws.
        Err(Ended::Superseded { by, now })
            if has_never_joined && !instance.is_older_than(by, now) =>
        {
            Err(Ended::Expelled)
        }
        joined => joined,
    }
}

/// Asks where everything is, as often as heartbeats go, until something is elsewhere: a former master that is cut off
/// from the others answers as ever.
async fn overtaken(instance: &Instance, layout: &Layout) {
    loop {
        sleep(instance.config.lease / 5).await;
        match instance.servers.find(&instance.config).await {
            Ok(found) if layout.is_overtaken_by(&found) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(instance = %instance.id, %error, "where the servers are is not known now");
            }
        }
    }
}

/// Publishes, listens, probes and renews the lease until one of these fails.
async fn serve(instance: &Instance, joined: Joined) -> Ended {
    let Joined {
        commands,
        claiming,
        nodes,
        layout,
        beaten,
    } = joined;
    let publishing = nodes[layout.node(instance.trunk)].0.clone();
    let (mut listening, mut probing) = (FuturesUnordered::new(), FuturesUnordered::new());
    for (connection, subscribed) in nodes {
        let heard = subscribed.heard();
        listening.push(carrier::listen(subscribed, instance));
        probing.push(async move { carrier::probe(&heard, &connection, instance).await });
    }
    let (shared, used) = Commands::new(commands.clone());
    let (claims, claimed) = Commands::new(claiming.unwrap_or_else(|| commands.clone()));
    *instance.commands.lock() = Some(shared);
    *instance.claims.lock() = Some(claims);
    instance.standing.lock().since = Some(Instant::now());
    let away = |what: &str| Ended::Away(ClusterError::Unreachable(what.to_owned()));
    let ended = tokio::select! {
        ended = lease::renew(instance, &commands, beaten) => ended,
        _ = listening.next() => away("a connection that listens has ended"),
        published = carrier::publish(&instance.queue, instance.keys.publish(), &publishing) => match published {
            Err(error) => Ended::Away(meaning("PUBLISH", &error)),
            Ok(()) => away("the connection that publishes has ended"),
        },
        probed = probing.next() => match probed {
            Some(Err(error)) => Ended::Away(meaning("probe", &error)),
            _ => {
                count(&instance.counters.deaf);
                away("a subscription is deaf")
            }
        },
        () = overtaken(instance, &layout) => away("another server has taken over"),
        () = used.broken() => away("a command was not answered"),
        () = claimed.broken() => away("a lease was not answered"),
    };
    *instance.commands.lock() = None;
    *instance.claims.lock() = None;
    instance.standing.lock().since = None;
    ended
}
