//! The router as a part of a cluster: what it tells the [`Link`], and what it does with what comes from others.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use async_trait::async_trait;

use super::router::{Router, many::Plan};
use crate::{
    Client, ClientId, ClientInfo, CloseReason, Message, Name, Revocation, Target,
    client::ClientShared,
    cluster::{
        Cluster, ClusterError, Full, InstanceId, Leaving,
        envelope::Command,
        link::{Link, Local, Missing, Permit, Readiness, Remote},
    },
    delivery::turn::{self, Turn},
    registry::Group,
};

impl Router {
    /// Takes a place in the cluster.
    pub(super) async fn join_cluster(
        self: &Arc<Self>,
        cluster: Arc<dyn Cluster>,
    ) -> Result<(), ClusterError> {
        let router = Arc::downgrade(self);
        for lane in &self.lanes {
            let router = router.clone();
            let told = lane.context.on_group_gone.set(Box::new(move |group| {
                if let Some(router) = router.upgrade() {
                    router.group_gone(group);
                }
            }));
            debug_assert!(told.is_ok(), "a router joins once");
        }
        let link = Link::join(cluster, &self.instance, router).await?;
        let joined = self.link.set(link);
        debug_assert!(joined.is_ok(), "a router joins once");
        self.moved.notify_waiters();
        Ok(())
    }

    /// Whether a newer instance has this one's name.
    pub(crate) fn is_superseded(&self) -> bool {
        self.link
            .get()
            .is_some_and(|link| link.readiness() == Readiness::Superseded)
    }

    /// Room for what goes to other instances; `None` where nothing does.
    pub(super) fn reserve_remote(
        &self,
        message: &Message,
        remote: &Remote,
    ) -> Result<Option<Permit<'_>>, Full> {
        let Some(link) = self.link.get().filter(|_| !remote.is_empty()) else {
            return Ok(None);
        };
        let weight = message.weight();
        let permit = link.reserve(weight);
        if permit.is_err() {
            turn::pressed(link.room(), weight, false);
        } else if link.room().is_pressed() {
            turn::pressed(link.room(), 0, false);
        }
        permit.map(Some)
    }

    pub(crate) fn metadata_changed(&self, client: &Client) {
        if let Some(link) = self.link.get() {
            // Under the client's lock, so that an older map cannot come behind a newer one.
            let state = client.0.state.lock();
            let metadata = state.metadata.clone().unwrap_or_default();
            link.metadata_changed(client.0.id, client.0.epoch, metadata);
        }
    }

    pub(crate) fn client_came(&self, client: &Arc<ClientShared>) {
        if let Some(link) = self.link.get() {
            link.client_came(Client(client.clone()).info(), client.epoch);
        }
    }

    pub(super) fn client_went(&self, client: &ClientShared) {
        if let Some(link) = self.link.get() {
            link.client_went(client.id, client.epoch);
        }
    }

    pub(super) fn group_joined(&self, client: &ClientShared, group: &Name, first: bool) {
        if let Some(link) = self.link.get() {
            link.joined_group(client.id, client.epoch, group);
            if first {
                link.group_changed(group);
            }
        }
    }

    pub(super) fn group_left(&self, client: &ClientShared, group: &Name) {
        if let Some(link) = self.link.get() {
            link.left_group(client.id, client.epoch, group);
        }
    }

    fn group_gone(&self, group: &Group) {
        if let Some(link) = self.link.get() {
            link.group_changed(&group.name);
        }
    }

    fn session(&self, client: ClientId) -> Option<Arc<ClientShared>> {
        self.registry
            .client(client)
            .filter(|client| !client.is_closed())
    }

    /// Hands a message from another instance to logic, each module by itself: there is nobody to give it back to.
    fn hand_to_logic(&self, name: &Name, message: &Message) {
        let module = self.modules.get(name).map(|module| module.value().clone());
        let taken = module
            .filter(|module| !module.is_passive())
            .and_then(|module| match module.reserve(message) {
                Ok(room) => {
                    room.commit(message.clone());
                    Some(())
                }
                Err(_) => None,
            });
        if taken.is_none() {
            self.stats.full.add(1);
            tracing::debug!(logic = %name, "a message from another instance was refused");
        }
    }
}

