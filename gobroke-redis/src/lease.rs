//! The lease: heartbeats, what they tell of others, and cleaning up after those that are gone.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use gobroke_core::cluster::{ClusterError, InstanceId, Leaving, Notice, VERSION};
use redis::{FromRedisValue, RedisResult, Value, aio::MultiplexedConnection, from_redis_value};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    error::meaning,
    instance::{Instance, Standing},
    keys::{self, PARTS, parse_instance},
    script,
    stats::count,
};

/// How soon one heartbeat follows another at the earliest, whoever asks for it.
const EARLIEST: Duration = Duration::from_millis(50);
/// How long after somebody's deadline it is looked whether it was renewed.
const AFTER: Duration = Duration::from_millis(20);
/// How long a claim to clean up holds.
const CLAIM: Duration = Duration::from_secs(5);
/// How many clients are cleaned up by one script.
const SWEEP: usize = 128;

/// Why heartbeats ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It is not known whether the instance is in the cluster.
    Away(ClusterError),
    /// Its lease ended, and it was removed.
    Expelled,
    /// A newer incarnation has its name: this number, at this time of Redis' clock in µs, of which numbers are made.
    Superseded { by: u64, now: u64 },
}

/// What a heartbeat was answered.
enum Answer {
    Here {
        epoch: String,
        batch: u64,
        version: u64,
        /// When the first deadline is, of anybody.
        first: Duration,
        unswept: Vec<String>,
        /// All instances and the versions that they know, where the list is not the one that this instance has.
        listed: Option<BTreeMap<InstanceId, u8>>,
        why: HashMap<InstanceId, Leaving>,
        /// How many others are writing again what was lost.
        rewriting: u64,
    },
    Expelled,
    Superseded {
        by: u64,
        now: u64,
    },
}

impl FromRedisValue for Answer {
    fn from_redis_value(value: Value) -> Result<Self, redis::ParsingError> {
        let mut parts = Vec::<Value>::from_redis_value(value)?;
        let rest = parts.split_off(parts.len().min(1));
        let kind: String = parts.pop().map_or(Ok(String::new()), from_redis_value)?;
        match &*kind {
            "expelled" => return Ok(Self::Expelled),
            "superseded" => {
                let (by, now) = from_redis_value(Value::Array(rest))?;
                return Ok(Self::Superseded { by, now });
            }
            _ => {}
        }
        type Rest = (
            String,
            u64,
            u64,
            u64,
            Vec<String>,
            HashMap<String, String>,
            HashMap<String, String>,
            HashMap<String, u8>,
            u64,
        );
        let (epoch, batch, version, first, unswept, listed, left, versions, rewriting): Rest =
            from_redis_value(Value::Array(rest))?;
        let ids = listed.iter().filter_map(|(name, incarnation)| {
            let id = InstanceId::new(name.as_str(), keys::parse_incarnation(incarnation)?);
            // What no record names is what every instance knows; core takes a lower one for that.
            Some((id, versions.get(name).copied().unwrap_or_default()))
        });
        let why = left.iter().filter_map(|(id, why)| {
            let why = match why.as_bytes().first()? {
                b's' => Leaving::Stopped,
                b'r' => Leaving::Replaced,
                _ => Leaving::Expired,
            };
            Some((parse_instance(id)?, why))
        });
        Ok(Self::Here {
            epoch,
            batch,
            version,
            first: Duration::from_millis(first),
            unswept,
            listed: (!listed.is_empty()).then(|| ids.collect()),
            why: why.collect(),
            rewriting,
        })
    }
}

/// Renews the lease until that fails.
pub(crate) async fn renew(
    instance: &Instance,
    commands: &MultiplexedConnection,
    beaten: Beaten,
) -> Ended {
    let mut sweeps = FuturesUnordered::new();
    let mut beaten = beaten;
    loop {
        for id in beaten.unswept.drain(..) {
            sweeps.push(sweep(instance, commands.clone(), id));
        }
        let beat = beaten.at + beaten.next;
        loop {
            tokio::select! {
                () = sleep_until(beat) => break,
                () = instance.beat.notified() => {
                    sleep_until(beaten.at + EARLIEST).await;
                    break;
                }
                Some(()) = sweeps.next() => {}
            }
        }
        match self::beat(instance, &mut commands.clone()).await {
            Ok(next) => beaten = next,
            Err(ended) => return ended,
        }
    }
}

/// A heartbeat that was answered.
pub(crate) struct Beaten {
    at: Instant,
    /// When the next one is due.
    next: Duration,
    /// What is to be cleaned up.
    unswept: Vec<String>,
}

