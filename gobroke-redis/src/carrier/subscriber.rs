//! Listens to the channels of an instance, and finds out when it hears nothing any more.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::{
    Msg, PushInfo, PushKind, RedisResult,
    aio::{MultiplexedConnection, PubSub, PubSubStream},
};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep, timeout},
};

use super::packet::{self, Packet};
use crate::{
    config::QUIET,
    instance::Instance,
    keys::{Keys, parse_instance},
    stats::count,
};

/// How often it looks whether a subscription has gone quiet.
const LOOK: Duration = Duration::from_secs(1);

/// A connection that is to listen.
pub(crate) enum Hearing {
    Plain(PubSub),
    /// To a node of a Redis Cluster, by the protocol that tells what was published to shards. No command but SSUBSCRIBE
    /// goes over it.
    Sharded {
        connection: MultiplexedConnection,
        pushed: UnboundedReceiver<PushInfo>,
    },
}

/// A connection that listens to some channels.
pub(crate) struct Subscribed {
    arriving: Arriving,
    heard: Arc<Heard>,
}

enum Arriving {
    Plain(PubSubStream),
    Sharded {
        pushed: UnboundedReceiver<PushInfo>,
        _open: MultiplexedConnection,
    },
}

impl Arriving {
    /// The next message; `None` when the connection has ended, or the node does not have a channel any more.
    async fn next(&mut self) -> Option<Msg> {
        match self {
            Self::Plain(stream) => stream.next().await,
            Self::Sharded { pushed, .. } => loop {
                let push = pushed.recv().await?;
                match push.kind {
                    PushKind::SMessage => return Msg::from_push_info(push),
                    PushKind::Disconnection | PushKind::SUnsubscribe => return None,
                    _ => {}
                }
            },
        }
    }
}

/// The channels that are listened to, and when something came through each.
#[derive(Debug)]
pub(crate) struct Heard(Vec<(String, Mutex<Instant>)>);

impl Heard {
    fn now(&self, channel: &str) {
        for (_, heard) in self.0.iter().filter(|(name, _)| name == channel) {
            *heard.lock() = Instant::now();
        }
    }
}

impl Subscribed {
    /// Subscribes to these channels.
    pub(crate) async fn new(hearing: Hearing, channels: Vec<String>) -> RedisResult<Self> {
        let arriving = match hearing {
            Hearing::Plain(mut connection) => {
                connection.subscribe(&channels).await?;
                Arriving::Plain(connection.split().1)
            }
            Hearing::Sharded {
                mut connection,
                pushed,
            } => {
                // One for each: those of one command must be in one slot.
                let mut pipe = redis::pipe();
                for channel in &channels {
                    pipe.cmd("SSUBSCRIBE").arg(channel);
                }
                pipe.query_async::<Vec<redis::Value>>(&mut connection)
                    .await?;
                Arriving::Sharded {
                    pushed,
                    _open: connection,
                }
            }
        };
        let now = Instant::now();
        let heard = channels
            .into_iter()
            .map(|channel| (channel, Mutex::new(now)));
        let heard = Arc::new(Heard(heard.collect()));
        Ok(Self { arriving, heard })
    }

    pub(crate) fn heard(&self) -> Arc<Heard> {
        self.heard.clone()
    }
}

/// Hands over what comes until the connection ends. Never waits for who takes it.
pub(crate) async fn listen(mut subscribed: Subscribed, instance: &Instance) {
    while let Some(message) = subscribed.arriving.next().await {
        let channel = message.get_channel_name();
        subscribed.heard.now(channel);
        let payload = message.get_payload_bytes();
        if channel == instance.keys.notices {
            notice(instance, payload);
        } else {
            frames(instance, channel, payload);
        }
    }
}

/// The list of instances changed: `<version of the list>`, or that, `<version of envelopes> <who joined>`.
fn notice(instance: &Instance, payload: &[u8]) {
    if payload == packet::probe() {
        return;
    }
    let text = std::str::from_utf8(payload).unwrap_or_default();
    let joined = text.split_once(' ').and_then(|(_, joined)| {
        let (version, joined) = joined.split_once(' ')?;
        Some((version.parse().ok()?, parse_instance(joined)?))
    });
    if let Some((version, joined)) = joined.filter(|(_, joined)| *joined != instance.id) {
        // Put into the inbox under the lock, so that it stays in order with what heartbeats tell.
        let mut roster = instance.roster.lock();
        if let Some(notice) = roster.heard(joined, version, Instant::now()) {
            instance.inbox.notice(notice);
        }
    }
    instance.beat.notify_one();
}

fn frames(instance: &Instance, channel: &str, payload: &[u8]) {
    let seal = instance.config.seal.as_ref();
    let frames = match packet::read(Bytes::copy_from_slice(payload), channel, seal) {
        Ok(Packet::Frames(frames)) => frames,
        Ok(Packet::Sealed {
            origin,
            number,
            frames,
        }) => {
            let origin = std::str::from_utf8(&origin).unwrap_or_default();
            if origin == instance.written {
                // Its own, come back.
                return;
            }
            let to_all = Keys::is_to_all(channel);
            if !instance.replays.lock().admits(origin, number, to_all) {
                count(&instance.counters.replayed);
                tracing::debug!(
                    channel,
                    origin,
                    number,
                    "a packet came again, or before its time"
                );
                return;
            }
            frames
        }
        Ok(Packet::Probe) => return,
        Err(error) => return instance.counters.unreadable(channel, payload.len(), &error),
    };
    let readable = frames.filter_map(|frame| {
        let unreadable = |error| instance.counters.unreadable(channel, payload.len(), &error);
        frame.map_err(unreadable).ok()
    });
    // What the inbox drops is counted there, and repaired.
    instance.inbox.all_arrived(readable);
}

/// Sends a probe through every subscription that has been quiet, and returns when one of them is deaf.
pub(crate) async fn probe(
    heard: &Heard,
    connection: &MultiplexedConnection,
    instance: &Instance,
) -> RedisResult<()> {
    let patience = instance.config.response_timeout;
    loop {
        sleep(LOOK).await;
        let quiet: Vec<_> = heard
            .0
            .iter()
            .filter(|(_, heard)| heard.lock().elapsed() >= QUIET)
            .collect();
        if quiet.is_empty() {
            continue;
        }
        let asked = Instant::now();
        let mut pipe = redis::pipe();
        for (channel, _) in &quiet {
            pipe.cmd(instance.keys.publish())
                .arg(channel)
                .arg(&packet::probe()[..]);
        }
        let _heard: Vec<i64> = pipe.query_async(&mut connection.clone()).await?;
        let answered = timeout(patience, async {
            while quiet.iter().any(|(_, heard)| *heard.lock() < asked) {
                sleep(Duration::from_millis(10)).await;
            }
        });
        if answered.await.is_err() {
            let deaf: Vec<_> = quiet
                .iter()
                .filter(|(_, heard)| *heard.lock() < asked)
                .map(|(name, _)| name)
                .collect();
            tracing::warn!(channels = ?deaf, "nothing comes through a subscription; it is made anew");
            return Ok(());
        }
    }
}
