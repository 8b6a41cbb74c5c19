//! [`MemoryCluster`]: several routers in one process, for tests, examples, and programs that want them so.

mod faults;
mod world;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;

#[cfg(feature = "testing")]
pub use self::faults::Faults;
use self::{faults::Carrier, world::World};
use super::{
    Changes, Claim, Cluster, ClusterError, Count, Cursor, Full, Inbox, Incarnation, InstanceId,
    Leaving, Membership, Page, Record, Registered, To, Whereabouts,
};
use crate::{ClientId, ClientInfo, Name};

/// How long an instance that is gone without a word stays in the directory.
const LEASE: Duration = Duration::from_secs(15);

/// A cluster within the process: give clones of one to several builders.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use gobroke_core::{Broke, cluster::MemoryCluster};
///
/// let cluster = MemoryCluster::new();
/// let one = Broke::builder().instance("one").cluster(cluster.clone()).start().await?;
/// let two = Broke::builder().instance("two").cluster(cluster).start().await?;
/// # one.stop().await;
/// # two.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// Nothing is lost on the way: where an instance does not keep up with what arrives, those who send to it wait.
#[derive(Clone, Debug)]
pub struct MemoryCluster {
    shared: Arc<Shared>,
    pub(super) lease: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    world: Mutex<World>,
    carrier: Carrier,
}

impl MemoryCluster {
    /// A cluster that nobody has joined yet.
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            lease: LEASE,
        }
    }

    /// How long an instance that is gone without a word stays in the directory. Default: 15 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }
}

impl Default for MemoryCluster {
    fn default() -> Self {
        Self::new()
    }
}

/// What only tests do to a cluster.
#[cfg(feature = "testing")]
impl MemoryCluster {
    /// What the carrier does to frames from now on, by this seed.
    pub fn faults(&self, seed: u64, faults: Faults) {
        self.shared.carrier.set(seed, faults);
    }

    /// Takes the cluster away from an instance, or brings it back: it neither sends, hears, reads nor writes.
    pub fn away(&self, instance: &str, away: bool) {
        self.shared.world.lock().away(instance, away);
    }

    /// Kills an instance's place in the cluster: it says nothing any more, hears nothing, and is gone when its lease
    /// ends.
    pub fn kill(&self, instance: &str) {
        let Some(id) = self.shared.world.lock().kill(instance) else {
            return;
        };
        expire(&Handle::current(), self.shared.clone(), id, self.lease);
    }

    /// Removes an instance that lives, as if its lease had ended: it has to join anew.
    pub fn expel(&self, instance: &str) {
        self.shared.world.lock().expel(instance);
    }

    /// Loses all that instances wrote, and tells them so, as an empty restart of a database would.
    pub fn lose_directory(&self) {
        self.shared.world.lock().lose();
    }
}

#[async_trait]
impl Cluster for MemoryCluster {
    async fn join(&self, name: &Name, inbox: Inbox) -> Result<Box<dyn Membership>, ClusterError> {
        let id = self.shared.world.lock().join(name, inbox);
        Ok(Box::new(Place {
            shared: self.shared.clone(),
            id,
            lease: self.lease,
            handle: Handle::current(),
        }))
    }
}

/// An instance's place.
struct Place {
    shared: Arc<Shared>,
    id: InstanceId,
    lease: Duration,
    handle: Handle,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.shared.world.lock().crash(&self.id) {
            expire(
                &self.handle,
                self.shared.clone(),
                self.id.clone(),
                self.lease,
            );
        }
    }
}

/// Removes an instance when its lease has ended.
fn expire(handle: &Handle, shared: Arc<Shared>, id: InstanceId, lease: Duration) {
    handle.spawn(async move {
        tokio::time::sleep(lease).await;
        shared.world.lock().remove(&id, Leaving::Expired);
    });
}

#[async_trait]
impl Membership for Place {
    fn incarnation(&self) -> Incarnation {
        self.id.incarnation
    }

    fn publish(&self, to: &To, frame: Bytes) -> Result<(), Full> {
        let targets = self.shared.world.lock().targets(&self.id, to);
        if targets.iter().any(|inbox| !inbox.has_room()) {
            return Err(Full);
        }
        for inbox in &targets {
            self.shared
                .carrier
                .carry(&self.handle, inbox, frame.clone());
        }
        Ok(())
    }

    async fn room(&self) {
        loop {
            let full = self.shared.world.lock().targets(&self.id, &To::All);
            let Some(full) = full.into_iter().find(|inbox| !inbox.has_room()) else {
                return;
            };
            full.room().await;
        }
    }

    async fn write(&self, changes: &Changes) -> Result<Vec<Registered>, ClusterError> {
        self.shared.world.lock().write(&self.id, changes)
    }

    async fn replace(&self, record: &Record) -> Result<Vec<Registered>, ClusterError> {
        self.shared.world.lock().replace(&self.id, record)
    }

    async fn locate(&self, clients: &[ClientId]) -> Result<Vec<Whereabouts>, ClusterError> {
        let world = self.shared.world.lock();
        world.reachable(&self.id)?;
        let located = clients.iter().map(|client| world.locate(*client));
        Ok(located.map(Whereabouts::from).collect())
    }

    async fn group_instances(&self, groups: &[Name]) -> Result<Vec<Vec<InstanceId>>, ClusterError> {
        let world = self.shared.world.lock();
        world.reachable(&self.id)?;
        Ok(groups
            .iter()
            .map(|group| world.with_members(group))
            .collect())
    }

    async fn client(&self, client: ClientId) -> Result<Option<ClientInfo>, ClusterError> {
        let world = self.shared.world.lock();
        world.reachable(&self.id)?;
        Ok(world.client(client))
    }

    async fn clients(
        &self,
        group: Option<&Name>,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Page, ClusterError> {
        let world = self.shared.world.lock();
        world.reachable(&self.id)?;
        world.page(&self.id, group, cursor, limit)
    }

    async fn count(&self) -> Result<Count, ClusterError> {
        let world = self.shared.world.lock();
        world.reachable(&self.id)?;
        Ok(Count {
            clients: world.count(&self.id),
            partial: false,
        })
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    async fn claim(
        &self,
        logic: &Name,
        held: Option<u64>,
        take: bool,
    ) -> Result<Claim, ClusterError> {
        let mut world = self.shared.world.lock();
        world.reachable(&self.id)?;
        Ok(world.claim(&self.id, logic, held, take, self.lease))
    }

    async fn release(&self, logic: &Name, token: u64) -> Result<(), ClusterError> {
        let mut world = self.shared.world.lock();
        world.reachable(&self.id)?;
        world.release(logic, token);
        Ok(())
    }

    async fn leave(&self) {
        self.shared.world.lock().remove(&self.id, Leaving::Stopped);
    }
}