/// One heartbeat: joins, stays, or finds out that it must not.
pub(crate) async fn beat(
    instance: &Instance,
    commands: &mut MultiplexedConnection,
) -> Result<Beaten, Ended> {
    let at = Instant::now();
    let (epoch, version, seen, confirmed) = {
        let standing = instance.standing.lock();
        let Standing {
            epoch,
            version,
            seen,
            confirmed,
            ..
        } = &*standing;
        (epoch.clone(), *version, *seen, *confirmed)
    };
    let (keys, lease) = (&instance.keys, instance.config.lease);
    let mut invocation = script::BEAT.prepare_invoke();
    for key in [
        &keys.state,
        &keys.instances,
        &keys.leases,
        &keys.batches,
        &keys.left,
        &keys.unswept,
        &keys.versions,
        &keys.rewriting,
    ] {
        invocation.key(key);
    }
    invocation
        .arg(&*instance.id.name)
        .arg(keys::incarnation(instance.id.incarnation))
        .arg(&epoch)
        .arg(uuid::Uuid::new_v4().simple().to_string())
        .arg(lease.as_millis() as u64)
        .arg(version)
        .arg(&keys.notices)
        .arg(VERSION)
        .arg(keys.publish())
        .arg(seen)
        .arg(confirmed);
    let answer: RedisResult<Answer> = invocation.invoke_async(commands).await;
    let answer = answer.map_err(|error| Ended::Away(meaning("heartbeat", &error)))?;
    match answer {
        Answer::Expelled => Err(Ended::Expelled),
        Answer::Superseded { by, now } => Err(Ended::Superseded { by, now }),
        Answer::Here {
            epoch: now,
            batch,
            version,
            first,
            unswept,
            listed,
            why,
            rewriting,
        } => {
            count(&instance.counters.heartbeats);
            let time = Instant::now();
            {
                let mut standing = instance.standing.lock();
                let mut roster = instance.roster.lock();
                if standing.epoch != now {
                    if !standing.epoch.is_empty() {
                        tracing::warn!(instance = %instance.id, "Redis has lost its data; everything is written again");
                        roster.lost(time, lease);
                    }
                    standing.epoch = now;
                    standing.since = standing.since.map(|_| time);
                }
                roster.rewriting = rewriting > 0;
                // The next one, which the notice calls for, has the newer list.
                let old = roster.is_newer_than(at);
                standing.version = if old { 0 } else { version };
                standing.seen = standing.seen.max(version);
                let mut notices = match listed.filter(|_| !old) {
                    Some(mut listed) => {
                        listed.remove(&instance.id);
                        roster.listed(listed, &why, time)
                    }
                    None => roster.update(&why, time),
                };
                if batch < confirmed && !std::mem::replace(&mut standing.told, true) {
                    count(&instance.counters.out_of_step);
                    notices.push(Notice::OutOfStep);
                }
                // Under the lock, so that they stay in order with what the channel for notices tells.
                for notice in notices {
                    instance.inbox.notice(notice);
                }
                if roster.has_been_wrong(time, lease) {
                    tracing::warn!(instance = %instance.id, "who was taken for gone is there; this instance joins anew");
                    return Err(Ended::Expelled);
                }
            }
            let next = (lease / 5).min(first + AFTER).max(EARLIEST);
            Ok(Beaten { at, next, unswept })
        }
    }
}

/// Cleans up after an instance that is gone, unless somebody else does.
async fn sweep(instance: &Instance, mut commands: MultiplexedConnection, id: String) {
    let keys = &instance.keys;
    let mut cursor = String::new();
    loop {
        let mut invocation = script::SWEEP.prepare_invoke();
        invocation
            .key(&keys.unswept)
            .key(&keys.places)
            .key(keys.groups_of(&id));
        for part in 0..PARTS {
            invocation.key(keys.clients_of(&id, part));
        }
        let answer: RedisResult<String> = invocation
            .arg(&id)
            .arg(&cursor)
            .arg(CLAIM.as_millis() as u64)
            .arg(SWEEP)
            .arg(&keys.group)
            .invoke_async(&mut commands)
            .await;
        match answer {
            Ok(answer) if matches!(&*answer, "done" | "taken") => return,
            Ok(next) => cursor = next,
            Err(error) => {
                tracing::warn!(%id, %error, "cleaning up after an instance failed; it is tried again when the claim ends");
                return sleep(EARLIEST).await;
            }
        }
        count(&instance.counters.sweeps);
    }
}
