//! [`Pass`]: all that is queued in a lane, joined into runs and written to its members.
//!
//! Messages to everyone, and to each group, are an *audience*: their bytes are joined once for each encoder, and a
//! member who gets nothing else is written that run as it is. Those whose share differs (a message of their own, one
//! that leaves them out, a join in the middle) are *pending*: their bytes are put together one by one. So a room that
//! leaves its senders out, and acknowledgements between messages, break no run.

mod addressing;
mod joining;
mod writing;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    context::LaneContext,
    entry::Entry,
    members::{List, Members, NONE, Slot},
    run::{Draft, MAX_RUN, Run, Spares},
    wire::Encoder,
};
use crate::CloseReason;

/// A pass ends at so many groups: what it notes of them stays bounded.
const MAX_AUDIENCES: usize = 4096;

/// So many used audiences are kept, to be used again.
const SPARE_AUDIENCES: usize = 64;

/// One pass, which may be cut into slices: what it carries, for whom, and how far it is.
#[derive(Default)]
pub(crate) struct Pass {
    /// Rises from pass to pass.
    number: u64,
    entries: VecDeque<Entry>,
    /// How many of the queued entries a `prepare` under way has come to.
    admitted: usize,
    audiences: Vec<Audience>,
    /// Used before, empty again.
    spare_audiences: Vec<Audience>,
    spares: Spares,
    everyone: Option<u32>,
    pendings: Vec<Pending>,
    /// How many of `pendings` are in use; the others wait to be used again.
    pending_count: usize,
    /// Runs of members who are in the same several audiences.
    merged: Vec<Merged>,
    emptied: Vec<u32>,
    cursor: Cursor,
    active: bool,
    scratch: Draft,
    picks: Vec<Pick>,
    pub(crate) tally: Tally,
}

/// What a pass did: added up for statistics and for the decision to rest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
    pub(crate) unknown: u64,
    pub(crate) slow: u64,
    pub(crate) writes: u64,
    pub(crate) writing: Duration,
}

/// How far a pass is: first the pendings, then audience by audience, member by member.
#[derive(Clone, Copy, Default)]
struct Cursor {
    pending: usize,
    audience: usize,
    member: usize,
}

/// Everyone, or a group, to whom messages of this pass go.
#[derive(Default)]
struct Audience {
    list: List,
    /// Which entries, rising.
    entries: Vec<u32>,
    runs: Vec<(usize, Option<Arc<Run>>)>,
}

/// A member whose share is its own.
#[derive(Default)]
struct Pending {
    slot: Slot,
    written: bool,
    /// Entries for it alone, rising.
    own: Vec<u32>,
    /// Entries that leave it out.
    left_out: Vec<u32>,
    /// Lists that it is in since this many of their audience's entries.
    since: Vec<(List, u32)>,
    /// Parts of audiences that it got before it left them: audience, from, to.
    before: Vec<(u32, u32, u32)>,
    close: Option<CloseReason>,
    forget: bool,
}

/// A run for those who are in exactly these audiences.
struct Merged {
    audiences: Vec<u32>,
    encoder: usize,
    run: Option<Arc<Run>>,
}

/// One message of a member's share: its entry, and where its bytes are (`NONE`: for it alone).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pick {
    entry: u32,
    audience: u32,
    index: u32,
}

/// An encoder by its address: the same for all sessions that share it. It is alive as long as its member is.
fn key(encoder: &Arc<dyn Encoder>) -> usize {
    Arc::as_ptr(encoder).cast::<()>() as usize
}

impl Pass {
    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// Takes the next of the queued entries, up to a run's worth, and works out who gets what.
    /// Says how many it took, and their weight.
    pub(crate) fn prepare(
        &mut self,
        members: &mut Members,
        taken: &mut VecDeque<Entry>,
        context: &LaneContext,
    ) -> (usize, usize) {
        self.number += 1;
        self.active = true;
        let (mut weight, mut bytes) = (0, 0);
        while bytes < MAX_RUN
            && self.audiences.len() < MAX_AUDIENCES
            && let Some(entry) = taken.get(self.admitted)
        {
            let at = self.admitted as u32;
            self.admitted += 1;
            weight += entry.weight();
            bytes += entry.payload();
            self.admit_entry(at, entry, members, context);
        }
        if self.audiences.len() > 1 {
            self.mark_audiences(members);
        }
        let count = std::mem::take(&mut self.admitted);
        if count == taken.len() {
            // Nearly always: nothing is moved.
            std::mem::swap(taken, &mut self.entries);
        } else {
            self.entries.extend(taken.drain(..count));
        }
        (count, weight)
    }

    /// Whether this pass has still something to write for a member.
    pub(crate) fn concerns(&self, slot: Slot, members: &Members) -> bool {
        let Some(member) = members.get(slot) else {
            return false;
        };
        if !self.active {
            return false;
        }
        if member.pass == self.number && member.pending != NONE {
            return !self.pendings[member.pending as usize].written;
        }
        let visited = |index: usize, place: u32| {
            index < self.cursor.audience
                || (index == self.cursor.audience && (place as usize) < self.cursor.member)
        };
        let mut concerned = false;
        for (index, audience) in self.audiences.iter().enumerate() {
            if let Some(place) = member.place(audience.list) {
                if visited(index, place) {
                    return false;
                }
                concerned = true;
            }
        }
        concerned
    }

    fn finish(&mut self, members: &mut Members) {
        for index in self.emptied.drain(..) {
            members.forget_group(index);
        }
        for pending in &mut self.pendings[..self.pending_count] {
            if pending.forget {
                members.free(pending.slot);
            }
            pending.own.clear();
            pending.left_out.clear();
            pending.since.clear();
            pending.before.clear();
            pending.close = None;
            pending.forget = false;
            pending.written = false;
        }
        // What an unusual pass needed is not kept.
        self.pendings.truncate(1024);
        self.pending_count = 0;
        self.entries.clear();
        self.entries.shrink_to(1024);
        for mut audience in self.audiences.drain(..) {
            audience
                .runs
                .drain(..)
                .filter_map(|(_, run)| run)
                .for_each(|run| self.spares.keep(run));
            audience.entries.clear();
            if self.spare_audiences.len() < SPARE_AUDIENCES {
                self.spare_audiences.push(audience);
            }
        }
        self.everyone = None;
        self.merged.clear();
        self.cursor = Cursor::default();
        self.active = false;
    }

    /// Gives up a pass that panicked: its members are as they are, its entries are lost. How many, and how many and
    /// how much of them were still queued.
    pub(crate) fn abandon(
        &mut self,
        members: &mut Members,
        taken: &mut VecDeque<Entry>,
    ) -> (usize, usize, usize) {
        let queued = std::mem::take(&mut self.admitted);
        let weight = taken.drain(..queued).map(|entry| entry.weight()).sum();
        let lost = self.entries.len() + queued;
        self.finish(members);
        (lost, queued, weight)
    }
}
