//! What can go wrong, and how soon all has to be right again.

use std::time::Duration;

use super::servers::Servers;

/// How long a server stands still to try whether anything wears off: longer than a lease, shorter than lines keep.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// From when on a server that stands still may be taken for dead by those that watch it, which find so after a second.
const TAKEN_FOR_DEAD: Duration = Duration::from_millis(800);

/// How long it may take until all works again, from when Redis can be reached.
const REACHABLE: Duration = Duration::from_millis(500);
/// From when it was decided who the master is.
const DECIDED: Duration = Duration::from_secs(5);
/// From the end of a dead instance's lease.
const EXPIRED: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// All connections, by the server.
    Killed,
    /// A server crashes and starts again without its data.
    Empty,
    /// A server crashes and starts again with its data.
    Restarted,
    /// A server stands still, and goes on as if nothing had been.
    Frozen,
    /// An instance cannot reach any server.
    CutOff,
    /// An instance does not read while the others send more than a server keeps for it.
    Slow,
    PlannedFailover,
    Failover,
    MovedSlots,
    InstanceKilled,
    InstanceFrozen,
}

impl Fault {
    pub(crate) fn of(setup: &Servers) -> Vec<Self> {
        let mut faults = vec![
            Self::Killed,
            Self::Empty,
            Self::Restarted,
            Self::Frozen,
            Self::CutOff,
            Self::Slow,
            Self::InstanceKilled,
            Self::InstanceFrozen,
        ];
        if setup.are_replicated() {
            faults.extend([Self::PlannedFailover, Self::Failover]);
        }
        if matches!(setup, Servers::Cluster(_)) {
            faults.push(Self::MovedSlots);
        }
        faults
    }

    /// Whether an instance does not live through it.
    pub(crate) fn is_deadly(self) -> bool {
        matches!(self, Self::InstanceKilled | Self::InstanceFrozen)
    }

    /// Whether an instance stands still, so that its own clients cannot but notice.
    pub(crate) fn stops_an_instance(self) -> bool {
        self.is_deadly() || self == Self::Slow
    }

    /// How long it may take at most until all works again.
    pub(crate) fn bound(self, setup: &Servers, length: Duration) -> Duration {
        match self {
            Self::PlannedFailover | Self::Failover => DECIDED,
            // It may be decided after the server goes on.
            Self::Frozen if setup.are_replicated() && (TAKEN_FOR_DEAD..LONG).contains(&length) => {
                DECIDED
            }
            Self::InstanceKilled => EXPIRED,
            _ => REACHABLE,
        }
    }

    /// The same, while a server stands still that others took over from.
    pub(crate) fn bound_before_it_goes_on() -> Duration {
        DECIDED
    }
}
