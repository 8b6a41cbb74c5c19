//! [`Members`]: the clients of a lane and their groups, as its passes see them. Only a pass touches them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use smallvec::SmallVec;

use crate::{
    client::{ClientShared, NO_SLOT},
    delivery::wire::Encoder,
    registry::Group,
};

/// A place in the table of members.
pub(crate) type Slot = u32;

/// Which list of members: one of the lane's groups by its index, or everyone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum List {
    #[default]
    Everyone,
    Group(u32),
}

/// No audience, no pending: what the marks below start with.
pub(crate) const NONE: u32 = u32::MAX;

/// A client in its lane.
pub(crate) struct Member {
    pub(crate) client: Arc<ClientShared>,
    /// The client's, which a pass looks at for each of its members.
    pub(crate) encoder: Arc<dyn Encoder>,
    /// Its groups, each with its place in the group's list.
    groups: SmallVec<[(u32, u32); 2]>,
    /// Its place in the list of everyone; `NONE` once it is closed.
    everyone: u32,
    /// The pass that the two fields below belong to.
    pub(crate) pass: u64,
    /// Its index among the pass' pendings.
    pub(crate) pending: u32,
    /// The audiences of the pass that it belongs to, where there are several.
    pub(crate) audiences: SmallVec<[u32; 2]>,
}

impl Member {
    /// Prepares its marks for a pass, unless they are.
    pub(crate) fn enter_pass(&mut self, pass: u64) {
        if self.pass != pass {
            self.pass = pass;
            self.pending = NONE;
            self.audiences.clear();
        }
    }

    pub(crate) fn lists(&self) -> impl Iterator<Item = List> {
        let everyone = (self.everyone != NONE).then_some(List::Everyone);
        everyone
            .into_iter()
            .chain(self.groups.iter().map(|&(group, _)| List::Group(group)))
    }

    /// Its place in a list that it is in.
    pub(crate) fn place(&self, list: List) -> Option<u32> {
        match list {
            List::Everyone => (self.everyone != NONE).then_some(self.everyone),
            List::Group(index) => self
                .groups
                .iter()
                .find(|&&(group, _)| group == index)
                .map(|&(_, place)| place),
        }
    }

    pub(crate) fn is_in_group(&self, index: u32) -> bool {
        self.place(List::Group(index)).is_some()
    }
}

/// A group's members in this lane.
struct LaneGroup {
    group: Option<Arc<Group>>,
    members: Vec<Slot>,
    /// The pass in which `audience` was set.
    pass: u64,
    audience: u32,
}

/// The clients of a lane and their groups.
#[derive(Default)]
pub(crate) struct Members {
    slots: Vec<Option<Member>>,
    free: Vec<Slot>,
    everyone: Vec<Slot>,
    groups: Vec<LaneGroup>,
    free_groups: Vec<u32>,
    by_id: HashMap<u64, u32>,
}

