//! [`Registrar`]: tells the directory what changes here, in batches, one at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    Local, Share, Shared,
    record::{Ledger, Next},
};
use crate::{
    ClientId, ClientInfo, Metadata, Name,
    cluster::{Came, Registered, Registration, To, envelope::Content},
};

/// How often last-message times are written.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long it waits after a write that failed.
const AGAIN: Duration = Duration::from_millis(100);

/// What the router tells of its clients and groups, on its way to the directory.
///
/// The router tells it under its own locks; so nothing here reaches into the router while it holds the ledger.
#[derive(Default)]
pub(super) struct Registrar {
    ledger: Mutex<Ledger>,
    changed: Notify,
    failed: AtomicU64,
}

impl Registrar {
    /// How many writes failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    pub(super) fn client_came(&self, info: ClientInfo, epoch: u64) {
        self.change(|ledger| ledger.came(info, epoch));
    }

    pub(super) fn client_went(&self, client: ClientId, epoch: u64) {
        self.change(|ledger| ledger.went(client, epoch));
    }

    pub(super) fn metadata_changed(&self, client: ClientId, epoch: u64, metadata: Arc<Metadata>) {
        self.change(|ledger| ledger.metadata_changed(client, epoch, metadata));
    }

    /// A client joined a group, or left it.
    pub(super) fn moved(&self, client: ClientId, epoch: u64, group: &Name, joined: bool) {
        self.change(|ledger| ledger.moved(client, epoch, group, joined));
    }

    pub(super) fn group_changed(&self, group: &Name) {
        self.change(|ledger| ledger.group_changed(group));
    }

    /// The directory has to be given everything.
    pub(super) fn write_all(&self) {
        self.change(Ledger::write_all);
    }

    /// The directory can be reached again.
    pub(super) fn retry(&self) {
        self.changed.notify_one();
    }

    /// A client registered elsewhere.
    pub(super) fn replaced(&self, local: &dyn Local, client: ClientId, newer: Registration) {
        let replaced = self.ledger.lock().replaced(client, newer);
        if let Some(epoch) = replaced {
            local.replaced(client, epoch);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Ledger)) {
        change(&mut self.ledger.lock());
        self.changed.notify_one();
    }
}

/// Writes as soon as something changed and the last batch is written; last-message times once a second.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Last-message times up to here have been taken.
    let mut heard = 0;
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
            let times = local.heard_since(heard);
            heard = times.iter().map(|(_, time)| *time).fold(heard, u64::max);
            shared.registrar.ledger.lock().heard(times);
        }
        while shared.write(&*local).await {}
    }
}

impl Shared {
    /// Writes what there is to write. Says whether there may be more, and the directory takes it.
    async fn write(&self, local: &dyn Local) -> bool {
        let carrier = self.lock().carrier.clone();
        let registrar = &self.registrar;
        let next = registrar
            .ledger
            .lock()
            .next(|group| local.has_members(group));
        let (clients, epochs, note, answer) = match next {
            Next::Nothing => return false,
            Next::Changes(changes, epochs) => {
                let answer = carrier.write(&changes).await;
                if answer.is_ok() {
                    registrar.ledger.lock().groups_written(&changes);
                }
                let gained = changes.groups_gained;
                let note = (!gained.is_empty()).then_some(Content::Gained(gained));
                (ids(&changes.came), epochs, note, answer)
            }
            Next::Whole => {
                let (clients, groups) = (local.snapshot(), local.groups());
                let (record, epochs) = registrar.ledger.lock().whole(clients, groups);
                let answer = carrier.replace(&record).await;
                (ids(&record.clients), epochs, Some(Content::Forget), answer)
            }
        };
        match answer {
            Ok(answer) if answer.len() == clients.len() => {
                let registered = clients.into_iter().zip(epochs).zip(answer);
                self.written(local, registered, note);
                true
            }
            failed => {
                tracing::warn!(instance = %self.name, ?failed, "the directory was not written; it is given everything again");
                registrar.failed.fetch_add(1, Relaxed);
                registrar.ledger.lock().write_all();
                sleep(AGAIN).await;
                registrar.changed.notify_one();
                false
            }
        }
    }

    /// Tells who has to be told of what was written: replaced sessions, and who remembers groups.
    fn written(
        &self,
        local: &dyn Local,
        registered: impl Iterator<Item = ((ClientId, u64), Registered)>,
        note: Option<Content>,
    ) {
        let mut notes: Vec<_> = note.map(|note| (To::All, note)).into_iter().collect();
        let mut replaced = Vec::new();
        {
            let mut ledger = self.registrar.ledger.lock();
            for ((client, epoch), answer) in registered {
                let told = ledger.registered(client, epoch, &answer);
                if told.replaced {
                    replaced.push((client, epoch));
                }
                if let Some((instance, registration)) = told.elsewhere {
                    let content = Content::Replaced {
                        client,
                        registration,
                    };
                    notes.push((To::Instance(instance), content));
                }
            }
        }
        for (client, epoch) in replaced {
            local.replaced(client, epoch);
        }
        if notes.is_empty() {
            return;
        }
        let mut outgoing = self.lock();
        let me = To::Instance(outgoing.lines.me().clone());
        for (to, content) in notes.into_iter().filter(|(to, _)| *to != me) {
            // Notes are few and small: they take room past the bound rather than be lost.
            outgoing.note(to, content, Share::default());
        }
        outgoing.flush(Instant::now());
        self.wake(&outgoing);
    }
}

fn ids(came: &[Came]) -> Vec<ClientId> {
    came.iter().map(|came| came.info.id).collect()
}
