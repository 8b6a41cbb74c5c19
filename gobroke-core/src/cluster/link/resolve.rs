//! Where targets are: by what is remembered, or by look-ups that hold back their sender.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    outgoing::{Handed, Outgoing},
    pending::{Job, Key, Parcel, Parts, Pending, Resolving, Share, for_targets},
};
use crate::{
    ClientId, Name, Source, Target,
    cluster::{
        InstanceId,
        envelope::{Cargo, Command, Load},
    },
};

/// How long a look-up may hold back its sender.
const HELD: Duration = Duration::from_millis(500);

/// A sender that is held back: what it sent, in order, from this number on. No number is given twice, so that what waited
/// for a look-up and was given up is not taken for what waits now.
pub(super) struct Held {
    first: u64,
    pub(super) pending: VecDeque<Pending>,
}

impl Outgoing {
    /// Sends a message or a command to where its targets are; looks up those that are not remembered.
    pub(super) fn resolve(
        &mut self,
        source: &Source,
        mut resolving: Resolving,
        keys: impl IntoIterator<Item = Key>,
        share: Share,
        now: Instant,
    ) -> Handed {
        let mut missing: Vec<Key> = Vec::new();
        for key in keys {
            if !self.find(&mut resolving, &key) {
                missing.push(key);
            }
        }
        let handed = Handed {
            instances: resolving.instances(self.lines.me()) as u32,
            looked_up: missing.len() as u32,
            unknown: resolving.unknown as u32,
        };
        if missing.is_empty() && !self.held.contains_key(source) {
            let parts = self.finish(resolving);
            self.enqueue(parts, share, now);
            return handed;
        }
        let first = self.numbered;
        let held = self.held.entry(source.clone()).or_insert_with(|| Held {
            first,
            pending: VecDeque::new(),
        });
        let number = held.first + held.pending.len() as u64;
        held.pending.push_back(Pending {
            job: Job::Resolving(resolving),
            missing: missing.len(),
            since: now,
            share,
        });
        self.bytes += share.weight;
        for key in missing {
            self.want(&key);
            self.waiters
                .entry(key)
                .or_default()
                .push((source.clone(), number));
        }
        handed
    }

    /// Counts what is not sent, for want of room: once for each instance that is known, and for each target that would
    /// have to be looked up.
    pub(super) fn drop_unsent(
        &mut self,
        mut resolving: Resolving,
        keys: impl IntoIterator<Item = Key>,
    ) {
        let missing = keys
            .into_iter()
            .filter(|key| !self.find(&mut resolving, key));
        let missing = missing.count();
        self.counts.dropped += (resolving.instances(self.lines.me()) + missing) as u64;
        self.counts.unknown += resolving.unknown;
    }

    /// Finds a key in what is remembered. Says whether it is there.
    fn find(&mut self, resolving: &mut Resolving, key: &Key) -> bool {
        match key {
            _ if self.instances.is_empty() => resolving.found(key, &[]),
            Key::Client(id) => match self.routes.get(id) {
                Some(instance) => resolving.found(key, std::slice::from_ref(instance)),
                None => return false,
            },
            Key::Group(name) => match self.groups.get(name) {
                Some(instances) => resolving.found(key, instances),
                None => return false,
            },
        }
        true
    }

    /// Everything is placed: what goes where. Counts what is nowhere, and sets apart what is here after all.
    fn finish(&mut self, mut resolving: Resolving) -> Parts {
        self.counts.unknown += resolving.unknown;
        let me = self.lines.me();
        for (group, found) in std::mem::take(&mut resolving.groups) {
            let instances = self.groups.get(&group).unwrap_or(&found);
            // The members that a group has here have it already.
            for instance in instances.iter().filter(|instance| *instance != me) {
                resolving.place(Target::Group(group.clone()), instance);
            }
        }
        if let Some(index) = resolving.at.iter().position(|(at, _)| at == me) {
            let (_, targets) = resolving.at.swap_remove(index);
            let load = match resolving.load.clone() {
                Load::Message(message) => Load::Message(for_targets(message, targets)),
                command @ Load::Command { .. } => command,
            };
            self.own.push(Cargo {
                redirected: true,
                native: false,
                load,
            });
        }
        if let Load::Command {
            command: Command::Join(group),
            ..
        } = &resolving.load
        {
            for (instance, _) in &resolving.at {
                if self.groups.expect(group, instance) {
                    self.wanted.push(Key::Group(group.clone()));
                    self.asked.insert(Key::Group(group.clone()));
                }
            }
        }
        resolving.parts()
    }

    fn want(&mut self, key: &Key) {
        if self.asked.insert(key.clone()) {
            if let Key::Group(name) = key {
                self.groups.load(name);
            }
            self.wanted.push(key.clone());
        }
    }

    /// The directory says where a client is.
    pub(super) fn located(
        &mut self,
        client: ClientId,
        instance: Option<&InstanceId>,
        now: Instant,
    ) {
        let known: &[InstanceId] = instance.map_or(&[], std::slice::from_ref);
        if let Some(instance) = instance
            && instance != self.lines.me()
        {
            self.routes.insert(client, instance.clone());
        }
        self.answered(&Key::Client(client), known, now);
    }