#[async_trait]
impl Local for Router {
    async fn room(&self) {
        for lane in &self.lanes {
            if lane.room.is_pressed() {
                lane.room.eased().await;
            }
        }
    }

    fn turn(&self, batch: &mut dyn FnMut()) {
        let _turn = Turn::begin();
        batch();
    }

    fn deliver(&self, message: Message) -> Missing {
        if let [Target::Client(id)] = message.targets().as_slice()
            && let Some(client) = turn::client(&self.registry, *id)
            && !client.is_closed()
            && !message.targets().excludes_any()
        {
            // There was room before this batch, as below.
            self.append_to_lane(message, client);
            return Missing::default();
        }
        let mut plan = Plan::default();
        let mut missing = Missing::default();
        for target in message.targets().iter() {
            match target {
                Target::All => plan.many.everyone = true,
                Target::Client(id) => match self.session(*id) {
                    Some(client) => plan.many.clients.push(client),
                    None => missing.clients.push(*id),
                },
                Target::Group(name) => match self.registry.group(name) {
                    Some(group) => plan.many.groups.push(group),
                    None => missing.groups.push(name.clone()),
                },
                Target::Logic(name) => self.hand_to_logic(name, &message),
            }
        }
        let excluded = message.targets().excluded();
        let excluded = excluded.filter_map(|id| self.registry.client(id));
        plan.many.except.extend(excluded);
        // There was room before this batch, which is small beside the bound; nobody is left to take it back.
        let appended = self.append_to_lanes(&message, &plan, false);
        debug_assert!(appended.is_ok(), "no lane refuses it");
        missing.message = Some(message).filter(|_| !missing.clients.is_empty());
        missing
    }

    fn command(&self, client: ClientId, command: Command) -> bool {
        let Some(session) = self.session(client) else {
            return false;
        };
        match command {
            Command::Disconnect(reason) => self.close(&session, reason),
            Command::Join(group) => {
                self.join_local(&session, &group);
            }
            Command::Leave(group) => {
                self.leave_local(&session, &group);
            }
            Command::SetMetadata { key, value } => {
                let client = Client(session);
                match value {
                    Some(value) => client.set_metadata(key, value),
                    None => client.remove_metadata(&key),
                }
            }
        }
        true
    }

    fn replaced(&self, client: ClientId, epoch: u64) {
        let session = self.registry.client(client);
        if let Some(session) = session.filter(|session| session.epoch == epoch) {
            self.close(&session, CloseReason::Replaced);
        }
    }

    fn revoked(&self, revocations: &[Revocation]) {
        self.learn_revoked(revocations);
    }

    fn snapshot(&self) -> Vec<(ClientInfo, u64)> {
        let clients = self.registry.clients().into_iter();
        clients
            .map(|client| {
                let epoch = client.epoch;
                (Client(client).info(), epoch)
            })
            .collect()
    }

    fn groups(&self) -> Vec<Name> {
        let groups = self.registry.groups().into_iter();
        groups
            .filter(|group| group.total() > 0)
            .map(|group| group.name.clone())
            .collect()
    }

    fn has_members(&self, group: &Name) -> bool {
        self.registry
            .group(group)
            .is_some_and(|group| group.total() > 0)
    }

    fn heard_since(&self, unix_millis: u64) -> Vec<(ClientId, u64)> {
        let mut heard = Vec::new();
        self.registry.for_each(|client| {
            let time = client.last_message.load(Relaxed);
            // Who has not been heard since it came is written as it came.
            if time > unix_millis && time > client.connected_at {
                heard.push((client.id, time));
            }
        });
        heard
    }

    fn instance_joined(&self, instance: &InstanceId) {
        tracing::info!(%instance, "an instance joined");
        self.moved.notify_waiters();
        self.tell_revoked(instance);
    }

    fn instance_left(&self, instance: &InstanceId, why: Leaving) {
        tracing::info!(%instance, ?why, "an instance left");
        self.moved.notify_waiters();
    }

    fn logic_moved(&self, logic: &Name) {
        tracing::debug!(%logic, "a logic module may run elsewhere now");
        self.moved.notify_waiters();
    }
}
