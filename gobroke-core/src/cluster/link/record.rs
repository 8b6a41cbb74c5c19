//! [`Ledger`]: what the directory has of this instance, and what it has to be told.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use crate::{
    ClientId, ClientInfo, Metadata, Name,
    cluster::{Came, Changed, Changes, InstanceId, Record, Registered, Registration},
};

/// How many clients one batch writes about.
const BATCH: usize = 1024;
/// How many clients that went, and groups that changed, are remembered while the directory cannot be told; beyond,
/// all is written again.
const REMEMBERED: usize = 16_384;

/// The clients of this instance as the directory has them, and what has changed since.
///
/// It grows with the clients of this instance alone, and does no I/O: batches are taken out, and answers put in.
#[derive(Default)]
pub(super) struct Ledger {
    here: HashMap<ClientId, Here>,
    /// Those of them that there is something to tell of.
    queue: VecDeque<ClientId>,
    went: Vec<(ClientId, Registration)>,
    groups: HashSet<Name>,
    /// The groups that the directory has with this instance.
    groups_written: HashSet<Name>,
    /// Everything has to be written.
    whole: bool,
}

/// A client of this instance.
struct Here {
    epoch: u64,
    standing: Standing,
    /// A newer registration elsewhere, of which this instance was told before it knew its own.
    newer: Option<Registration>,
    change: Change,
    queued: bool,
}

enum Standing {
    /// Not written yet.
    New(Box<ClientInfo>),
    /// Being written, with the registration that it had before, where it had one.
    Writing {
        before: Option<Registration>,
        gone: bool,
    },
    Written(Registration),
    /// Replaced by a newer session on another instance: the directory has nothing of this one any more.
    Elsewhere,
}

/// What changed of a client that is written already: whole new values, so that telling it twice changes nothing.
#[derive(Default)]
struct Change {
    metadata: Option<Arc<Metadata>>,
    left: Vec<Name>,
    joined: Vec<Name>,
    last_message: Option<u64>,
}

/// What is to be written next.
pub(super) enum Next {
    Nothing,
    /// What changed, and the epochs of the clients that came.
    Changes(Box<Changes>, Vec<u64>),
    /// Everything: to be taken from the router, which is [`Ledger::whole`]'s second half.
    Whole,
}

/// Who has to be told of a registration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The session here is replaced.
    pub(super) replaced: bool,
    /// The session there is, by this registration.
    pub(super) elsewhere: Option<(InstanceId, Registration)>,
}

impl Here {
    fn new(epoch: u64, standing: Standing) -> Self {
        Self {
            epoch,
            standing,
            newer: None,
            change: Change::default(),
            queued: false,
        }
    }
}

impl Ledger {
    /// A client came, in a session of this epoch.
    pub(super) fn came(&mut self, info: ClientInfo, epoch: u64) {
        let client = info.id;
        let known = self.here.get(&client);
        if known.is_none_or(|known| known.epoch < epoch) {
            let here = Here::new(epoch, Standing::New(Box::new(info)));
            self.here.insert(client, here);
            self.enqueue(client);
        }
    }

    /// A session is gone; one that is not the client's latest changes nothing.
    pub(super) fn went(&mut self, client: ClientId, epoch: u64) {
        let Some(here) = self.session(client, epoch) else {
            return;
        };
        match &mut here.standing {
            Standing::Writing { gone, .. } => *gone = true,
            Standing::New(_) | Standing::Elsewhere => {
                self.here.remove(&client);
            }
            Standing::Written(registration) => {
                let registration = *registration;
                self.here.remove(&client);
                self.gone(client, registration);
            }
        }
    }

    pub(super) fn metadata_changed(
        &mut self,
        client: ClientId,
        epoch: u64,
        metadata: Arc<Metadata>,
    ) {
        let Some(here) = self.session(client, epoch) else {
            return;
        };
        match &mut here.standing {
            Standing::New(info) => info.metadata = metadata,
            _ => here.change.metadata = Some(metadata),
        }
        self.enqueue(client);
    }

