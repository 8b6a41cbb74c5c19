//! Who gets what: each entry is noted with its audiences, or with the members that it is for.

use smallvec::SmallVec;

use super::{Audience, Pass, Pending};
use crate::{
    client::ClientShared,
    delivery::{
        context::LaneContext,
        entry::{Entry, Recipients},
        members::{List, Member, Members, NONE, Slot},
    },
};

impl Pass {
    pub(super) fn admit_entry(
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
    pub(super) fn known_audience(&self, members: &Members, list: List) -> Option<(u32, u32)> {
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
    pub(super) fn mark_audiences(&mut self, members: &mut Members) {
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
}
