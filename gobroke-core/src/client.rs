//! Clients: [`Client`], one that is connected here, and [`ClientInfo`], what is known of any client of the cluster.

use std::{
    fmt,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ClientId, CloseReason, EndpointOptions, Grant, Metadata, Name, Refusal,
    broke::{clock::TICK, router::Router},
    delivery::{Encoder, OutboxState, lane::Lane, outbox::Outbox},
    registry::Group,
    stats::Counters,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

/// The slot of a client that its lane does not know yet, or no longer.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// What core keeps of a connected client.
///
/// In lines of a processor's cache: the first has what a read needs, the second begins the outbox, with all that a
/// delivery needs where nothing waits. With many clients each line is one that has to be fetched.
#[repr(C, align(64))]
pub(crate) struct ClientShared {
    pub(crate) id: ClientId,
    pub(crate) encoder: Arc<dyn Encoder>,
    pub(crate) lane: Arc<Lane>,
    /// Milliseconds since 1970; the connection counts as the first message.
    pub(crate) last_message: AtomicU64,
    /// The tick in which something came last, if only a pong.
    pub(crate) heard: AtomicU32,
    /// The tick in which a message came last.
    pub(crate) spoke: AtomicU32,
    /// Its place in the lane; only passes set it.
    pub(crate) slot: AtomicU32,
    /// Set with the close: senders look at it without a lock.
    pub(crate) closed: AtomicBool,
    /// A turn of its door is under way: the drain waits for it.
    pub(crate) in_turn: AtomicBool,
    /// Logic has been told that it left.
    pub(crate) told_left: AtomicBool,
    pub(crate) outbox: Outbox,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) endpoint: Arc<EndpointShared>,
    /// Which session of this id: removal is by epoch, so what is late for an older one cannot touch a newer one.
    pub(crate) epoch: u64,
    pub(crate) remote: Option<SocketAddr>,
    /// Milliseconds since 1970.
    pub(crate) connected_at: u64,
    pub(crate) state: Mutex<ClientState>,
    pub(crate) router: Weak<Router>,
}

/// What changes together: joins, leaves and the close are appended to the lane under this lock, so that nothing
/// follows the close.
#[derive(Default)]
pub(crate) struct ClientState {
    pub(crate) groups: Vec<Arc<Group>>,
    pub(crate) metadata: Option<Arc<Metadata>>,
    /// By what it was let in.
    pub(crate) grant: Option<Arc<Grant>>,
    pub(crate) closed: bool,
}

/// What the router's shared clock knows of a connection, beside when it was heard. Ticks are those of that clock.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    /// The tick in which it was pinged, 0 for never since then.
    pub(crate) pinged: AtomicU32,
    /// The tick in which what let it in ends, 0 for never.
    pub(crate) ends: AtomicU32,
    /// The tick in which its outbox was seen moving last, or holding something first; 0 where nothing waits.
    pub(crate) moved: AtomicU32,
    /// How much had left the outbox when something waited last.
    pub(crate) left: AtomicU64,
    /// Whether its door waits for logic: its pong is behind what waits, so it is not missed meanwhile.
    pub(crate) at_door: AtomicBool,
}

/// What all sessions of an endpoint share.
#[derive(Debug)]
pub(crate) struct EndpointShared {
    pub(crate) name: Name,
    pub(crate) options: EndpointOptions,
}

impl ClientShared {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Ends it, since its encoder panicked.
    pub(crate) fn fail(&self, stats: &Counters) {
        stats.panics.add(1);
        tracing::error!(client = %self.id, endpoint = %self.endpoint.name, "an encoder panicked; its client is closed");
        self.closed.store(true, Relaxed);
        let lost = self.outbox.end(CloseReason::Internal);
        stats.dropped.add(lost as u64);
    }

    /// Encodes a control frame; `None` where the encoder has none, or panicked: that ends the client.
    pub(crate) fn encode(
        &self,
        stats: &Counters,
        encode: impl FnOnce(&dyn Encoder, &mut Vec<u8>),
    ) -> Option<Bytes> {
        let mut frame = Vec::new();
        let encoded = catch_unwind(AssertUnwindSafe(|| encode(&*self.encoder, &mut frame)));
        if encoded.is_err() {
            self.fail(stats);
            return None;
        }
        (!frame.is_empty()).then(|| frame.into())
    }

    /// Appends the frame that greets it.
    pub(crate) fn welcome(self: &Arc<Self>, out: &mut Vec<u8>) {
        if let Some(router) = self.router.upgrade() {
            self.encoder
                .welcome(&Client(self.clone()), &router.instance, out);
        }
    }
}

/// A client that is connected to this instance.
///
/// A cheap handle. It may outlive the connection; what it does then has no effect.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<ClientShared>);

impl Client {
    /// The id.
    pub fn id(&self) -> ClientId {
        self.0.id
    }

    /// The name of the endpoint that it came through.
    pub fn endpoint(&self) -> &Name {
        &self.0.endpoint.name
    }