    /// A client joined a group, or left it.
    pub(super) fn moved(&mut self, client: ClientId, epoch: u64, group: &Name, joined: bool) {
        let Some(here) = self.session(client, epoch) else {
            return;
        };
        match &mut here.standing {
            Standing::New(info) => {
                info.groups.retain(|known| known != group);
                if joined {
                    info.groups.push(group.clone());
                }
            }
            _ => {
                let Change {
                    left, joined: into, ..
                } = &mut here.change;
                left.retain(|known| known != group);
                into.retain(|known| known != group);
                (if joined { into } else { left }).push(group.clone());
            }
        }
        self.enqueue(client);
    }

    /// When clients were heard last, in milliseconds since 1970.
    pub(super) fn heard(&mut self, heard: Vec<(ClientId, u64)>) {
        for (client, time) in heard {
            let Some(here) = self.here.get_mut(&client) else {
                continue;
            };
            match &mut here.standing {
                Standing::New(info) => info.last_message = time,
                _ => here.change.last_message = Some(time),
            }
            self.enqueue(client);
        }
    }

    /// A group has its first member, or none any more.
    pub(super) fn group_changed(&mut self, group: &Name) {
        if self.whole {
            return;
        }
        self.groups.insert(group.clone());
        self.bound();
    }

    /// The directory has to be given everything.
    pub(super) fn write_all(&mut self) {
        self.whole = true;
    }

    /// A client registered elsewhere. Gives the epoch of the session that is thereby replaced.
    pub(super) fn replaced(&mut self, client: ClientId, newer: Registration) -> Option<u64> {
        let here = self.here.get_mut(&client)?;
        match here.standing {
            Standing::Written(registration) if registration < newer => {
                here.standing = Standing::Elsewhere;
                Some(here.epoch)
            }
            Standing::Writing { .. } => {
                here.newer = here.newer.max(Some(newer));
                None
            }
            _ => None,
        }
    }

    /// Takes what is to be written next; `has_members` says whether a group has.
    pub(super) fn next(&mut self, has_members: impl Fn(&Name) -> bool) -> Next {
        if self.whole {
            self.begin_whole();
            return Next::Whole;
        }
        let mut changes = Changes {
            went: std::mem::take(&mut self.went),
            ..Changes::default()
        };
        let mut epochs = Vec::new();
        for _ in 0..BATCH.min(self.queue.len()) {
            if let Some(client) = self.queue.pop_front() {
                self.take(client, &mut changes, &mut epochs);
            }
        }
        for group in self.groups.drain() {
            // Whether it has members now; should that change meanwhile, the change is told again.
            match (has_members(&group), self.groups_written.contains(&group)) {
                (true, false) => changes.groups_gained.push(group),
                (false, true) => changes.groups_lost.push(group),
                _ => {}
            }
        }
        if changes == Changes::default() {
            return Next::Nothing;
        }
        Next::Changes(Box::new(changes), epochs)
    }

    /// Takes what is to be told of one client.
    fn take(&mut self, client: ClientId, changes: &mut Changes, epochs: &mut Vec<u64>) {
        let Some(here) = self.here.get_mut(&client).filter(|here| here.queued) else {
            return;
        };
        here.queued = false;
        match &here.standing {
            Standing::New(_) => {
                let writing = Standing::Writing {
                    before: None,
                    gone: false,
                };
                if let Standing::New(info) = std::mem::replace(&mut here.standing, writing) {
                    changes.came.push(Came {
                        info: *info,
                        registration: None,
                    });
                    epochs.push(here.epoch);
                }
            }
            Standing::Written(registration) => {
                let registration = *registration;
                let change = std::mem::take(&mut here.change);
                changes
                    .changed
                    .push(change.into_changed(client, registration));
            }
            // Nothing is told of a client whose registration is not known: its answer puts it into the queue again.
            Standing::Writing { .. } | Standing::Elsewhere => {}
        }
    }

    /// From here on, what changes is told after the whole record, whether or not that has it already.
    fn begin_whole(&mut self) {
        self.whole = false;
        self.went.clear();
        self.queue.clear();
        self.groups.clear();
        for here in self.here.values_mut() {
            here.queued = false;
            here.change = Change::default();
            let before = match here.standing {
                Standing::Written(registration) => Some(registration),
                Standing::Writing {
                    before,
                    gone: false,
                } => before,
                Standing::New(_) => None,
                Standing::Writing { gone: true, .. } | Standing::Elsewhere => continue,
            };
            here.standing = Standing::Writing {
                before,
                gone: false,
            };
        }
    }

