//! [`Routes`]: for the benchmark alone.

use crate::{
    ClientId,
    cluster::{
        InstanceId,
        link::{cache::Cache, outgoing::CLIENTS},
    },
};

/// What an instance remembers of where clients of others are.
#[derive(Debug)]
pub struct Routes(Cache<ClientId, InstanceId>);

impl Routes {
    /// One that remembers these clients.
    pub fn of(clients: &[ClientId], at: &InstanceId) -> Self {
        let mut routes = Cache::new(CLIENTS, |_| 1);
        for client in clients {
            routes.insert(*client, at.clone());
        }
        Self(routes)
    }

    /// As each message asks for each of its targets.
    pub fn find(&mut self, client: ClientId) -> Option<&InstanceId> {
        self.0.get(&client)
    }
}
