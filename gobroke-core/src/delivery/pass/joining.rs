//! Bytes: what an audience gets is encoded once for each encoder, what a member gets is put together from that.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{Merged, Pass, Pending, Pick, key};
use crate::{
    client::ClientShared,
    delivery::{
        context::LaneContext,
        entry::Entry,
        members::{Members, NONE},
        run::{Draft, Run},
        wire::Encoder,
    },
};

impl Pass {
    /// An audience's run for an encoder; `None` where the encoder panicked.
    pub(super) fn run(
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
    pub(super) fn merged(
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

    /// Puts a pending member's bytes together; false where its encoder panicked.
    pub(super) fn share(
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
}

/// Appends an entry's frame; false where the encoder panicked.
pub(super) fn encode(entry: &Entry, encoder: &Arc<dyn Encoder>, draft: &mut Draft) -> bool {
    let length = draft.bytes.len();
    match entry {
        Entry::Message { message, .. } => return draft.encode(message, encoder),
        Entry::Frame { frame, .. } => draft.bytes.extend_from_slice(frame),
        Entry::Admit(client) => {
            let welcome = || client.welcome(&mut draft.bytes);
            if catch_unwind(AssertUnwindSafe(welcome)).is_err() {
                draft.bytes.truncate(length);
                return false;
            }
        }
        Entry::Join(..) | Entry::Leave(..) | Entry::Close(..) | Entry::Forget(_) => {}
    }
    if draft.bytes.len() > length {
        draft.mark(true, None);
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