    /// The address that it came from, where the transport has one.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.0.remote
    }

    /// Since when it is connected.
    pub fn connected_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.connected_at)
    }

    /// When its last message came; its connection counts as the first.
    pub fn last_message(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.last_message.load(Relaxed))
    }

    /// For how long nothing came from it, or since it connected: by tokio's clock, a quarter of a second coarse, so that
    /// a stepped wall clock makes nobody idle.
    pub fn idle(&self) -> Duration {
        self.0.router.upgrade().map_or(Duration::ZERO, |router| {
            let spoke = self.0.spoke.load(Relaxed);
            TICK * router.clock.tick().saturating_sub(spoke)
        })
    }

    /// What is known about it: what the `on_connect` hook gave and what was set since.
    pub fn metadata(&self) -> Arc<Metadata> {
        self.0.state.lock().metadata.clone().unwrap_or_default()
    }

    /// Sets a metadata entry, visible on every instance within a second.
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Into<Value>) {
        {
            let mut state = self.0.state.lock();
            let metadata = Arc::make_mut(state.metadata.get_or_insert_default());
            metadata.insert(key.into(), value.into());
        }
        if let Some(router) = self.0.router.upgrade() {
            router.metadata_changed(self);
        }
    }

    /// Takes a metadata entry away.
    pub fn remove_metadata(&self, key: &str) {
        {
            let mut state = self.0.state.lock();
            if let Some(metadata) = state.metadata.as_mut() {
                Arc::make_mut(metadata).remove(key);
            }
        }
        if let Some(router) = self.0.router.upgrade() {
            router.metadata_changed(self);
        }
    }

    /// By what it was let in, where the `on_connect` hook said that.
    pub fn grant(&self) -> Option<Arc<Grant>> {
        self.0.state.lock().grant.clone()
    }

    /// Goes on with another grant: a fresh token, in the place of one that is about to end.
    ///
    /// # Errors
    /// 401 where it has ended or was revoked, 403 where it is of another subject than before; nothing changes then.
    pub fn renew(&self, grant: Grant) -> Result<(), Refusal> {
        let Some(router) = self.0.router.upgrade() else {
            return Err(Refusal::unavailable("the server is not running"));
        };
        router.check_grant(&grant)?;
        let mut state = self.0.state.lock();
        if let Some(before) = &state.grant
            && before.subject != grant.subject
        {
            return Err(Refusal::forbidden("this is somebody else's"));
        }
        self.0
            .heartbeat
            .ends
            .store(router.clock.end(grant.until), Relaxed);
        state.grant = Some(Arc::new(grant));
        drop(state);
        // It may have been revoked meanwhile, when it could not be found here.
        router.check_revoked(&self.0);
        Ok(())
    }

    /// The groups that it is in.
    pub fn groups(&self) -> Vec<Name> {
        self.0
            .state
            .lock()
            .groups
            .iter()
            .map(|group| group.name.clone())
            .collect()
    }

    /// What waits for its socket.
    pub fn outbox(&self) -> OutboxState {
        self.0.outbox.state()
    }

    /// Whether it is closed, or about to be.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Ends its connection, behind all that was sent to it before.
    pub fn disconnect(&self, reason: CloseReason) {
        if let Some(router) = self.0.router.upgrade() {
            router.close(&self.0, reason);
        }
    }

    /// Puts it into a group, in order with the messages around. Says whether it was not in it already.
    pub fn join(&self, group: impl Into<Name>) -> bool {
        self.0
            .router
            .upgrade()
            .is_some_and(|router| router.join_local(&self.0, &group.into()))
    }

    /// Takes it out of a group, in order with the messages around. Says whether it was in it.
    pub fn leave(&self, group: impl Into<Name>) -> bool {
        self.0
            .router
            .upgrade()
            .is_some_and(|router| router.leave_local(&self.0, &group.into()))
    }

    /// What can be told of it to others.
    pub fn info(&self) -> ClientInfo {
        let state = self.0.state.lock();
        ClientInfo {
            id: self.0.id,
            instance: self
                .0
                .router
                .upgrade()
                .map_or_else(|| Name::from(""), |router| router.instance.clone()),
            endpoint: self.0.endpoint.name.clone(),
            remote: self.0.remote,
            connected_at: self.0.connected_at,
            last_message: self.0.last_message.load(Relaxed),
            metadata: state.metadata.clone().unwrap_or_default(),
            groups: state
                .groups
                .iter()
                .map(|group| group.name.clone())
                .collect(),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id())
            .field("endpoint", self.endpoint())
            .field("remote", &self.remote())
            .finish_non_exhaustive()
    }
}

/// What is known of a client, wherever it is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// The id.
    pub id: ClientId,
    /// The instance that it is connected to.
    pub instance: Name,
    /// The name of the endpoint that it came through.
    pub endpoint: Name,
    /// The address that it came from, where the transport has one.
    pub remote: Option<SocketAddr>,
    /// Since when it is connected, in milliseconds since 1970.
    pub connected_at: u64,
    /// When its last message came, in milliseconds since 1970.
    pub last_message: u64,
    /// Its metadata.
    pub metadata: Arc<Metadata>,
    /// Its groups.
    pub groups: Vec<Name>,
}

impl ClientInfo {
    /// When its last message came.
    pub fn last_message_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.last_message)
    }
}
