//! Writes: member by member, each what is its share, in slices.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{Pass, Tally, joining::encode};
use crate::{
    CloseReason,
    client::ClientShared,
    delivery::{
        context::LaneContext,
        entry::Entry,
        members::{Members, NONE, Slot},
        outbox::{Delivered, FETCHED, Outbox, Over},
        run::Run,
    },
    sync::Instant,
};

/// How many writes go between two looks at the clock: 8 of them are about 40 µs.
const WRITES_PER_LOOK: usize = if cfg!(gobroke_interleavings) { 1 } else { 8 };
/// One more write for each so many bytes: copying them into the socket takes about as long as what else a write is.
const BYTES_A_WRITE: usize = 8 << 10;

impl Pass {
    /// Writes until the time is over, which it keeps; says whether the pass is done.
    pub(crate) fn write(
        &mut self,
        members: &mut Members,
        context: &LaneContext,
        now: &mut Instant,
        until: Instant,
    ) -> bool {
        let began = *now;
        let mut left = WRITES_PER_LOOK;
        let done = loop {
            let Some(bytes) = self.write_next(members, context) else {
                break true;
            };
            left = left.saturating_sub(1 + bytes / BYTES_A_WRITE);
            if left == 0 {
                left = WRITES_PER_LOOK;
                *now = Instant::now();
                if *now >= until {
                    break false;
                }
            }
        };
        if left < WRITES_PER_LOOK {
            *now = Instant::now();
        }
        self.tally.writing += *now - began;
        if done {
            self.finish(members);
        }
        done
    }

    /// Makes the next write, and says of how many bytes; `None` if there is none.
    fn write_next(&mut self, members: &mut Members, context: &LaneContext) -> Option<usize> {
        if self.cursor.pending < self.pending_count {
            let index = self.cursor.pending;
            self.cursor.pending += 1;
            return Some(self.write_pending(index, members, context));
        }
        while let Some(audience) = self.audiences.get(self.cursor.audience) {
            let list = members.list(audience.list);
            let Some(&slot) = list.get(self.cursor.member) else {
                self.cursor.audience += 1;
                self.cursor.member = 0;
                continue;
            };
            if self.cursor.member.is_multiple_of(FETCHED) {
                let coming = list[self.cursor.member..].iter().take(FETCHED);
                let coming = coming.filter_map(|&slot| members.get(slot));
                Outbox::fetch(coming.map(|member| &member.client.outbox));
            }
            self.cursor.member += 1;
            let written = self.write_member(slot, members, context);
            if written.is_some() {
                return written;
            }
        }
        None
    }

    /// Writes a member the run of its audiences, unless it is written otherwise.
    fn write_member(
        &mut self,
        slot: Slot,
        members: &mut Members,
        context: &LaneContext,
    ) -> Option<usize> {
        let member = members.get(slot)?;
        let current = self.cursor.audience as u32;
        let marked = member.pass == self.number;
        if marked && member.pending != NONE {
            return None;
        }
        let several = marked && member.audiences.len() > 1;
        if several && member.audiences[0] != current {
            return None;
        }
        let run = match several {
            false => self.run(current, &member.encoder, context),
            true => self.merged(&member.audiences, &member.encoder, context),
        };
        let client = &member.client;
        match run {
            Some(run) => {
                let delivered = client
                    .outbox
                    .deliver(client, run.bytes(), run.marks(), || run.clone());
                self.settle(client, delivered, context);
                Some(run.bytes().len())
            }
            None => {
                client.fail(&context.stats);
                Some(0)
            }
        }
    }

    /// Writes a member whose share is its own, and says how many bytes that is.
    fn write_pending(
        &mut self,
        index: usize,
        members: &mut Members,
        context: &LaneContext,
    ) -> usize {
        let mut bytes = 0;
        let mut pending = std::mem::take(&mut self.pendings[index]);
        if let Some(member) = members.get(pending.slot) {
            let client = member.client.clone();
            let mut draft = std::mem::take(&mut self.scratch);
            draft.clear();
            if self.share(&pending, members, &client, context, &mut draft) {
                if !draft.is_empty() {
                    bytes = draft.bytes.len();
                    let kept = || Run::new(draft.copy(), &context.memory);
                    let delivered =
                        client
                            .outbox
                            .deliver(&client, &draft.bytes, &draft.marks, kept);
                    self.settle(&client, delivered, context);
                }
                if let Some(reason) = pending.close.take() {
                    // Nothing follows the close.
                    self.flush(&client, context);
                    close(&client, reason, context);
                }
            } else {
                client.fail(&context.stats);
            }
            self.scratch = draft;
        }
        pending.written = true;
        self.pendings[index] = pending;
        bytes
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
            let kept = || Run::new(draft.copy(), &context.memory);
            let delivered = client
                .outbox
                .deliver(client, &draft.bytes, &draft.marks, kept);
            self.settle(client, delivered, context);
        } else {
            client.fail(&context.stats);
        }
        self.scratch = draft;
    }

    fn settle(&mut self, client: &Arc<ClientShared>, delivered: Delivered, context: &LaneContext) {
        self.tally.settle(client, delivered, context);
    }

    fn flush(&mut self, client: &Arc<ClientShared>, context: &LaneContext) {
        self.tally.flush(client, context);
    }
}

impl Tally {
    /// Writes what a turn answered its client.
    pub(crate) fn flush(&mut self, client: &Arc<ClientShared>, context: &LaneContext) {
        let delivered = client.outbox.flush(client);
        if delivered != Delivered::default() {
            self.settle(client, delivered, context);
        }
    }

    /// Counts what became of a delivery, and ends the client where it is over.
    fn settle(&mut self, client: &Arc<ClientShared>, delivered: Delivered, context: &LaneContext) {
        self.delivered += u64::from(delivered.taken);
        self.dropped += u64::from(delivered.dropped);
        self.writes += 1;
        match delivered.over {
            None => {}
            Some(Over::Lost) => client.closed.store(true, Relaxed),
            Some(Over::Failed) => client.fail(&context.stats),
            Some(Over::Slow) => {
                self.slow += 1;
                context.cut(client, CloseReason::SlowConsumer);
            }
        }
    }
}

/// Closes a client behind what was written.
fn close(client: &Arc<ClientShared>, reason: CloseReason, context: &LaneContext) {
    client.closed.store(true, Relaxed);
    let frame = context.close_frame(client, &reason);
    client.outbox.close(reason, frame, &context.memory);
}
