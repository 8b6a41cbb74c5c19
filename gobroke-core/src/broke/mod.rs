//! [`Broke`]: the router's handle, and [`Reach`]: what the program and logic do through it.

mod builder;
pub(crate) mod clock;
mod clustered;
mod everywhere;
pub(crate) mod lifecycle;
pub(crate) mod revoked;
pub(crate) mod router;

use std::{fmt, net::SocketAddr, ops::Deref, sync::Arc};

pub use self::{builder::BrokeBuilder, router::Receipt};
use self::{
    lifecycle::{Running, Signals},
    router::Router,
};
use crate::{
    AddLogicError, Client, ClientId, CloseReason, Logic, Message, Name, SendError, Source, Stats,
};

/// A running router. Cloning it copies a pointer; when the last clone is dropped without [`Broke::stop`], the router
/// stops at once.
///
/// ```
/// use gobroke_core::{Broke, Logic};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broke = Broke::builder()
///     .instance("instance-1")
///     .logic(Logic::dispatched("chat", |message, ctx| {
///         ctx.broadcast(message)?;
///         Ok(())
///     }))
///     .start()
///     .await?;
/// broke.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Broke {
    reach: Reach,
    running: Arc<Running>,
}

impl Broke {
    /// Begins to build a router.
    pub fn builder() -> BrokeBuilder {
        BrokeBuilder::default()
    }

    /// Sends a message from the program itself. Never waits.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing is queued anywhere then.
    pub fn send(&self, message: Message) -> Result<Receipt, SendError> {
        self.reach.0.send(message, None)
    }

    /// Drains and stops: endpoints stop accepting, what was accepted is delivered, clients are closed as going away;
    /// what takes longer than the drain time is dropped. Ends when all tasks have.
    pub async fn stop(&self) {
        self.running.stop(&self.reach.0).await;
    }

    /// Waits for Ctrl-C or SIGTERM, then drains and stops. A second signal ends it at once: what is still queued is
    /// lost. Either way it returns, and the program's exit code is its own.
    ///
    /// It listens for them from the call on: call it before the program says that it is ready, and await it after.
    pub fn until_signal(&self) -> impl Future<Output = ()> + Send + '_ {
        let mut signals = {
            let _runtime = self.reach.0.handle.enter();
            Signals::listen()
        };
        async move {
            signals.next().await;
            tracing::info!("draining; a second signal stops at once");
            tokio::select! {
                () = self.stop() => {}
                () = signals.next() => self.running.abort(&self.reach.0),
            }
        }
    }

    /// The address that an endpoint listens on, once it does.
    pub fn address(&self, endpoint: &str) -> Option<SocketAddr> {
        let addresses = self.reach.0.addresses.lock();
        addresses
            .iter()
            .find(|(name, _)| *name == *endpoint)
            .map(|(_, address)| *address)
    }

    /// The addresses of all endpoints, by their names.
    pub fn addresses(&self) -> Vec<(Name, SocketAddr)> {
        self.reach.0.addresses.lock().clone()
    }
}

impl Deref for Broke {
    type Target = Reach;

    fn deref(&self) -> &Reach {
        &self.reach
    }
}

impl fmt::Debug for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broke")
            .field("instance", self.instance())
            .finish_non_exhaustive()
    }
}

/// What the program ([`Broke`]) and logic ([`LogicContext`](crate::LogicContext)) both do with clients, groups and
/// logic modules.
#[derive(Clone)]
pub struct Reach(pub(crate) Arc<Router>);

impl Reach {
    /// The instance's name.
    pub fn instance(&self) -> &Name {
        &self.0.instance
    }

    /// A client that is connected to this instance.
    pub fn local_client(&self, id: ClientId) -> Option<Client> {
        self.0.local_client(id)
    }

    /// All clients that are connected to this instance.
    pub fn local_clients(&self) -> Vec<Client> {
        self.0
            .registry
            .clients()
            .into_iter()
            .filter(|client| !client.is_closed())
            .map(Client)
            .collect()
    }

    /// How many clients are connected to this instance.
    pub fn local_client_count(&self) -> usize {
        self.0.registry.len()
    }

