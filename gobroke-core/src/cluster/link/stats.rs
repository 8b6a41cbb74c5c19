//! [`ClusterStats`]: what an instance counts of its part in the cluster.

use serde::Serialize;

/// Counters and gauges of an instance's part in the cluster, at one moment.
///
/// Messages and commands (disconnect, join, leave, metadata) count alike, and once for each instance that they go to.
/// Between instances that live, once it is quiet: what all have `sent`, all have `received` or count as `lost`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClusterStats {
    /// Whether the cluster can be reached, and this instance hears and is part of it.
    pub ready: bool,
    /// Gauge: other instances.
    pub instances: usize,
    /// Gauge: bytes that wait for the carrier, or for a look-up.
    pub queue_bytes: usize,
    /// Gauge: bytes kept to be sent again.
    pub kept_bytes: usize,
    /// Gauge: bytes held back behind gaps.
    pub held_bytes: usize,
    /// Gauge: clients elsewhere whose place is remembered.
    pub known_clients: usize,
    /// Gauge: groups whose instances are remembered.
    pub known_groups: usize,
    /// Sent to other instances, each counted once.
    pub sent: u64,
    /// Taken from other instances, in order.
    pub received: u64,
    /// Sent by other instances and given up here: not repaired within the bounds.
    pub lost: u64,
    /// Dropped here before it was sent: the queue was full while the cluster was away, a look-up took too long, or
    /// the instance that it was for has left. Where it was not known yet on which instances they are, once for each
    /// target.
    pub dropped: u64,
    /// Sent to instances that left before they acknowledged it.
    pub in_doubt: u64,
    /// Came back since the client was not there any more, and was sent once more.
    pub redirected: u64,
    /// For clients that are nowhere.
    pub unknown: u64,
    /// Handed back to other instances, for clients that are not here.
    pub handed_back: u64,
    /// Look-ups of clients and groups.
    pub look_ups: u64,
    /// Frames that came again, and were dropped.
    pub doubled: u64,
    /// Frames that were sent again on request.
    pub repaired: u64,
    /// Frames for or from a former incarnation, dropped.
    pub stale: u64,
    /// Frames that could not be read.
    pub unreadable: u64,
    /// Frames dropped since too many waited here; what they carried is repaired, or counted as lost.
    pub overflowed: u64,
    /// Writes to the directory that failed or were refused; the whole record is written again after each.
    pub failed_writes: u64,
}
