//! [`Pass`]: all that is queued in a lane, joined into runs and written to its members.
//!
//! Messages to everyone, and to each group, are an *audience*: their bytes are joined once for each encoder, and a
//! member who gets nothing else is written that run as it is. Those whose share differs (a message of their own, one
//! that leaves them out, a join in the middle) are *pending*: their bytes are put together one by one. So a room that
//! leaves its senders out, and acknowledgements between messages, break no run.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use smallvec::SmallVec;

use super::{
    lane::{Entry, LaneContext, Recipients},
    members::{List, Member, Members, NONE, Slot},
    outbox::{Delivered, Over},
    run::{Draft, MAX_RUN, Mark, Run, Spares},
    wire::Encoder,
};
use crate::{CloseReason, Message, client::ClientShared, sync::Instant};

/// How many writes go between two looks at the clock: 8 of them are about 40 µs.
const WRITES_PER_LOOK: u32 = if cfg!(gobroke_interleavings) { 1 } else { 8 };

/// A pass ends at so many groups: what it notes of them stays bounded.
const MAX_AUDIENCES: usize = 4096;

/// So many used audiences are kept, to be used again.
const SPARE_AUDIENCES: usize = 8;

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

    fn admit_entry(
        &mut self,
        at: u32,
        entry: &Entry,
        members: &mut Members,
        context: &LaneContext,
    ) {
        match entry {
            Entry::Admit(client) => {
                let slot = members.admit(client);
                self.open(members, slot, List::Everyone);
                self.own(members, slot, at);
            }
            Entry::Message { to, .. } => self.address(to, members, at),
            Entry::Frame { client, .. } => self.for_client(client, members, at),
            Entry::Join(client, group) => {
                let joined =
                    Members::slot(client).and_then(|slot| Some((slot, members.join(slot, group)?)));
                match joined {
                    Some((slot, index)) => self.open(members, slot, List::Group(index)),
                    None => drop(context.registry.leave(group, context.index)),
                }
            }
            Entry::Leave(client, group) => {
                if let (Some(slot), Some(index)) = (Members::slot(client), members.group(group)) {
                    self.shut(members, slot, List::Group(index), context);
                }
            }
            Entry::Close(client, reason) => {
                if let Some(slot) = Members::slot(client) {
                    self.pending(members, slot)
                        .close
                        .get_or_insert(reason.clone());
                    self.shut_all(members, slot, context);
                }
            }
            Entry::Forget(client) => {
                if let Some(slot) = Members::slot(client) {
                    self.pending(members, slot).forget = true;
                    self.shut_all(members, slot, context);
                }
            }
        }
    }

    /// Notes a message for each of its recipients.
    fn address(&mut self, to: &Recipients, members: &mut Members, at: u32) {
        match to {
            Recipients::Client(client) => self.for_client(client, members, at),
            Recipients::Everyone => self.for_list(members, List::Everyone, at),
            Recipients::Group(group) => {
                if let Some(index) = members.group(group) {
                    self.for_list(members, List::Group(index), at);
                }
            }
            Recipients::Many(many) => {
                if many.everyone {
                    self.for_list(members, List::Everyone, at);
                }
                for group in &many.groups {
                    if let Some(index) = members.group(group) {
                        self.for_list(members, List::Group(index), at);
                    }
                }
                for client in &many.clients {
                    self.for_client(client, members, at);
                }
                for client in &many.except {
                    if let Some(slot) = Members::slot(client) {
                        self.pending(members, slot).left_out.push(at);
                    }
                }
            }
        }
    }

    fn for_client(&mut self, client: &ClientShared, members: &mut Members, at: u32) {
        match Members::slot(client) {
            Some(slot) => self.own(members, slot, at),
            None => self.tally.unknown += 1,
        }
    }

    fn own(&mut self, members: &mut Members, slot: Slot, at: u32) {
        let pending = self.pending(members, slot);
        match pending.close {
            None => pending.own.push(at),
            Some(_) => self.tally.dropped += 1,
        }
    }

    fn for_list(&mut self, members: &mut Members, list: List, at: u32) {
        if members.list(list).is_empty() {
            return;
        }
        let audience = self.audience(members, list);
        self.audiences[audience as usize].entries.push(at);
    }

    fn audience(&mut self, members: &mut Members, list: List) -> u32 {
        let Self {
            audiences,
            spare_audiences,
            everyone,
            number,
            ..
        } = self;
        let new = || {
            let spare = spare_audiences.pop();
            audiences.push(Audience {
                list,
                ..spare.unwrap_or_default()
            });
            (audiences.len() - 1) as u32
        };
        match list {
            List::Everyone => *everyone.get_or_insert_with(new),
            List::Group(index) => members.audience(index, *number, new),
        }
    }

    /// The audience that a list has so far, with its number of entries.
    fn known_audience(&self, members: &Members, list: List) -> Option<(u32, u32)> {
        let audience = match list {
            List::Everyone => self.everyone?,
            List::Group(index) => members.known_audience(index, self.number)?,
        };
        Some((
            audience,
            self.audiences[audience as usize].entries.len() as u32,
        ))
    }

    /// A member came to a list: it gets what follows.
    fn open(&mut self, members: &mut Members, slot: Slot, list: List) {
        if let Some((_, count)) = self.known_audience(members, list)
            && count > 0
        {
            self.pending(members, slot).since.push((list, count));
        }
    }

    /// A member leaves a list: it gets what was before.
    fn shut(&mut self, members: &mut Members, slot: Slot, list: List, context: &LaneContext) {
        if !members.take_out(slot, list) {
            return;
        }
        if let Some((audience, to)) = self.known_audience(members, list) {
            let pending = self.pending(members, slot);
            let known = pending.since.iter().position(|(known, _)| *known == list);
            let from = known.map_or(0, |index| pending.since.swap_remove(index).1);
            pending.before.push((audience, from, to));
        }
        if let List::Group(index) = list {
            if let Some(group) = members.group_at(index) {
                context.group_left(&group);
            }
            self.emptied.push(index);
        }
    }

    fn shut_all(&mut self, members: &mut Members, slot: Slot, context: &LaneContext) {
        let lists: SmallVec<[List; 4]> = members
            .get(slot)
            .into_iter()
            .flat_map(Member::lists)
            .collect();
        for list in lists {
            self.shut(members, slot, list, context);
        }
    }

    fn pending(&mut self, members: &mut Members, slot: Slot) -> &mut Pending {
        let mut index = NONE;
        if let Some(member) = members.get_mut(slot) {
            member.enter_pass(self.number);
            if member.pending == NONE {
                member.pending = self.pending_count as u32;
                self.pending_count += 1;
                if self.pending_count > self.pendings.len() {
                    self.pendings.push(Pending::default());
                }
                self.pendings[member.pending as usize].slot = slot;
            }
            index = member.pending;
        }
        // A slot that passes out is freed only when its pass ends, so its member is there.
        debug_assert_ne!(index, NONE);
        &mut self.pendings[index as usize]
    }

    /// Notes with each member the audiences that it is in, so that it is written once.
    fn mark_audiences(&mut self, members: &mut Members) {
        for (index, audience) in self.audiences.iter().enumerate() {
            for place in 0..members.list(audience.list).len() {
                let slot = members.list(audience.list)[place];
                if let Some(member) = members.get_mut(slot) {
                    member.enter_pass(self.number);
                    member.audiences.push(index as u32);
                }
            }
        }
    }

    /// Writes until the time is over; says whether the pass is done.
    pub(crate) fn write(
        &mut self,
        members: &mut Members,
        context: &LaneContext,
        until: Option<Instant>,
    ) -> bool {
        let began = Instant::now();
        let mut left = WRITES_PER_LOOK;
        let mut looked = began;
        let done = loop {
            if !self.write_next(members, context) {
                break true;
            }
            left -= 1;
            if left == 0 {
                left = WRITES_PER_LOOK;
                looked = Instant::now();
                if until.is_some_and(|until| looked >= until) {
                    break false;
                }
            }
        };
        let ended = if left == WRITES_PER_LOOK {
            looked
        } else {
            Instant::now()
        };
        self.tally.writing += ended - began;
        if done {
            self.finish(members);
        }
        done
    }

    fn write_next(&mut self, members: &mut Members, context: &LaneContext) -> bool {
        if self.cursor.pending < self.pending_count {
            let index = self.cursor.pending;
            self.cursor.pending += 1;
            self.write_pending(index, members, context);
            return true;
        }
        while let Some(audience) = self.audiences.get(self.cursor.audience) {
            let list = members.list(audience.list);
            let Some(&slot) = list.get(self.cursor.member) else {
                self.cursor.audience += 1;
                self.cursor.member = 0;
                continue;
            };
            self.cursor.member += 1;
            if self.write_member(slot, members, context) {
                return true;
            }
        }
        false
    }

    /// Writes a member the run of its audiences, unless it is written otherwise.
    fn write_member(&mut self, slot: Slot, members: &mut Members, context: &LaneContext) -> bool {
        let Some(member) = members.get(slot) else {
            return false;
        };
        let current = self.cursor.audience as u32;
        let marked = member.pass == self.number;
        if marked && member.pending != NONE {
            return false;
        }
        let several = marked && member.audiences.len() > 1;
        if several && member.audiences[0] != current {
            return false;
        }
        let run = match several {
            false => self.run(current, member.encoder(), context),
            true => self.merged(&member.audiences, member.encoder(), context),
        };
        let client = &member.client;
        match run {
            Some(run) => {
                let delivered = client
                    .outbox
                    .deliver(run.bytes(), run.marks(), || run.clone());
                self.settle(client, delivered, context);
            }
            None => client.fail(&context.stats),
        }
        true
    }

    /// An audience's run for an encoder; `None` where the encoder panicked.
    fn run(
        &mut self,
        audience: u32,
        encoder: &Arc<dyn Encoder>,
        context: &LaneContext,
    ) -> Option<Arc<Run>> {
        let audience = &mut self.audiences[audience as usize];
        let key = key(encoder);
        if let Some((_, run)) = audience.runs.iter().find(|(known, _)| *known == key) {
            return run.clone();
        }
        let entries = &self.entries;
        let write = |draft: &mut Draft| encode_all(entries, &audience.entries, encoder, draft);
        let run = self.spares.run(&context.memory, write);
        audience.runs.push((key, run.clone()));
        run
    }

    /// The run of those who are in several audiences.
    fn merged(
        &mut self,
        of: &[u32],
        encoder: &Arc<dyn Encoder>,
        context: &LaneContext,
    ) -> Option<Arc<Run>> {
        let key = key(encoder);
        if let Some(known) = self
            .merged
            .iter()
            .find(|merged| merged.encoder == key && merged.audiences == of)
        {
            return known.run.clone();
        }
        let mut picks = std::mem::take(&mut self.picks);
        picks.clear();
        for &audience in of {
            let count = self.audiences[audience as usize].entries.len() as u32;
            self.pick(&mut picks, audience, 0, count);
        }
        let mut spares = std::mem::take(&mut self.spares);
        let write = |draft: &mut Draft| self.gather(&mut picks, encoder, context, draft);
        let run = spares.run(&context.memory, write);
        self.spares = spares;
        self.picks = picks;
        // Where nearly everyone is in groups of its own, a run is used once or twice: do not keep them all.
        if self.merged.len() < 64 {
            self.merged.push(Merged {
                audiences: of.to_vec(),
                encoder: key,
                run: run.clone(),
            });
        }
        run
    }

    fn pick(&self, picks: &mut Vec<Pick>, audience: u32, from: u32, to: u32) {
        let entries = &self.audiences[audience as usize].entries[from as usize..to as usize];
        picks.extend((from..to).zip(entries).map(|(index, &entry)| Pick {
            entry,
            audience,
            index,
        }));
    }

    /// Puts picked messages one behind the other, each entry once; false where an encoder panicked.
    fn gather(
        &mut self,
        picks: &mut Vec<Pick>,
        encoder: &Arc<dyn Encoder>,
        context: &LaneContext,
        draft: &mut Draft,
    ) -> bool {
        picks.sort_unstable();
        picks.dedup_by_key(|pick| pick.entry);
        for pick in picks.iter() {
            if pick.audience == NONE {
                if !encode(&self.entries[pick.entry as usize], encoder, draft) {
                    return false;
                }
                continue;
            }
            let Some(run) = self.run(pick.audience, encoder, context) else {
                // What the encoder panicked at may leave this member out.
                if !encode(&self.entries[pick.entry as usize], encoder, draft) {
                    return false;
                }
                continue;
            };
            let bytes = run.start(pick.index) as usize..run.end(pick.index) as usize;
            draft.push(&run.bytes()[bytes], run.marks()[pick.index as usize]);
        }
        true
    }

    /// Writes a member whose share is its own.
    fn write_pending(&mut self, index: usize, members: &mut Members, context: &LaneContext) {
        let mut pending = std::mem::take(&mut self.pendings[index]);
        if let Some(member) = members.get(pending.slot) {
            let client = member.client.clone();
            let mut draft = std::mem::take(&mut self.scratch);
            draft.clear();
            if self.share(&pending, members, &client, context, &mut draft) {
                if !draft.is_empty() {
                    let kept = || Run::new(copy(&draft.bytes, &draft.marks), &context.memory);
                    let delivered = client.outbox.deliver(&draft.bytes, &draft.marks, kept);
                    self.settle(&client, delivered, context);
                }
                if let Some(reason) = pending.close.take() {
                    close(&client, reason, context);
                }
            } else {
                client.fail(&context.stats);
            }
            self.scratch = draft;
        }
        pending.written = true;
        self.pendings[index] = pending;
    }

    /// Puts a pending member's bytes together; false where its encoder panicked.
    fn share(
        &mut self,
        pending: &Pending,
        members: &Members,
        client: &Arc<ClientShared>,
        context: &LaneContext,
        draft: &mut Draft,
    ) -> bool {
        let Some(member) = members.get(pending.slot) else {
            return true;
        };
        let mut picks = std::mem::take(&mut self.picks);
        picks.clear();
        picks.extend(pending.own.iter().map(|&entry| Pick {
            entry,
            audience: NONE,
            index: 0,
        }));
        if !self.audiences.is_empty() {
            for &(audience, from, to) in &pending.before {
                self.pick(&mut picks, audience, from, to);
            }
            for list in member.lists() {
                if let Some((audience, count)) = self.known_audience(members, list) {
                    let from = pending
                        .since
                        .iter()
                        .find(|(known, _)| *known == list)
                        .map_or(0, |since| since.1);
                    self.pick(&mut picks, audience, from, count);
                }
            }
        }
        // Also what is for it alone: a message may name a client and leave it out.
        if !pending.left_out.is_empty() {
            picks.retain(|pick| !pending.left_out.contains(&pick.entry));
        }
        let gathered = self.gather(&mut picks, &client.encoder, context, draft);
        self.picks = picks;
        gathered
    }

    /// Counts what became of a delivery, and ends the client where it is over.
    fn settle(&mut self, client: &Arc<ClientShared>, delivered: Delivered, context: &LaneContext) {
        self.tally.delivered += u64::from(delivered.taken);
        self.tally.dropped += u64::from(delivered.dropped);
        self.tally.writes += 1;
        match delivered.over {
            None => {}
            Some(Over::Lost) => client.closed.store(true, Relaxed),
            Some(Over::Slow) => {
                self.tally.slow += 1;
                context.cut(client, CloseReason::SlowConsumer);
            }
        }
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

    /// Writes one message to one client, ahead of this pass.
    pub(crate) fn write_ahead(
        &mut self,
        entry: &Entry,
        client: &Arc<ClientShared>,
        context: &LaneContext,
    ) {
        let mut draft = std::mem::take(&mut self.scratch);
        draft.clear();
        if encode(entry, &client.encoder, &mut draft) {
            let kept = || Run::new(copy(&draft.bytes, &draft.marks), &context.memory);
            let delivered = client.outbox.deliver(&draft.bytes, &draft.marks, kept);
            self.settle(client, delivered, context);
        } else {
            client.fail(&context.stats);
        }
        self.scratch = draft;
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

fn copy(bytes: &[u8], marks: &[Mark]) -> Draft {
    Draft {
        bytes: bytes.to_vec(),
        marks: marks.to_vec(),
    }
}

/// Appends an entry's frame; false where the encoder panicked.
fn encode(entry: &Entry, encoder: &Arc<dyn Encoder>, draft: &mut Draft) -> bool {
    let length = draft.bytes.len();
    let encoded = catch_unwind(AssertUnwindSafe(|| match entry {
        Entry::Message { message, .. } => encoder.message(message, &mut draft.bytes),
        Entry::Frame { frame, .. } => draft.bytes.extend_from_slice(frame),
        Entry::Admit(client) => client.welcome(&mut draft.bytes),
        Entry::Join(..) | Entry::Leave(..) | Entry::Close(..) | Entry::Forget(_) => {}
    }));
    if encoded.is_err() {
        draft.bytes.truncate(length);
        return false;
    }
    if draft.bytes.len() > length {
        let overflow = entry.message().and_then(Message::overflow);
        draft.mark(entry.message().is_none(), overflow);
    }
    true
}

fn encode_all(
    entries: &VecDeque<Entry>,
    of: &[u32],
    encoder: &Arc<dyn Encoder>,
    draft: &mut Draft,
) -> bool {
    for (index, &entry) in of.iter().enumerate() {
        if !encode(&entries[entry as usize], encoder, draft) {
            return false;
        }
        // A run's offsets stand for its audience's entries, so an encoder that writes nothing still leaves a mark.
        if draft.marks.len() == index {
            draft.mark(false, None);
        }
    }
    true
}

/// Closes a client behind what was written.
fn close(client: &Arc<ClientShared>, reason: CloseReason, context: &LaneContext) {
    client.closed.store(true, Relaxed);
    let frame = context.close_frame(client, &reason);
    client.outbox.close(reason, frame, &context.memory);
}