    /// Ends the connection of a client of any instance, behind all that was sent to it before. Says whether the
    /// client is known; of one that has to be looked up elsewhere, that is taken for granted.
    pub fn disconnect(&self, client: ClientId, reason: CloseReason) -> bool {
        self.disconnect_by(&Source::Server, client, reason)
    }

    /// Puts a client of any instance into a group, in order with the messages around. Says whether it was not in it
    /// already; of a client elsewhere, whether the order was sent.
    pub fn join(&self, client: ClientId, group: impl Into<Name>) -> bool {
        self.join_by(&Source::Server, client, group.into())
    }

    /// Takes a client of any instance out of a group, in order with the messages around. Says whether it was in it; of
    /// a client elsewhere, whether the order was sent.
    pub fn leave(&self, client: ClientId, group: impl Into<Name>) -> bool {
        self.leave_by(&Source::Server, client, group.into())
    }

    /// Sets a metadata entry of a client of any instance. Says whether the client is known; of one that has to be
    /// looked up elsewhere, that is taken for granted.
    pub fn set_metadata(
        &self,
        client: ClientId,
        key: impl Into<String>,
        value: impl Into<serde_json::Value>,
    ) -> bool {
        self.set_metadata_by(&Source::Server, client, key.into(), value.into())
    }

    /// The groups that have members on this instance.
    pub fn groups(&self) -> Vec<Name> {
        self.0
            .registry
            .groups()
            .into_iter()
            .map(|group| group.name.clone())
            .collect()
    }

    /// How many members a group has on this instance.
    pub fn group_size(&self, group: &str) -> usize {
        self.0
            .registry
            .group(group)
            .map_or(0, |group| group.total() as usize)
    }

    /// The members that a group has on this instance. Visits every client of the instance.
    pub fn group_members(&self, group: &str) -> Vec<Client> {
        self.0.local_members(group)
    }

    /// Adds a logic module while running.
    ///
    /// # Errors
    /// [`AddLogicError`] where one of its name is there, or the router has stopped.
    pub fn add_logic(&self, logic: Logic) -> Result<(), AddLogicError> {
        self.0.add_logic(logic)
    }

    /// Takes a logic module away while running. New messages for it are refused as unknown at once; those that it has
    /// are handled, for the drain time at the most; then it is cancelled. Ends when its tasks have. Says whether there
    /// was one.
    ///
    /// From within a handler of the same module, spawn this: it waits for that handler.
    pub async fn remove_logic(&self, name: &str) -> bool {
        let Some(module) = self.0.take_logic(name) else {
            return false;
        };
        module.stop(self.0.hooks.drain).await;
        true
    }

    /// The names of the logic modules.
    pub fn logic(&self) -> Vec<Name> {
        self.0
            .modules
            .iter()
            .map(|module| module.key().clone())
            .collect()
    }

    /// Counters and gauges, at this moment.
    pub fn stats(&self) -> Stats {
        let router = &self.0;
        let counters = &router.stats;
        Stats {
            clients: router.registry.len(),
            groups: router.registry.groups_len(),
            outbox_bytes: router.memory.held(),
            lane_bytes: router.lanes.iter().map(|lane| lane.room.bytes()).sum(),
            connected: counters.connected.get(),
            refused: counters.refused.get(),
            disconnected: counters.disconnected.get(),
            received: counters.received.get(),
            rejected: counters.rejected.get(),
            busy: counters.busy.get(),
            full: counters.full.get(),
            delivered: router.lanes.iter().map(|lane| lane.delivered.get()).sum(),
            dropped: counters.dropped.get(),
            unknown: counters.unknown.get(),
            accept_errors: counters.accept_errors.get(),
            slow_consumers: counters.slow_consumers.get(),
            idle: counters.idle.get(),
            writes: counters.writes.get(),
            logic_errors: counters.logic_errors.get(),
            logic_panics: counters.logic_panics.get(),
            panics: counters.panics.get(),
            bad_input: counters
                .bad_input
                .iter()
                .map(|entry| ((*entry.key()).to_owned(), *entry.value()))
                .collect(),
            cluster: router.link.get().map(crate::cluster::link::Link::stats),
            logic: router
                .modules
                .iter()
                .map(|module| (module.key().to_string(), module.stats()))
                .collect(),
        }
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach")
            .field("instance", self.instance())
            .finish_non_exhaustive()
    }
}
