//! [`LaneContext`]: what a lane needs of its router.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::run::{Draft, Memory};
use crate::{
    CloseReason,
    client::ClientShared,
    registry::{Group, Registry},
    stats::Counters,
};

/// Told of a group that has no member on this instance any more.
pub(crate) type GroupGone = Box<dyn Fn(&Group) + Send + Sync>;

/// What a lane needs of its router.
pub(crate) struct LaneContext {
    pub(crate) index: usize,
    pub(crate) registry: Arc<Registry>,
    pub(crate) memory: Arc<Memory>,
    /// What all outboxes may hold together.
    pub(crate) max_memory: usize,
    pub(crate) stats: Arc<Counters>,
    /// How long the lane may rest: the smallest of the endpoints'.
    pub(crate) coalesce: Duration,
    /// How many lanes there are for each core; one where there are more cores than lanes.
    pub(crate) sharing: f64,
    pub(crate) on_group_gone: OnceLock<GroupGone>,
}

impl LaneContext {
    pub(crate) fn group_left(&self, group: &Group) {
        if self.registry.leave(group, self.index)
            && let Some(told) = self.on_group_gone.get()
            && catch_unwind(AssertUnwindSafe(|| told(group))).is_err()
        {
            self.stats.panics.add(1);
        }
    }

    pub(crate) fn close_frame(&self, client: &ClientShared, reason: &CloseReason) -> Draft {
        let mut draft = Draft::default();
        if reason.is_sendable() {
            let encode = || client.encoder.close(reason, &mut draft.bytes);
            if catch_unwind(AssertUnwindSafe(encode)).is_err() {
                self.stats.panics.add(1);
                return Draft::default();
            }
            if !draft.is_empty() {
                draft.mark(true, None);
            }
        }
        draft
    }

    /// Closes a client ahead of what waits for it.
    pub(crate) fn cut(&self, client: &Arc<ClientShared>, reason: CloseReason) {
        client.closed.store(true, Relaxed);
        let frame = self.close_frame(client, &reason);
        let dropped = client.outbox.cut(reason, frame, &self.memory);
        self.stats.dropped.add(dropped as u64);
    }

    /// While all outboxes together hold too much: those who hold the oldest run go, together.
    pub(super) fn relieve(&self) {
        while self.memory.held() > self.max_memory {
            // Collected first: whoever comes or goes would wait for the registry, and that for writes under way.
            let clients = self.registry.sessions();
            let oldest = clients.iter().filter_map(|client| client.outbox.oldest());
            let Some(oldest) = oldest.min() else {
                return;
            };
            for client in &clients {
                if client.outbox.oldest() == Some(oldest) {
                    self.stats.slow_consumers.add(1);
                    self.cut(client, CloseReason::SlowConsumer);
                }
            }
        }
    }
}
