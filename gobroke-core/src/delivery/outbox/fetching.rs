//! Fetching, from memory into the processor's cache, what deliveries will look at.

use std::hint::black_box;

use smallvec::SmallVec;

use super::Outbox;
use crate::delivery::wire::Socket;

/// For so many members it is fetched together: a core of today waits for about so many lines of memory at a time,
/// and eight gained less (`gobroke-endpoints/benches/NOTES.md`).
pub(crate) const FETCHED: usize = 16;

impl Outbox {
    /// Looks at what a delivery to each of these will look at, and does nothing with it.
    ///
    /// In a large room nothing of a member is in the cache, so that a delivery would wait for one line after the other.
    /// Here those of several members are waited for at once: first the outboxes, then their sockets. One at which
    /// somebody else is now is left out.
    pub(crate) fn fetch<'a>(outboxes: impl Iterator<Item = &'a Self> + Clone) {
        black_box(outboxes.clone().filter(|outbox| outbox.is_calm()).count());
        let held: SmallVec<[_; FETCHED]> = outboxes
            .filter_map(|outbox| outbox.state.try_lock())
            .collect();
        let sockets = held.iter().filter_map(|state| state.wire.as_ref());
        sockets.for_each(Socket::fetch);
    }
}
