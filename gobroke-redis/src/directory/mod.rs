//! The directory: which clients there are, where, and which instances have members of a group.

mod pages;
mod parts;
mod read;
mod record;
mod singleton;
mod write;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gobroke_core::{
    ClientId, ClientInfo, Name, async_trait,
    cluster::{
        Changes, Claim, ClusterError, Count, Cursor, Full, Incarnation, InstanceId, Membership,
        Page, Record, Registered, To, Whereabouts,
    },
};
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use crate::{instance::Instance, keys, script};

/// An instance's place in the cluster. Dropping it is a crash: all connections are closed, and the lease runs out.
pub(crate) struct Place {
    pub(crate) instance: Arc<Instance>,
    pub(crate) _serving: DropGuard,
}

#[async_trait]
impl Membership for Place {
    fn incarnation(&self) -> Incarnation {
        self.instance.id.incarnation
    }

    fn publish(&self, to: &To, frame: Bytes) -> Result<(), Full> {
        self.instance.queue.push(to, frame)
    }

    async fn room(&self) {
        self.instance.queue.room().await;
    }

    async fn write(&self, changes: &Changes) -> Result<Vec<Registered>, ClusterError> {
        write::changes(&self.instance, changes).await
    }

    async fn replace(&self, record: &Record) -> Result<Vec<Registered>, ClusterError> {
        write::replace(&self.instance, record).await
    }

    async fn locate(&self, clients: &[ClientId]) -> Result<Vec<Whereabouts>, ClusterError> {
        read::locate(&self.instance, clients).await
    }

    async fn group_instances(&self, groups: &[Name]) -> Result<Vec<Vec<InstanceId>>, ClusterError> {
        read::group_instances(&self.instance, groups).await
    }

    async fn client(&self, client: ClientId) -> Result<Option<ClientInfo>, ClusterError> {
        read::client(&self.instance, client).await
    }

    async fn clients(
        &self,
        group: Option<&Name>,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Page, ClusterError> {
        pages::page(&self.instance, group, cursor, limit).await
    }

    async fn count(&self) -> Result<Count, ClusterError> {
        read::count(&self.instance).await
    }

    fn lease(&self) -> Duration {
        self.instance.config.lease
    }

    async fn claim(
        &self,
        logic: &Name,
        held: Option<u64>,
        take: bool,
    ) -> Result<Claim, ClusterError> {
        singleton::claim(&self.instance, logic, held, take).await
    }

    async fn release(&self, logic: &Name, token: u64) -> Result<(), ClusterError> {
        singleton::release(&self.instance, logic, token).await
    }

    async fn leave(&self) {
        let instance = &*self.instance;
        let Ok(mut commands) = instance.commands() else {
            return;
        };
        if timeout(instance.config.response_timeout, instance.queue.drained())
            .await
            .is_err()
        {
            tracing::warn!(instance = %instance.id, "not everything was published before leaving");
        }
        let keys = &instance.keys;
        let mut invocation = script::LEAVE.prepare_invoke();
        for key in [
            &keys.state,
            &keys.instances,
            &keys.leases,
            &keys.batches,
            &keys.left,
            &keys.unswept,
            &keys.versions,
            &keys.rewriting,
        ] {
            invocation.key(key);
        }
        invocation
            .arg(&*instance.id.name)
            .arg(keys::incarnation(instance.id.incarnation))
            .arg(&keys.notices)
            .arg(keys.publish());
        if let Err(error) = invocation.invoke_async::<()>(&mut commands).await {
            tracing::warn!(instance = %instance.id, %error, "leaving was not written; others learn of it when the lease ends");
        }
    }
}
