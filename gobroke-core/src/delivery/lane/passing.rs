//! What the one does who has the right to pass.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use smallvec::SmallVec;

use super::Lane;
use crate::{
    client::ClientShared,
    delivery::{
        ahead::Ahead,
        demand::Demand,
        entry::Entry,
        members::Members,
        pass::{Pass, Tally},
    },
    sync::{Instant, MutexGuard},
};

/// How far down the queue direct messages are looked for that may go ahead; `docs/delivery.md` names it.
const LOOK_AHEAD: usize = 128;

/// What only the one who passes touches.
#[derive(Default)]
pub(super) struct Passing {
    pub(super) members: Members,
    pub(super) pass: Pass,
    pub(super) taken: VecDeque<Entry>,
    pub(super) demand: Demand,
    last_end: Option<Instant>,
}

impl Lane {
    /// What the one with the right to pass touches: nobody else has it now.
    pub(super) fn passing(&self) -> MutexGuard<'_, Passing> {
        let passing = self.passing.try_lock();
        debug_assert!(
            passing.is_some() || self.queue.lock().closed,
            "one pass of a lane at a time"
        );
        // When the router has stopped, its members are being forgotten.
        passing.unwrap_or_else(|| self.passing.lock())
    }

    /// Passes what is queued; says whether that is done, or the time was over, and keeps the time. Only with the right
    /// to pass.
    pub(super) fn slice(&self, now: &mut Instant, until: Instant) -> bool {
        let mut passing = self.passing();
        let Passing {
            members,
            pass,
            taken,
            demand,
            last_end,
        } = &mut *passing;
        loop {
            if !pass.is_active() {
                if taken.is_empty() {
                    self.take(taken);
                }
                if taken.is_empty() {
                    return true;
                }
                let (entries, weight) = pass.prepare(members, taken, &self.context);
                self.room.release(entries, weight);
                shrink(taken);
            }
            if !pass.write(members, &self.context, now, until) {
                return false;
            }
            let tally = std::mem::take(&mut pass.tally);
            self.count(&tally);
            let since = last_end.map_or(Duration::from_secs(1), |last| *now - last);
            *last_end = Some(*now);
            demand.passed(&tally, since, self.context.sharing);
            self.context.relieve();
            if taken.is_empty() {
                return true;
            }
            if *now >= until {
                return false;
            }
        }
    }

    pub(in crate::delivery) fn count(&self, tally: &Tally) {
        self.delivered.add(tally.delivered);
        let stats = &self.context.stats;
        stats.writes.add(tally.writes);
        if tally.dropped + tally.unknown + tally.slow > 0 {
            stats.dropped.add(tally.dropped);
            stats.unknown.add(tally.unknown);
            stats.slow_consumers.add(tally.slow);
        }
    }

    /// Writes direct messages whose client nothing before them concerns: an answer does not wait for somebody else's
    /// room. Only with the right to pass.
    pub(super) fn write_ahead(&self) {
        let mut passing = self.passing();
        let Passing {
            members,
            pass,
            taken,
            ..
        } = &mut *passing;
        if taken.len() > LOOK_AHEAD {
            return;
        }
        let mut found: SmallVec<[(Entry, Arc<ClientShared>); 4]> = SmallVec::new();
        {
            let mut queue = self.queue.lock();
            let mut ahead = Ahead::default();
            if taken.iter().any(|entry| ahead.pass_by(entry)) {
                return;
            }
            let mut index = 0;
            while index < queue.entries.len().min(LOOK_AHEAD) {
                let entry = &queue.entries[index];
                if let Some(client) = ahead.free(entry, pass, members)
                    && let Some(entry) = queue.entries.remove(index)
                {
                    self.room.release(1, entry.weight());
                    found.push((entry, client));
                    continue;
                }
                if ahead.pass_by(&queue.entries[index]) {
                    break;
                }
                index += 1;
            }
        }
        for (entry, client) in found {
            pass.write_ahead(&entry, &client, &self.context);
        }
        self.context.relieve();
    }
}

/// A queue that was long gives its memory back when it is empty.
fn shrink(entries: &mut VecDeque<Entry>) {
    if entries.is_empty() && entries.capacity() > 4096 {
        *entries = VecDeque::new();
    }
}