    /// Makes the whole record of what the router has. Gives the epochs of its clients, too.
    pub(super) fn whole(
        &mut self,
        clients: Vec<(ClientInfo, u64)>,
        groups: Vec<Name>,
    ) -> (Record, Vec<u64>) {
        let mut record = Record {
            groups,
            ..Record::default()
        };
        let mut epochs = Vec::new();
        let mut there = HashSet::new();
        for (info, epoch) in clients {
            there.insert(info.id);
            let here = self.here.entry(info.id).or_insert_with(|| {
                let standing = Standing::Writing {
                    before: None,
                    gone: false,
                };
                Here::new(epoch, standing)
            });
            match here.standing {
                Standing::Writing {
                    before,
                    gone: false,
                } if here.epoch == epoch => {
                    record.clients.push(Came {
                        info,
                        registration: before,
                    });
                    epochs.push(epoch);
                }
                // It came or went since, or is elsewhere: that is told, or has been.
                _ => {}
            }
        }
        self.here.retain(|client, here| {
            there.contains(client) || !matches!(here.standing, Standing::Writing { .. })
        });
        self.groups_written = record.groups.iter().cloned().collect();
        (record, epochs)
    }

    /// The changes have been written, as far as groups are concerned.
    pub(super) fn groups_written(&mut self, changes: &Changes) {
        let gained = changes.groups_gained.iter().cloned();
        self.groups_written.extend(gained);
        for group in &changes.groups_lost {
            self.groups_written.remove(group);
        }
    }

    /// What became of a client that came.
    pub(super) fn registered(&mut self, client: ClientId, epoch: u64, answer: &Registered) -> Told {
        let mut told = Told::default();
        if let Registered::Here {
            registration,
            replaced,
        } = answer
        {
            let elsewhere = replaced.clone();
            told.elsewhere = elsewhere.map(|instance| (instance, *registration));
        }
        // Where a newer session of the same client is here already, that registers itself.
        let Some(here) = self.session(client, epoch) else {
            return told;
        };
        let Standing::Writing { gone, .. } = here.standing else {
            return told;
        };
        match answer {
            Registered::Here { registration, .. } if gone => {
                self.here.remove(&client);
                self.gone(client, *registration);
            }
            Registered::Elsewhere { .. } if gone => {
                self.here.remove(&client);
            }
            Registered::Here { registration, .. }
                if here.newer.is_none_or(|newer| newer <= *registration) =>
            {
                here.standing = Standing::Written(*registration);
                if here.change.is_some() {
                    self.enqueue(client);
                }
            }
            _ => {
                here.standing = Standing::Elsewhere;
                told.replaced = true;
            }
        }
        told
    }

    fn session(&mut self, client: ClientId, epoch: u64) -> Option<&mut Here> {
        self.here
            .get_mut(&client)
            .filter(|here| here.epoch == epoch)
    }

    fn enqueue(&mut self, client: ClientId) {
        if let Some(here) = self.here.get_mut(&client)
            && !std::mem::replace(&mut here.queued, true)
        {
            self.queue.push_back(client);
        }
    }

    fn gone(&mut self, client: ClientId, registration: Registration) {
        if !self.whole {
            self.went.push((client, registration));
            self.bound();
        }
    }

    fn bound(&mut self) {
        if self.went.len() + self.groups.len() > REMEMBERED {
            self.whole = true;
            self.went = Vec::new();
            self.groups = HashSet::new();
        }
    }
}

impl Change {
    fn is_some(&self) -> bool {
        self.metadata.is_some()
            || self.last_message.is_some()
            || !self.left.is_empty()
            || !self.joined.is_empty()
    }

    fn into_changed(self, client: ClientId, registration: Registration) -> Changed {
        let Self {
            metadata,
            left,
            joined,
            last_message,
        } = self;
        Changed {
            client,
            registration,
            metadata,
            left,
            joined,
            last_message,
        }
    }
}

#[cfg(test)]
mod tests;
