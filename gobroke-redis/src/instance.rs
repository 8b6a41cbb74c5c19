//! [`Instance`]: one incarnation of an instance, as the tasks that keep it in the cluster share it.

use std::{collections::HashMap, sync::Arc};

use gobroke_core::{
    Name,
    cluster::{ClusterError, Inbox, InstanceId},
};
use parking_lot::Mutex;
use redis::RedisError;
use tokio::{sync::Notify, time::Instant};

use crate::{
    carrier::{Queue, ReplayGuard},
    commands::Commands,
    config::Config,
    error::meaning,
    keys::{self, Keys},
    roster::Roster,
    servers::Servers,
    stats::Counters,
};

pub(crate) struct Instance {
    pub(crate) config: Arc<Config>,
    pub(crate) servers: Servers,
    pub(crate) keys: Arc<Keys>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) id: InstanceId,
    /// The id as it is written.
    pub(crate) written: String,
    pub(crate) inbox: Inbox,
    started: Instant,
    pub(crate) queue: Queue,
    pub(crate) replays: Mutex<ReplayGuard>,
    pub(crate) roster: Mutex<Roster>,
    pub(crate) standing: Mutex<Standing>,
    /// What commands go over, while there is a connection.
    pub(crate) commands: Mutex<Option<Commands>>,
    /// What leases of logic modules are claimed over, and whose turn it is: one waits for replicas at a time.
    pub(crate) claims: Mutex<Option<Commands>>,
    pub(crate) claiming: tokio::sync::Mutex<()>,
    /// A heartbeat is wanted at once.
    pub(crate) beat: Notify,
}

/// What this instance knows to be written.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// The epoch of the data; empty until the first heartbeat.
    pub(crate) epoch: String,
    /// The version of the list of instances that the roster has.
    pub(crate) version: u64,
    /// The highest version of the list that was seen: a lower one may mean that the data is older.
    pub(crate) seen: u64,
    /// Since when heartbeats have been answered over the connections that there are.
    pub(crate) since: Option<Instant>,
    /// The leases of logic modules as they were stored, and since when they have been so.
    pub(crate) leases: HashMap<Name, (String, Instant)>,
    /// The number of the last batch that was sent, and of the last that was confirmed.
    pub(crate) issued: u64,
    pub(crate) confirmed: u64,
    /// Core was told that the directory is out of step, and has not written everything since.
    pub(crate) told: bool,
}

impl Standing {
    /// A lease is stored like this.
    pub(crate) fn saw(&mut self, logic: &Name, stored: String) {
        match self.leases.get(logic) {
            Some((known, _)) if *known == stored => {}
            _ => drop(self.leases.insert(logic.clone(), (stored, Instant::now()))),
        }
    }
}

impl Instance {
    pub(crate) fn new(
        config: Arc<Config>,
        servers: Servers,
        counters: Arc<Counters>,
        id: InstanceId,
        inbox: Inbox,
    ) -> Self {
        let keys = Arc::new(match servers.are_sharded() {
            true => Keys::sharded(&config.namespace),
            false => Keys::new(&config.namespace),
        });
        Self {
            queue: Queue::new(keys.clone(), &id, config.queue, config.seal.clone()),
            replays: Mutex::default(),
            written: keys::instance(&id),
            config,
            servers,
            keys,
            counters,
            id,
            inbox,
            started: Instant::now(),
            roster: Mutex::default(),
            standing: Mutex::default(),
            commands: Mutex::default(),
            claims: Mutex::default(),
            claiming: tokio::sync::Mutex::default(),
            beat: Notify::new(),
        }
    }

    /// Whether a heartbeat of it was ever answered.
    pub(crate) fn has_joined(&self) -> bool {
        !self.standing.lock().epoch.is_empty()
    }

    /// Whether it started before the incarnation of this number was drawn, `now` being the time by the same clock, in µs.
    /// One that lies ahead of that clock was not drawn by it.
    pub(crate) fn is_older_than(&self, number: u64, now: u64) -> bool {
        let age = self.started.elapsed().as_micros() as u64;
        (now.saturating_sub(age)..=now).contains(&number)
    }

    /// What commands go over.
    pub(crate) fn commands(&self) -> Result<Commands, ClusterError> {
        self.commands.lock().clone().ok_or_else(away)
    }

    /// What leases of logic modules are claimed over.
    pub(crate) fn claims(&self) -> Result<Commands, ClusterError> {
        self.claims.lock().clone().ok_or_else(away)
    }

    /// Whether what was read, in this epoch, is what was written. Where it is not, the heartbeat that finds that out and
    /// has everything written again goes at once.
    pub(crate) fn is_whole(&self, epoch: Option<&str>) -> bool {
        let whole = epoch == Some(&*self.standing.lock().epoch);
        if !whole {
            self.beat.notify_one();
        }
        whole
    }

    /// A command failed: what that means, and whoever can mend it is told.
    pub(crate) fn failed(&self, what: &str, error: &RedisError) -> ClusterError {
        let error = meaning(what, error);
        if matches!(error, ClusterError::OutOfStep | ClusterError::Expelled) {
            self.beat.notify_one();
        }
        error
    }
}

fn away() -> ClusterError {
    ClusterError::Unreachable("there is no connection to Redis now".to_owned())
}
