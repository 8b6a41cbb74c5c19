//! [`Gate`]: through which an endpoint admits connections.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use dashmap::DashMap;

use crate::{
    Admission, ClientId, CloseReason, ConnectRequest, Encoder, EndpointOptions, Name, Refusal,
    Session, Wire,
    broke::router::Router,
    client::{ClientShared, ClientState, EndpointShared, Heartbeat, NO_SLOT},
    delivery::{entry::Entry, outbox::Outbox, turn::Turn},
    id::unix_millis,
    sync::{
        Mutex, Notify,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// An endpoint's hold on the router: it says that it listens, admits connections, and learns of the drain.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    router: Arc<Router>,
    endpoint: Arc<EndpointShared>,
    readiness: Arc<Readiness>,
    connections: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

/// What `start` waits for.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    listening: AtomicBool,
    changed: Notify,
}

impl Readiness {
    pub(crate) async fn wait(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.listening.load(Relaxed) {
                return;
            }
            changed.await;
        }
    }
}

/// A connection, counted against the endpoint's limits. Dropping it gives the place back.
pub struct Slot {
    gate: Gate,
    address: Option<IpAddr>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Slot {
    /// Counts it as a connection from this address in the place of the one known before: that of a proxy, say, which
    /// named its client only then.
    ///
    /// # Errors
    /// 429 where the address has as many connections as it may; the slot is of no address then.
    pub fn locate(&mut self, remote: SocketAddr) -> Result<(), Refusal> {
        let gate = self.gate.clone();
        self.leave_address();
        let Some(most) = gate.options().max_connections_per_address else {
            return Ok(());
        };
        let address = network(remote.ip());
        let mut count = gate.0.by_address.entry(address).or_default();
        if *count >= most {
            drop(count);
            gate.0.router.stats.refused.add(1);
            return Err(Refusal::too_many(
                "this address has as many connections as it may",
            ));
        }
        *count += 1;
        self.address = Some(address);
        Ok(())
    }

    fn leave_address(&mut self) {
        if let Some(address) = self.address.take() {
            let by_address = &self.gate.0.by_address;
            by_address.alter(&address, |_, count| count - 1);
            by_address.remove_if(&address, |_, count| *count == 0);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gate.0.connections.fetch_sub(1, Relaxed);
        self.leave_address();
    }
}

/// A connection that the `on_connect` hook let in, before its transport is up.
#[derive(Debug)]
pub struct Admitted {
    slot: Slot,
    pub(crate) admission: Admission,
    remote: Option<SocketAddr>,
}

impl Gate {
    pub(crate) fn new(
        router: Arc<Router>,
        name: Name,
        options: EndpointOptions,
    ) -> (Self, Arc<Readiness>) {
        let readiness = Arc::new(Readiness::default());
        let gate = Self(Arc::new(Inner {
            router,
            endpoint: Arc::new(EndpointShared { name, options }),
            readiness: readiness.clone(),
            connections: AtomicUsize::new(0),
            by_address: DashMap::new(),
        }));
        (gate, readiness)
    }

    /// The endpoint's name.
    pub fn endpoint(&self) -> &Name {
        &self.0.endpoint.name
    }

    /// The instance's name.
    pub fn instance(&self) -> &Name {
        &self.0.router.instance
    }

    /// The endpoint's bounds and times.
    pub fn options(&self) -> &EndpointOptions {
        &self.0.endpoint.options
    }

    /// Says that the endpoint listens, and where: [`start`](crate::BrokeBuilder::start) waits for it.
    pub fn ready(&self, address: impl Into<Option<SocketAddr>>) {
        if let Some(address) = address.into() {
            self.0
                .router
                .addresses
                .lock()
                .push((self.endpoint().clone(), address));
        }
        self.0.readiness.listening.store(true, Relaxed);
        self.0.readiness.changed.notify_waiters();
    }

    /// Waits for the drain: stop accepting. Connections are closed by the router. Cancel-safe.
    pub async fn closing(&self) {
        self.0.router.closing.cancelled().await;
    }

    /// Whether the drain has begun.
    pub fn is_closing(&self) -> bool {
        self.0.router.closing.is_cancelled()
    }

    /// Runs a connection's task. `stop` waits for it.
    pub fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.0
            .router
            .connections
            .spawn_on(connection, &self.0.router.handle);
    }

    /// Counts input that the endpoint refused to read, by what was wrong with it.
    pub fn count_bad_input(&self, what: &'static str) {
        *self.0.router.stats.bad_input.entry(what).or_default() += 1;
        tracing::debug!(endpoint = %self.endpoint(), what, "bad input");
    }

    /// Counts an error of accepting connections, such as no file descriptor being left.
    pub fn count_accept_error(&self) {
        self.0.router.stats.accept_errors.add(1);
    }

    /// Counts a panic of code that the endpoint runs for its user (a codec's decoding), and that cost its client alone.
    pub fn count_panic(&self) {
        self.0.router.stats.panics.add(1);
        tracing::error!(endpoint = %self.endpoint(), "a codec panicked; its client is closed");
    }

    /// Counts a connection against the endpoint's limits: at its accept, before anything is spent on it.
    ///
    /// # Errors
    /// 503 while draining or where the endpoint has all the connections that it may, 429 where the address has.
    pub fn slot(&self, remote: Option<SocketAddr>) -> Result<Slot, Refusal> {
        let inner = &self.0;
        let refused = |refusal| {
            inner.router.stats.refused.add(1);
            Err(refusal)
        };
        if self.is_closing() {
            return refused(Refusal::unavailable("the server is going away"));
        }
        if inner.router.is_superseded() {
            return refused(Refusal::unavailable(
                "another server has taken this one's place",
            ));
        }
        let before = inner.connections.fetch_add(1, Relaxed);
        // From here on the slot's drop gives the place back.
        let mut slot = Slot {
            gate: self.clone(),
            address: None,
        };
        if before >= self.options().max_connections {
            return refused(Refusal::unavailable(
                "the server has as many connections as it may",
            ));
        }
        if let Some(remote) = remote {
            slot.locate(remote)?;
        }
        Ok(slot)
    }

    /// Asks the `on_connect` hook. Where there is none, everyone is let in, with a fresh id.
    ///
    /// # Errors
    /// What the hook answers; 500 where it panics, or identifies a client by the nil UUID, which names nobody.
    pub async fn admit(
        &self,
        slot: Slot,
        mut request: ConnectRequest,
    ) -> Result<Admitted, Refusal> {
        request.endpoint = Some(self.endpoint().clone());
        let remote = request.remote;
        let admission = match &self.0.router.hooks.on_connect {
            None => Ok(Admission::anonymous()),
            Some(hook) => {
                let asked = hook(request);
                // In a task of its own, so that a panic is the hook's alone.
                let task = self.0.router.handle.spawn(asked);
                let abort = AbortOnDrop(task.abort_handle());
                let answer = task.await;
                drop(abort);
                answer.unwrap_or_else(|_| {
                    self.0.router.stats.panics.add(1);
                    Err(Refusal::new(500, "internal error"))
                })
            }
        };
        let admission = admission.and_then(|admission| match admission.id {
            Some(ClientId::NIL) => {
                tracing::error!(
                    "the on_connect hook identified a client by the nil UUID, which names nobody"
                );
                Err(Refusal::new(500, "internal error"))
            }
            _ => Ok(admission),
        });
        let admission = admission.and_then(|admission| match &admission.grant {
            Some(grant) => self.0.router.check_grant(grant).map(|()| admission),
            None => Ok(admission),
        });
        match admission {
            Ok(admission) => Ok(Admitted {
                slot,
                admission,
                remote,
            }),
            Err(refusal) => {
                self.0.router.stats.refused.add(1);
                Err(refusal)
            }
        }
    }

    /// Opens the session of an admitted connection: registers the client, whose first frame is the welcome. An older
    /// session of the same client is closed as replaced. All sessions of one kind of wire should share one `encoder`,
    /// so that a message for all of them is encoded once.
    ///
    /// # Errors
    /// 503 while draining.
    pub fn open(
        &self,
        admitted: Admitted,
        encoder: Arc<dyn Encoder>,
        wire: Option<Box<dyn Wire>>,
    ) -> Result<Session, Refusal> {
        let router = &self.0.router;
        if self.is_closing() {
            return Err(Refusal::unavailable("the server is going away"));
        }
        let Admitted {
            slot,
            admission,
            remote,
        } = admitted;
        let Admission {
            id,
            metadata,
            groups,
            grant,
        } = admission;
        let options = self.options();
        let (now, epoch, tick) = (
            unix_millis(),
            router.registry.next_epoch(),
            router.clock.tick(),
        );
        let tick = || AtomicU32::new(tick);
        let heartbeat = Heartbeat {
            moved: tick(),
            ends: AtomicU32::new(
                router
                    .clock
                    .end(grant.as_ref().and_then(|grant| grant.until)),
            ),
            ..Heartbeat::default()
        };
        let metadata = (!metadata.is_empty()).then(|| Arc::new(metadata));
        let client = Arc::new(ClientShared {
            id: id.unwrap_or_else(ClientId::new),
            encoder,
            lane: router.lanes[(epoch % router.lanes.len() as u64) as usize].clone(),
            last_message: AtomicU64::new(now),
            heard: tick(),
            spoke: tick(),
            slot: AtomicU32::new(NO_SLOT),
            closed: AtomicBool::new(false),
            in_turn: AtomicBool::new(false),
            told_left: AtomicBool::new(false),
            outbox: Outbox::new(
                wire,
                options.outbox_bytes,
                options.outbox_messages,
                options.overflow,
            ),
            heartbeat,
            endpoint: self.0.endpoint.clone(),
            epoch,
            remote,
            connected_at: now,
            state: Mutex::new(ClientState {
                metadata,
                grant: grant.map(Arc::new),
                ..ClientState::default()
            }),
            router: Arc::downgrade(router),
        });
        // The registration and the welcome, and the first groups, are in the lane before the registry shows the
        // client; all of it is one turn, so that they are one write.
        let _turn = Turn::begin();
        client.lane.append(Entry::Admit(client.clone()));
        for group in &groups {
            router.join_local(&client, group);
        }
        if let Some(older) = router.registry.insert(client.clone()) {
            router.replace(&older);
        }
        router.check_revoked(&client);
        router.stats.connected.add(1);
        router.client_came(&client);
        if router.draining.load(Relaxed) {
            // The drain began meanwhile, and may have closed all others already.
            router.close(&client, CloseReason::GoingAway);
        }
        Ok(Session::new(client, router.clone(), slot))
    }

    /// Counts, asks and opens in one: for transports without a handshake.
    ///
    /// # Errors
    /// As [`Gate::slot`], [`Gate::admit`] and [`Gate::open`].
    pub async fn connect(
        &self,
        request: ConnectRequest,
        encoder: Arc<dyn Encoder>,
        wire: Option<Box<dyn Wire>>,
    ) -> Result<Session, Refusal> {
        let slot = self.slot(request.remote)?;
        let admitted = self.admit(slot, request).await?;
        self.open(admitted, encoder, wire)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("endpoint", self.endpoint())
            .finish_non_exhaustive()
    }
}

/// A hook that nobody waits for any more is not run to its end.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What counts as one address: an IPv6 subscriber has a whole /64 (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_subscriber_is_one_address() {
        let ip = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:1"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:127.0.0.1"), ip("127.0.0.1"));
    }
}
