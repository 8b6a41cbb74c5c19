//! [`Registrar`]: what the directory has to be told of this instance, and the task that tells it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Local, Shared};
use crate::{
    ClientId, ClientInfo, Metadata, Name,
    cluster::{
        Came, Changed, Changes, InstanceId, Record, Registered, Registration, To, envelope::Content,
    },
};

/// How many clients one batch writes about.
const BATCH: usize = 1024;
/// How often last-message times are written; and how long it waits until it writes again what failed.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many clients that went are remembered while the directory cannot be told; beyond, all is written again.
const WENT: usize = 16_384;

/// What the directory has to be told. Kept for each client of this instance, written in batches.
#[derive(Default)]
pub(super) struct Registrar {
    state: Mutex<State>,
    changed: Notify,
    failed: AtomicU64,
}

#[derive(Default)]
struct State {
    here: HashMap<ClientId, Here>,
    /// Those of them that there is something to tell of.
    queue: VecDeque<ClientId>,
    went: Vec<(ClientId, Registration)>,
    groups: HashSet<Name>,
    /// The groups that the directory has with this instance.
    groups_written: HashSet<Name>,
    /// Everything has to be written.
    whole: bool,
    /// Last-message times up to here have been written, in milliseconds since 1970.
    heard: u64,
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

/// What changed of a client that is written already.
#[derive(Default)]
struct Change {
    metadata: Option<Arc<Metadata>>,
    left: Vec<Name>,
    joined: Vec<Name>,
    last_message: Option<u64>,
}

impl Registrar {
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    pub(super) fn client_came(&self, info: ClientInfo, epoch: u64) {
        let client = info.id;
        let here = Here {
            epoch,
            standing: Standing::New(Box::new(info)),
            newer: None,
            change: Change::default(),
            queued: false,
        };
        let mut state = self.state.lock();
        if state
            .here
            .get(&client)
            .is_some_and(|known| known.epoch > epoch)
        {
            return;
        }
        let queued = state
            .here
            .insert(client, here)
            .is_some_and(|older| older.queued);
        state.queue(client, queued);
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn client_went(&self, client: ClientId, epoch: u64) {
        let mut state = self.state.lock();
        let Some(here) = state
            .here
            .get_mut(&client)
            .filter(|here| here.epoch == epoch)
        else {
            return;
        };
        match &mut here.standing {
            Standing::Writing { gone, .. } => *gone = true,
            Standing::New(_) | Standing::Elsewhere => {
                state.here.remove(&client);
            }
            Standing::Written(registration) => {
                let registration = *registration;
                state.here.remove(&client);
                state.gone(client, registration);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn metadata_changed(&self, client: ClientId, epoch: u64, metadata: Arc<Metadata>) {
        self.change(client, epoch, |here| match &mut here.standing {
            Standing::New(info) => info.metadata = metadata,
            _ => here.change.metadata = Some(metadata),
        });
    }

    /// A client joined a group, or left it.
    pub(super) fn moved(&self, client: ClientId, epoch: u64, group: &Name, joined: bool) {
        self.change(client, epoch, |here| match &mut here.standing {
            Standing::New(info) => {
                info.groups.retain(|known| known != group);
                if joined {
                    info.groups.push(group.clone());
                }
            }
            _ => {
                let change = &mut here.change;
                change.left.retain(|known| known != group);
                change.joined.retain(|known| known != group);
                let list = if joined {
                    &mut change.joined
                } else {
                    &mut change.left
                };
                list.push(group.clone());
            }
        });
    }

    pub(super) fn group_changed(&self, group: &Name) {
        self.state.lock().groups.insert(group.clone());
        self.changed.notify_one();
    }

    fn change(&self, client: ClientId, epoch: u64, change: impl FnOnce(&mut Here)) {
        let mut state = self.state.lock();
        let Some(here) = state
            .here
            .get_mut(&client)
            .filter(|here| here.epoch == epoch)
        else {
            return;
        };
        change(here);
        let queued = here.queued;
        state.queue(client, queued);
        drop(state);
        self.changed.notify_one();
    }

    /// The directory has to be given everything.
    pub(super) fn write_all(&self) {
        self.state.lock().whole = true;
        self.changed.notify_one();
    }

    /// The directory can be reached again.
    pub(super) fn retry(&self) {
        self.changed.notify_one();
    }

    /// A client registered elsewhere.
    pub(super) fn replaced(&self, local: &dyn Local, client: ClientId, newer: Registration) {
        let mut state = self.state.lock();
        let Some(here) = state.here.get_mut(&client) else {
            return;
        };
        match here.standing {
            Standing::Written(registration) if registration < newer => {
                here.standing = Standing::Elsewhere;
                let epoch = here.epoch;
                drop(state);
                local.replaced(client, epoch);
            }
            Standing::Writing { .. } => here.newer = here.newer.max(Some(newer)),
            _ => {}
        }
    }
}

impl State {
    fn queue(&mut self, client: ClientId, queued: bool) {
        if let Some(here) = self.here.get_mut(&client) {
            here.queued = true;
        }
        if !queued {
            self.queue.push_back(client);
        }
    }

    fn gone(&mut self, client: ClientId, registration: Registration) {
        if self.whole {
            return;
        }
        self.went.push((client, registration));
        if self.went.len() > WENT {
            self.whole = true;
            self.went.clear();
        }
    }

    /// Takes what is to be written next; `None` where that is nothing. The epochs are those of the clients that came.
    fn take(&mut self, local: &dyn Local) -> Option<(Changes, Vec<u64>)> {
        let mut changes = Changes {
            went: std::mem::take(&mut self.went),
            ..Changes::default()
        };
        let mut epochs = Vec::new();
        let mut later = Vec::new();
        for _ in 0..BATCH.min(self.queue.len()) {
            let Some(client) = self.queue.pop_front() else {
                break;
            };
            let Some(here) = self.here.get_mut(&client) else {
                continue;
            };
            here.queued = false;
            let standing = Standing::Writing {
                before: None,
                gone: false,
            };
            match std::mem::replace(&mut here.standing, standing) {
                Standing::New(info) => {
                    changes.came.push(Came {
                        info: *info,
                        registration: None,
                    });
                    epochs.push(here.epoch);
                }
                Standing::Written(registration) => {
                    here.standing = Standing::Written(registration);
                    let change = std::mem::take(&mut here.change);
                    changes
                        .changed
                        .push(change.into_changed(client, registration));
                }
                standing @ Standing::Writing { .. } => {
                    here.standing = standing;
                    later.push(client);
                }
                Standing::Elsewhere => here.standing = Standing::Elsewhere,
            }
        }
        for client in later {
            self.queue(client, false);
        }
        for group in self.groups.drain() {
            // Whether it has members now; should that change meanwhile, the change is told again.
            match (
                local.has_members(&group),
                self.groups_written.contains(&group),
            ) {
                (true, false) => changes.groups_gained.push(group),
                (false, true) => changes.groups_lost.push(group),
                _ => {}
            }
        }
        (changes != Changes::default()).then_some((changes, epochs))
    }

    /// Takes everything, as the router has it.
    fn take_whole(&mut self, local: &dyn Local) -> (Record, Vec<u64>) {
        self.whole = false;
        self.went.clear();
        self.queue.clear();
        self.groups.clear();
        let mut record = Record {
            groups: local.groups(),
            ..Record::default()
        };
        let mut epochs = Vec::new();
        let mut here = HashMap::new();
        for (info, epoch) in local.snapshot() {
            let client = info.id;
            let known = self
                .here
                .remove(&client)
                .filter(|known| known.epoch == epoch);
            let (before, newer) = match &known {
                Some(Here {
                    standing: Standing::Elsewhere,
                    ..
                }) => {
                    here.extend(known.map(|known| (client, known)));
                    continue;
                }
                Some(known) => (known.registration(), known.newer),
                None => (None, None),
            };
            record.clients.push(Came {
                info,
                registration: before,
            });
            epochs.push(epoch);
            let standing = Standing::Writing {
                before,
                gone: false,
            };
            here.insert(
                client,
                Here {
                    epoch,
                    standing,
                    newer,
                    change: Change::default(),
                    queued: false,
                },
            );
        }
        // Of those that the snapshot does not have, the ones that came since are still to be told of.
        for (client, known) in std::mem::take(&mut self.here) {
            if let Standing::New(_) = known.standing {
                here.insert(client, known);
                self.queue.push_back(client);
            }
        }
        self.here = here;
        self.groups_written = record.groups.iter().cloned().collect();
        (record, epochs)
    }

    /// What became of a client that came. Gives back what others, or the router, have to be told.
    fn registered(&mut self, client: ClientId, epoch: u64, answer: &Registered) -> Told {
        let mut told = Told::default();
        let Some(here) = self
            .here
            .get_mut(&client)
            .filter(|here| here.epoch == epoch)
        else {
            // A newer session of the same client is here already, and registers itself.
            return told;
        };
        let Standing::Writing { gone, .. } = here.standing else {
            return told;
        };
        match answer {
            Registered::Here {
                registration,
                replaced,
            } => {
                told.elsewhere = replaced.clone().map(|instance| (instance, *registration));
                if gone {
                    self.here.remove(&client);
                    self.gone(client, *registration);
                } else if here.newer.is_some_and(|newer| newer > *registration) {
                    here.standing = Standing::Elsewhere;
                    told.replaced = true;
                } else {
                    here.standing = Standing::Written(*registration);
                }
            }
            Registered::Elsewhere { .. } if gone => {
                self.here.remove(&client);
            }
            Registered::Elsewhere { .. } => {
                here.standing = Standing::Elsewhere;
                told.replaced = true;
            }
        }
        told
    }
}

impl Here {
    fn registration(&self) -> Option<Registration> {
        match self.standing {
            Standing::Written(registration) => Some(registration),
            Standing::Writing { before, .. } => before,
            Standing::New(_) | Standing::Elsewhere => None,
        }
    }
}

impl Change {
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

/// Who has to be told of a registration.
#[derive(Default)]
struct Told {
    /// The session here is replaced.
    replaced: bool,
    /// The session there is, by this registration.
    elsewhere: Option<(InstanceId, Registration)>,
}

pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ticked = tokio::select! {
            () = shared.registrar.changed.notified() => false,
            _ = ticks.tick() => true,
        };
        let Some(local) = shared.local.upgrade() else {
            return;
        };
        if !shared.lock().is_up() {
            continue;
        }
        if ticked {
            shared.registrar.hear(&*local);
        }
        while shared.write(&*local).await {}
    }
}

impl Registrar {
    /// Notes the last-message times that changed.
    fn hear(&self, local: &dyn Local) {
        let since = self.state.lock().heard;
        let heard = local.heard_since(since);
        let mut state = self.state.lock();
        for (client, time) in heard {
            state.heard = state.heard.max(time);
            let Some(here) = state.here.get_mut(&client) else {
                continue;
            };
            match &mut here.standing {
                Standing::New(info) => info.last_message = time,
                _ => here.change.last_message = Some(time),
            }
            let queued = here.queued;
            state.queue(client, queued);
        }
    }
}

impl Shared {
    /// Writes what there is to write. Says whether there is more, and the directory takes it.
    async fn write(&self, local: &dyn Local) -> bool {
        let carrier = self.lock().carrier.clone();
        let whole = self.registrar.state.lock().whole;
        let (clients, epochs, gained, answer) = if whole {
            let (record, epochs) = self.registrar.state.lock().take_whole(local);
            let answer = timeout(PATIENCE, carrier.replace(&record)).await;
            (ids(&record.clients), epochs, None, answer)
        } else {
            let Some((changes, epochs)) = self.registrar.state.lock().take(local) else {
                return false;
            };
            let answer = timeout(PATIENCE, carrier.write(&changes)).await;
            if let Ok(Ok(_)) = answer {
                let mut state = self.registrar.state.lock();
                state
                    .groups_written
                    .extend(changes.groups_gained.iter().cloned());
                for group in &changes.groups_lost {
                    state.groups_written.remove(group);
                }
            }
            (
                ids(&changes.came),
                epochs,
                Some(changes.groups_gained),
                answer,
            )
        };
        let answer = match answer {
            Ok(Ok(answer)) if answer.len() == clients.len() => answer,
            failed => {
                tracing::warn!(instance = %self.name, ?failed, "the directory was not written; all of it is written again");
                self.registrar.failed.fetch_add(1, Relaxed);
                self.registrar.state.lock().whole = true;
                return false;
            }
        };
        self.written(local, clients.into_iter().zip(epochs).zip(answer), gained);
        true
    }

    /// Tells who has to be told of what was written.
    fn written(
        &self,
        local: &dyn Local,
        registered: impl Iterator<Item = ((ClientId, u64), Registered)>,
        gained: Option<Vec<Name>>,
    ) {
        let mut notes = Vec::new();
        let mut replaced = Vec::new();
        {
            let mut state = self.registrar.state.lock();
            for ((client, epoch), answer) in registered {
                let told = state.registered(client, epoch, &answer);
                if told.replaced {
                    replaced.push((client, epoch));
                }
                if let Some((instance, registration)) = told.elsewhere {
                    notes.push((
                        To::Instance(instance),
                        Content::Replaced {
                            client,
                            registration,
                        },
                    ));
                }
            }
        }
        for (client, epoch) in replaced {
            local.replaced(client, epoch);
        }
        match gained {
            Some(groups) if groups.is_empty() => {}
            Some(groups) => notes.push((To::All, Content::Gained(groups))),
            None => notes.push((To::All, Content::Forget)),
        }
        if notes.is_empty() {
            return;
        }
        let mut outgoing = self.lock();
        let me = outgoing.lines.me().clone();
        for (to, content) in notes {
            if to != To::Instance(me.clone()) {
                // Notes are few and small: they take room past the bound rather than be lost.
                outgoing.note(to, content, super::Share::default());
            }
        }
        outgoing.flush(tokio::time::Instant::now());
        self.wake(&outgoing);
    }
}

fn ids(came: &[Came]) -> Vec<ClientId> {
    came.iter().map(|came| came.info.id).collect()
}
