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
        let mut routes = Cache::new(CLIENTS);
        for client in clients {
            routes.insert(*client, at.clone(), 1);
        }
        Self(routes)
    }

    /// As each message asks for each of its targets.
    pub fn find(&mut self, client: ClientId) -> Option<&InstanceId> {
        self.0.get_mut(&client, |_| 1).map(|at| &*at)
    }
}
