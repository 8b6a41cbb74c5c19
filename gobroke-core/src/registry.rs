//! Who is here: clients by id, groups by name.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use dashmap::DashMap;
use serde_json::Value;

use crate::{ClientId, Name, client::ClientShared, delivery::members::LaneCounts};

/// The clients and groups of this instance.
#[derive(Default)]
pub(crate) struct Registry {
    clients: DashMap<ClientId, Arc<ClientShared>, RandomState>,
    /// Sessions whose client has a newer one, until they are gone: who watches and closes sessions sees them too.
    replaced: DashMap<u64, Arc<ClientShared>, RandomState>,
    groups: DashMap<Name, Arc<Group>, RandomState>,
    next_group: AtomicU64,
    next_epoch: AtomicU64,
}

/// A group: its name, and how many members it has in each lane, so that what is sent to ten members touches ten lanes
/// at the most, and a receipt can count.
pub(crate) struct Group {
    pub(crate) id: u64,
    pub(crate) name: Name,
    pub(crate) counts: LaneCounts,
}

impl Group {
    /// How many members it has here.
    pub(crate) fn total(&self) -> u32 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }
}

impl Registry {
    pub(crate) fn next_epoch(&self) -> u64 {
        self.next_epoch.fetch_add(1, Relaxed) + 1
    }

    /// Shows a client; gives back the older session of the same id, which it replaces.
    pub(crate) fn insert(&self, client: Arc<ClientShared>) -> Option<Arc<ClientShared>> {
        match self.clients.entry(client.id) {
            dashmap::Entry::Vacant(place) => {
                place.insert(client);
                None
            }
            dashmap::Entry::Occupied(mut shown) => {
                let older = shown.insert(client);
                // Under the entry's lock, as the removal below: it finds the session in one of the two.
                self.replaced.insert(older.epoch, older.clone());
                Some(older)
            }
        }
    }

    /// Takes a client away, if it is still this session's.
    pub(crate) fn remove(&self, client: &ClientShared) -> bool {
        let shown = self
            .clients
            .remove_if(&client.id, |_, shown| shown.epoch == client.epoch)
            .is_some();
        if !shown {
            self.replaced.remove(&client.epoch);
        }
        shown
    }

    /// How many sessions there are, those that have been replaced and are not gone yet among them.
    pub(crate) fn sessions_len(&self) -> usize {
        self.clients.len() + self.replaced.len()
    }

    /// All sessions, those that have been replaced among them.
    pub(crate) fn sessions(&self) -> Vec<Arc<ClientShared>> {
        let mut sessions = Vec::new();
        self.for_each_session(|session| sessions.push(session.clone()));
        sessions
    }

    /// Visits every session. The visitor must not reach into the registry.
    pub(crate) fn for_each_session(&self, mut visit: impl FnMut(&Arc<ClientShared>)) {
        self.for_each(&mut visit);
        for session in &self.replaced {
            visit(session.value());
        }
    }

    pub(crate) fn client(&self, id: ClientId) -> Option<Arc<ClientShared>> {
        self.clients.get(&id).map(|client| client.value().clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn clients(&self) -> Vec<Arc<ClientShared>> {
        self.clients
            .iter()
            .map(|client| client.value().clone())
            .collect()
    }

    /// Visits every client. The visitor must not reach into the registry.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<ClientShared>)) {
        for client in &self.clients {
            visit(client.value());
        }
    }

    pub(crate) fn group(&self, name: &str) -> Option<Arc<Group>> {
        self.groups.get(name).map(|group| group.value().clone())
    }

    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        self.groups
            .iter()
            .map(|group| group.value().clone())
            .collect()
    }

    pub(crate) fn groups_len(&self) -> usize {
        self.groups.len()
    }

    /// The group, with one more member counted in a lane; and whether it is the first of this instance.
    pub(crate) fn join(&self, name: &Name, lane: usize, lanes: usize) -> (Arc<Group>, bool) {
        let group = self.groups.entry(name.clone()).or_insert_with(|| {
            Arc::new(Group {
                id: self.next_group.fetch_add(1, Relaxed),
                name: name.clone(),
                counts: (0..lanes).map(|_| AtomicU32::new(0)).collect(),
            })
        });
        // Under the entry's lock, as the removal below: a group is not removed between its look-up and the count.
        let first = group.total() == 0;
        group.counts[lane].fetch_add(1, Relaxed);
        (group.value().clone(), first)
    }

    /// Counts one member less in a lane; a group without members goes. Says whether it went.
    pub(crate) fn leave(&self, group: &Group, lane: usize) -> bool {
        if group.counts[lane].fetch_sub(1, Relaxed) > 1 {
            return false;
        }
        self.groups
            .remove_if(&group.name, |_, shown| {
                shown.id == group.id && shown.total() == 0
            })
            .is_some()
    }

    /// A number that is the same for the same client for as long as the process runs.
    pub(crate) fn hash(&self, id: ClientId) -> u64 {
        self.clients.hasher().hash_one(id)
    }

    /// The same for any key.
    pub(crate) fn hash_key(&self, key: &Value) -> u64 {
        match key {
            Value::String(key) => self.clients.hasher().hash_one(key),
            key => self.clients.hasher().hash_one(key.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_lives_as_long_as_it_has_members() {
        let registry = Registry::default();
        let name = Name::from("lobby");
        let (group, first) = registry.join(&name, 0, 2);
        let (_, second) = registry.join(&name, 1, 2);
        assert!(first && !second);
        assert!(!registry.leave(&group, 0));
        assert!(registry.leave(&group, 1));
        assert_eq!(registry.groups_len(), 0);
    }
}