    /// The directory says where a group has members, as it was asked in this era.
    pub(super) fn group_located(
        &mut self,
        group: &Name,
        instances: Vec<InstanceId>,
        era: u64,
        now: Instant,
    ) {
        let instances = self.groups.loaded(group, instances, era);
        self.answered(&Key::Group(group.clone()), &instances, now);
    }

    /// The directory did not answer: what somebody still waits for is to be asked again.
    pub(super) fn unanswered(&mut self, keys: Vec<Key>) {
        for key in keys {
            if self.is_awaited(&key) {
                self.wanted.push(key);
            } else {
                self.asked.remove(&key);
                if let Key::Group(group) = &key {
                    self.groups.loaded(group, Vec::new(), u64::MAX);
                }
            }
        }
    }

    /// Whether somebody still waits for a key. Who was given up meanwhile is forgotten.
    fn is_awaited(&mut self, key: &Key) -> bool {
        let Some(waiters) = self.waiters.get_mut(key) else {
            return false;
        };
        waiters.retain(|(source, number)| {
            let held = self.held.get(source);
            held.is_some_and(|held| *number >= held.first)
        });
        let is_awaited = !waiters.is_empty();
        if !is_awaited {
            self.waiters.remove(key);
        }
        is_awaited
    }

    fn answered(&mut self, key: &Key, instances: &[InstanceId], now: Instant) {
        self.asked.remove(key);
        for (source, number) in self.waiters.remove(key).unwrap_or_default() {
            let Some(held) = self.held.get_mut(&source) else {
                continue;
            };
            // What was given up meanwhile is not held any more.
            let Some(pending) = number
                .checked_sub(held.first)
                .and_then(|index| held.pending.get_mut(index as usize))
            else {
                continue;
            };
            if let Job::Resolving(resolving) = &mut pending.job {
                resolving.found(key, instances);
                pending.missing -= 1;
            }
            self.advance(&source, now);
        }
    }

    /// Sends what a held sender has, as far as nothing of it waits any more.
    fn advance(&mut self, source: &Source, now: Instant) {
        let Some(mut held) = self.held.remove(source) else {
            return;
        };
        while let Some(pending) = held.pending.front() {
            let late = self.is_up() && now.saturating_duration_since(pending.since) >= HELD;
            if pending.missing > 0 && !late {
                break;
            }
            let Some(pending) = held.pending.pop_front() else {
                break;
            };
            held.first += 1;
            self.counts.dropped += pending.missing as u64;
            let parts = match pending.job {
                Job::Ready(parts) => parts,
                Job::Resolving(resolving) => self.finish(resolving),
            };
            self.queue.push_back(Parcel {
                parts,
                share: pending.share,
            });
        }
        if held.pending.is_empty() {
            self.numbered = self.numbered.max(held.first);
        } else {
            self.held.insert(source.clone(), held);
        }
    }

    /// Gives up look-ups that took too long.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.held.is_empty() || !self.is_up() {
            return;
        }
        let late = |held: &Held| {
            let first = held.pending.front();
            first.is_some_and(|pending| now.saturating_duration_since(pending.since) >= HELD)
        };
        let late = self.held.iter().filter(|(_, held)| late(held));
        let late: Vec<Source> = late.map(|(source, _)| source.clone()).collect();
        for source in late {
            self.advance(&source, now);
        }
        if self.held.is_empty() {
            self.waiters.clear();
        }
    }

    /// A client was not where it was looked for.
    pub(super) fn not_at(&mut self, client: ClientId, instance: &InstanceId) {
        if self.routes.get(&client) == Some(instance) {
            self.routes.remove(&client);
        }
    }

    /// Something came back: it is sent once more to where the directory says, unless that was the second time.
    pub(super) fn handed_back(&mut self, from: &InstanceId, cargo: Cargo, now: Instant) {
        let clients: Vec<ClientId> = match &cargo.load {
            Load::Message(message) => message
                .targets()
                .iter()
                .filter_map(|target| match target {
                    Target::Client(client) => Some(*client),
                    _ => None,
                })
                .collect(),
            Load::Command { client, .. } => vec![*client],
        };
        for client in &clients {
            self.not_at(*client, from);
        }
        if cargo.redirected {
            self.counts.unknown += clients.len() as u64;
            return;
        }
        let weight = match &cargo.load {
            Load::Message(message) => message.weight(),
            Load::Command { .. } => size_of::<Pending>(),
        };
        let Some(share) = self.spare(weight) else {
            self.counts.dropped += clients.len() as u64;
            return;
        };
        self.counts.redirected += clients.len() as u64;
        let resolving = Resolving {
            redirected: true,
            not_at: Some(from.clone()),
            ..Resolving::new(cargo.load)
        };
        let source = resolving.load.source().clone();
        let keys = clients.into_iter().map(Key::Client);
        self.resolve(&source, resolving, keys, share, now);
    }
}