impl Members {
    pub(crate) fn admit(&mut self, client: &Arc<ClientShared>) -> Slot {
        let member = Member {
            client: client.clone(),
            encoder: client.encoder.clone(),
            groups: SmallVec::new(),
            everyone: self.everyone.len() as u32,
            pass: u64::MAX,
            pending: NONE,
            audiences: SmallVec::new(),
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(member);
                slot
            }
            None => {
                self.slots.push(Some(member));
                (self.slots.len() - 1) as Slot
            }
        };
        self.everyone.push(slot);
        client.slot.store(slot, Relaxed);
        slot
    }

    /// The slot of a client of this lane, unless it is not yet or no longer here.
    pub(crate) fn slot(client: &ClientShared) -> Option<Slot> {
        let slot = client.slot.load(Relaxed);
        (slot != NO_SLOT).then_some(slot)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Member> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Member> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(crate) fn list(&self, list: List) -> &[Slot] {
        match list {
            List::Everyone => &self.everyone,
            List::Group(index) => &self.groups[index as usize].members,
        }
    }

    /// The index of a group that has members here.
    pub(crate) fn group(&self, group: &Group) -> Option<u32> {
        self.by_id.get(&group.id).copied()
    }

    /// The audience that a group has in this pass.
    pub(crate) fn audience(&mut self, index: u32, pass: u64, new: impl FnOnce() -> u32) -> u32 {
        let group = &mut self.groups[index as usize];
        if group.pass != pass {
            group.pass = pass;
            group.audience = new();
        }
        group.audience
    }

    /// The audience that a group has in this pass already.
    pub(crate) fn known_audience(&self, index: u32, pass: u64) -> Option<u32> {
        let group = &self.groups[index as usize];
        (group.pass == pass).then_some(group.audience)
    }

    pub(crate) fn join(&mut self, slot: Slot, group: &Arc<Group>) -> Option<u32> {
        let index = match self.by_id.get(&group.id) {
            Some(&index) => index,
            None => self.add_group(group),
        };
        let place = self.groups[index as usize].members.len() as u32;
        let member = self.get_mut(slot)?;
        if member.is_in_group(index) {
            return None;
        }
        member.groups.push((index, place));
        self.groups[index as usize].members.push(slot);
        Some(index)
    }

    fn add_group(&mut self, group: &Arc<Group>) -> u32 {
        let new = LaneGroup {
            group: Some(group.clone()),
            members: Vec::new(),
            pass: u64::MAX,
            audience: 0,
        };
        let index = match self.free_groups.pop() {
            Some(index) => {
                self.groups[index as usize] = new;
                index
            }
            None => {
                self.groups.push(new);
                (self.groups.len() - 1) as u32
            }
        };
        self.by_id.insert(group.id, index);
        index
    }

    /// Takes a member out of a list. An emptied group is left to [`Members::forget_group`], since the pass under way
    /// may still know it by its index.
    pub(crate) fn take_out(&mut self, slot: Slot, list: List) -> bool {
        let Some(member) = self.get_mut(slot) else {
            return false;
        };
        let Some(place) = member.place(list) else {
            return false;
        };
        match list {
            List::Everyone => member.everyone = NONE,
            List::Group(index) => member.groups.retain(|&mut (group, _)| group != index),
        }
        let members = match list {
            List::Everyone => &mut self.everyone,
            List::Group(index) => &mut self.groups[index as usize].members,
        };
        members.swap_remove(place as usize);
        let Some(&moved) = members.get(place as usize) else {
            return true;
        };
        if let Some(moved) = self.get_mut(moved) {
            match list {
                List::Everyone => moved.everyone = place,
                List::Group(index) => {
                    for entry in moved.groups.iter_mut().filter(|(group, _)| *group == index) {
                        entry.1 = place;
                    }
                }
            }
        }
        true
    }

    /// The group behind an index.
    pub(crate) fn group_at(&self, index: u32) -> Option<Arc<Group>> {
        self.groups.get(index as usize)?.group.clone()
    }

    /// Forgets a group that has no members here any more.
    pub(crate) fn forget_group(&mut self, index: u32) {
        let group = &mut self.groups[index as usize];
        if group.members.is_empty()
            && let Some(gone) = group.group.take()
        {
            self.by_id.remove(&gone.id);
            group.members = Vec::new();
            self.free_groups.push(index);
        }
    }

    /// Frees a member's slot; it is in no list any more.
    pub(crate) fn free(&mut self, slot: Slot) {
        if let Some(member) = self.slots[slot as usize].take() {
            member.client.slot.store(NO_SLOT, Relaxed);
            self.free.push(slot);
        }
        if self.everyone.is_empty() && self.free.len() == self.slots.len() {
            // An empty lane holds nothing for those who were there.
            *self = Self::default();
        }
    }
}

/// A group's count of members in each lane: raised when a join is appended, lowered when a leave is done.
pub(crate) type LaneCounts = Box<[AtomicU32]>;
