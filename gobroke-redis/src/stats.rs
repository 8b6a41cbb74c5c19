//! [`RedisStats`]: what is counted beside what core counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a [`RedisCluster`](crate::RedisCluster) counted since it was made, over all its connections.
///
/// Messages are counted by core: see [`ClusterStats`](gobroke_core::cluster::ClusterStats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStats {
    /// How often the connections to a node were made, the first time included: of an instance one node, and in a Redis
    /// Cluster each master that it needs.
    pub connected: u64,
    /// How often they could not be made, or it could not be found out where the nodes are.
    pub failed: u64,
    /// Heartbeats that were answered.
    pub heartbeats: u64,
    /// Packets that could not be read, or whose seal is wrong or missing ([`secret`](crate::RedisCluster::secret)),
    /// and records of clients that could not be read: somebody else writes into the channels or keys. The log says
    /// which, and what was wrong.
    pub unreadable: u64,
    /// Packets with a [`secret`](crate::RedisCluster::secret)'s seal that came again, or to all of somebody who had not
    /// greeted this instance yet, dropped: some when an instance joins or reconnects; else somebody repeats what was
    /// published.
    pub replayed: u64,
    /// How often a subscription was found deaf by a probe.
    pub deaf: u64,
    /// How often the directory turned out to have lost what this instance wrote.
    pub out_of_step: u64,
    /// Clients that were cleaned up after an instance that is gone, step by step.
    pub sweeps: u64,
}

/// The counters behind it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connected: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) heartbeats: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) deaf: AtomicU64,
    pub(crate) out_of_step: AtomicU64,
    pub(crate) sweeps: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counters {
    /// Something came that is no packet.
    pub(crate) fn unreadable(&self, channel: &str, bytes: usize, error: &dyn std::error::Error) {
        count(&self.unreadable);
        tracing::warn!(channel, bytes, %error, "a packet cannot be read");
    }

    /// A record in the directory is none.
    pub(crate) fn illegible(&self, error: &dyn std::error::Error) {
        count(&self.unreadable);
        tracing::warn!(%error, "a record in the directory cannot be read");
    }

    pub(crate) fn snapshot(&self) -> RedisStats {
        RedisStats {
            connected: self.connected.load(Relaxed),
            failed: self.failed.load(Relaxed),
            heartbeats: self.heartbeats.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
            replayed: self.replayed.load(Relaxed),
            deaf: self.deaf.load(Relaxed),
            out_of_step: self.out_of_step.load(Relaxed),
            sweeps: self.sweeps.load(Relaxed),
        }
    }
}
