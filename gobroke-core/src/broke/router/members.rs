//! Those who come and go: clients and their groups.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::Router;
use crate::{
    Client, ClientId, CloseReason, Name, client::ClientShared, delivery::entry::Entry,
    logic::greeting::Greeting,
};

impl Router {
    /// Appends an encoded control frame for a client, in order with its messages.
    pub(crate) fn send_frame(&self, client: &Arc<ClientShared>, frame: bytes::Bytes) {
        if !client.is_closed() {
            client.lane.append(Entry::Frame {
                client: client.clone(),
                frame,
            });
        }
    }

    /// Ends a client behind all that was sent to it.
    pub(crate) fn close(&self, client: &Arc<ClientShared>, reason: CloseReason) {
        let mut state = client.state.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        client.lane.append(Entry::Close(client.clone(), reason));
        client.closed.store(true, Relaxed);
    }

    /// Ends a client at once; what waits for it is dropped, and counted.
    pub(crate) fn end(&self, client: &Arc<ClientShared>, reason: CloseReason) {
        client.closed.store(true, Relaxed);
        if client.outbox.closing().is_none() && reason == CloseReason::SlowConsumer {
            self.stats.slow_consumers.add(1);
        }
        let dropped = client.outbox.end(reason);
        self.stats.dropped.add(dropped as u64);
    }

    /// A newer session of the same client has come: this one is closed, and logic is told that it left before it is
    /// told that the newer one joined.
    pub(crate) fn replace(&self, older: &Arc<ClientShared>) {
        self.close(older, CloseReason::Replaced);
        self.tell_left(older, &CloseReason::Replaced);
    }

    /// Tells logic that a client is gone, once.
    fn tell_left(&self, client: &Arc<ClientShared>, reason: &CloseReason) {
        if client.told_left.swap(true, Relaxed) {
            return;
        }
        let left = Client(client.clone());
        self.watchers
            .read()
            .iter()
            .for_each(|module| module.left(&left, reason));
    }

    pub(crate) fn join_local(&self, client: &Arc<ClientShared>, name: &Name) -> bool {
        let mut state = client.state.lock();
        if state.closed || state.groups.iter().any(|group| group.name == *name) {
            return false;
        }
        let (group, first) = self
            .registry
            .join(name, client.lane.context.index, self.lanes.len());
        client
            .lane
            .append(Entry::Join(client.clone(), group.clone()));
        state.groups.push(group);
        // Under the client's lock, so that the cluster is told in this order.
        self.group_joined(client, name, first);
        true
    }

    pub(crate) fn leave_local(&self, client: &Arc<ClientShared>, name: &Name) -> bool {
        let mut state = client.state.lock();
        let Some(index) = state.groups.iter().position(|group| group.name == *name) else {
            return false;
        };
        if state.closed {
            return false;
        }
        let group = state.groups.swap_remove(index);
        client.lane.append(Entry::Leave(client.clone(), group));
        self.group_left(client, name);
        true
    }

    /// A session is gone: registry, groups and logic forget the client. It appends and wakes, and never passes, since
    /// it may run in an unwinding.
    pub(crate) fn forget(&self, client: &Arc<ClientShared>) {
        let mut state = client.state.lock();
        state.closed = true;
        state.groups = Vec::new();
        client.closed.store(true, Relaxed);
        client.lane.append(Entry::Forget(client.clone()));
        drop(state);
        let reason = client
            .outbox
            .closing()
            .unwrap_or(CloseReason::ConnectionLost);
        let dropped = client.outbox.end(reason.clone());
        self.stats.dropped.add(dropped as u64);
        self.stats.panics.add(client.outbox.has_panicked().into());
        self.stats.disconnected.add(1);
        self.registry.remove(client);
        self.tell_left(client, &reason);
        self.client_went(client);
    }

    /// Tells logic that a client came; its door waits for the answer before its first message.
    pub(crate) fn greet(&self, client: &Arc<ClientShared>) -> Option<Arc<Greeting>> {
        let watchers = self.watchers.read();
        if watchers.is_empty() {
            return None;
        }
        let client = Client(client.clone());
        let greeting = Arc::default();
        watchers
            .iter()
            .for_each(|module| module.joined(&client, &greeting));
        (!greeting.is_done()).then_some(greeting)
    }

    pub(crate) fn local_client(&self, id: ClientId) -> Option<Client> {
        self.registry
            .client(id)
            .filter(|client| !client.is_closed())
            .map(Client)
    }

    /// The members that a group has here.
    pub(crate) fn local_members(&self, name: &str) -> Vec<Client> {
        if self.registry.group(name).is_none() {
            return Vec::new();
        }
        let mut members = Vec::new();
        self.registry.for_each(|client| {
            if client
                .state
                .lock()
                .groups
                .iter()
                .any(|group| group.name == *name)
            {
                members.push(Client(client.clone()));
            }
        });
        members
    }
}
