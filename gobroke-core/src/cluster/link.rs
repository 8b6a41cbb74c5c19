//! [`Link`]: what stands between the router and the cluster.
//!
//! Outwards: a message is reserved room for, its targets are found (remembered, or looked up, which holds back its
//! sender alone), and what goes to one instance becomes one envelope, which waits in a bounded queue until the carrier
//! takes it. Inwards: a task takes what arrived, lets the lines put it in order, and routes it, never further.
//! Beside them, one task looks up, one writes what changed here into the directory, and one minds the time.

mod arrivals;
pub(crate) mod cache;
mod groups;
mod local;
mod lookups;
pub(crate) mod outgoing;
mod pending;
mod permit;
mod record;
mod registrar;
mod resolve;
mod stats;

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::stats::ClusterStats;
pub(crate) use self::{
    local::{Local, Missing},
    outgoing::{Handed, Readiness},
    permit::{Permit, Remote},
};
use self::{
    outgoing::Outgoing,
    pending::{Key, Resolving, Share, command},
    registrar::Registrar,
};
use super::{
    Claim, Cluster, ClusterError, Count, Cursor, Full, Inbox, InstanceId, Membership, Page, To,
    envelope::{Command, Content},
    line::{Bounds, Lines, Out},
};
use crate::{
    ClientId, ClientInfo, Message, Metadata, Name, Revocation, Source, delivery::room::Room,
};

/// How many bytes may wait for the carrier. At half the doors wait, at the whole sends are refused with `Full`; while
/// the cluster is away, what exceeds it is dropped and counted.
pub(crate) const QUEUE: usize = 8 << 20;
/// How often the lines are told the time.
const TICK: Duration = Duration::from_millis(100);
/// How often a drain looks at what is left.
const LOOK: Duration = Duration::from_millis(5);
/// How often a drain asks others how far they are.
const PRESS: Duration = Duration::from_millis(50);
/// How long leaving may take beyond the drain.
const LEAVE: Duration = Duration::from_secs(2);

/// An instance's place in the cluster, for its router.
pub(crate) struct Link {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stopped: CancellationToken,
}

/// What the link's tasks share.
struct Shared {
    name: Name,
    cluster: Arc<dyn Cluster>,
    local: Weak<dyn Local>,
    /// How full the queue is: what doors wait for.
    room: Arc<Room>,
    outgoing: Mutex<Outgoing>,
    registrar: Registrar,
    inbox: Mutex<Inbox>,
    /// Something is to be looked up.
    wanted: Notify,
    /// The carrier had no room.
    stalled: Notify,
}

impl Link {
    /// Joins the cluster, and starts what keeps the place in it.
    pub(crate) async fn join(
        cluster: Arc<dyn Cluster>,
        name: &Name,
        local: Weak<dyn Local>,
    ) -> Result<Self, ClusterError> {
        let inbox = Inbox::new();
        let carrier: Arc<dyn Membership> = cluster.join(name, inbox.clone()).await?.into();
        let me = InstanceId::new(name, carrier.incarnation());
        let room = Arc::new(Room::new(usize::MAX, QUEUE));
        let mut lines = Lines::new(me, Bounds::default());
        let mut out = Out::default();
        lines.back(Instant::now(), &mut out);
        let mut outgoing = Outgoing::new(lines, carrier, room.clone(), QUEUE);
        outgoing.publish(&mut out);
        let shared = Arc::new(Shared {
            name: name.clone(),
            cluster,
            local,
            room,
            outgoing: Mutex::new(outgoing),
            registrar: Registrar::default(),
            inbox: Mutex::new(inbox),
            wanted: Notify::new(),
            stalled: Notify::new(),
        });
        let link = Self {
            tasks: TaskTracker::new(),
            stopped: CancellationToken::new(),
            shared,
        };
        // Those who are there already are known before anything is sent.
        let arrived = arrivals::greet(&link.shared);
        link.spawn(|shared| arrivals::run(shared, arrived));
        link.spawn(lookups::run);
        link.spawn(registrar::run);
        link.spawn(mind_the_time);
        link.spawn(pump);
        Ok(link)
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Arc<Shared>) -> F) {
        let task = self
            .stopped
            .clone()
            .run_until_cancelled_owned(task(self.shared.clone()));
        self.tasks.spawn(task);
    }

    /// Whether this instance takes part: what readiness reports, and whether doors admit.
    pub(crate) fn readiness(&self) -> Readiness {
        self.shared.lock().readiness
    }

    /// The other instances.
    pub(crate) fn instances(&self) -> Vec<InstanceId> {
        self.shared.lock().instances.iter().cloned().collect()
    }

    /// How full the queue is: doors wait for it.
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.shared.room
    }

    /// Reserves room for a message of this weight.
    pub(crate) fn reserve(&self, weight: usize) -> Result<Permit<'_>, Full> {
        let shared = &*self.shared;
        let mut outgoing = shared.lock();
        let share = if outgoing.is_up() {
            if !shared.room.reserve(weight) {
                return Err(Full);
            }
            Some(Share {
                weight,
                pressing: true,
            })
        } else {
            outgoing.spare(weight)
        };
        drop(outgoing);
        Ok(Permit { shared, share })
    }

    /// Has something done with a client of another instance, in order with what `source` sends.
    pub(crate) fn command(
        &self,
        source: &Source,
        client: ClientId,
        what: Command,
    ) -> Result<Handed, Full> {
        let permit = self.reserve(size_of::<Resolving>())?;
        let load = command(source, client, what);
        Ok(permit.resolve(Resolving::new(load), [Key::Client(client)], None))
    }

    /// This instance, in the life that it is in now.
    pub(crate) fn me(&self) -> InstanceId {
        self.shared.lock().lines.me().clone()
    }

    /// How long a lease lasts.
    pub(crate) fn lease(&self) -> Duration {
        self.shared.lock().carrier.lease()
    }

    /// Renews, or tries to get, the lease of a logic module that runs once; see [`Membership::claim`].
    pub(crate) async fn claim(
        &self,
        logic: &Name,
        held: Option<u64>,
        take: bool,
    ) -> Result<Claim, ClusterError> {
        let carrier = self.shared.lock().carrier.clone();
        carrier.claim(logic, held, take).await
    }

    /// Gives such a lease back.
    pub(crate) async fn release(&self, logic: &Name, token: u64) -> Result<(), ClusterError> {
        let carrier = self.shared.lock().carrier.clone();
        carrier.release(logic, token).await
    }

    /// Carries a message to a logic module that runs on another instance.
    pub(crate) fn carry(
        &self,
        message: &Message,
        logic: &Name,
        to: &InstanceId,
    ) -> Result<(), Full> {
        let permit = self.reserve(message.weight())?;
        permit.carry(message, logic, to);
        Ok(())
    }

    /// Tells all that a logic module that runs once has another holder, or none.
    pub(crate) fn tell_moved(&self, logic: &Name) {
        let mut outgoing = self.shared.lock();
        outgoing.note(To::All, Content::Moved(logic.clone()), Share::default());
        outgoing.flush(Instant::now());
        self.shared.wake(&outgoing);
    }

    /// Tells one instance, or all, what was revoked.
    pub(crate) fn revoked(&self, to: Option<InstanceId>, revocations: Vec<Revocation>) {
        let to = to.map_or(To::All, To::Instance);
        let mut outgoing = self.shared.lock();
        // They are few and small: they take room past the bound rather than be lost.
        outgoing.note(to, Content::Revoked(revocations), Share::default());
        outgoing.flush(Instant::now());
        self.shared.wake(&outgoing);
    }

    /// A client is here, in a session of this epoch: a later one for the same client.
    pub(crate) fn client_came(&self, info: ClientInfo, epoch: u64) {
        self.shared.registrar.client_came(info, epoch);
    }

    /// A session is gone. One that is not the client's latest changes nothing.
    pub(crate) fn client_went(&self, client: ClientId, epoch: u64) {
        self.shared.registrar.client_went(client, epoch);
    }

    pub(crate) fn metadata_changed(&self, client: ClientId, epoch: u64, metadata: Arc<Metadata>) {
        self.shared
            .registrar
            .metadata_changed(client, epoch, metadata);
    }

    /// A client joined a group: to be told in the order in which it joins and leaves.
    pub(crate) fn joined_group(&self, client: ClientId, epoch: u64, group: &Name) {
        self.shared.registrar.moved(client, epoch, group, true);
    }

    pub(crate) fn left_group(&self, client: ClientId, epoch: u64, group: &Name) {
        self.shared.registrar.moved(client, epoch, group, false);
    }

    /// A group has its first member here, or none any more: whichever of it is true when it is written.
    pub(crate) fn group_changed(&self, group: &Name) {
        self.shared.registrar.group_changed(group);
    }

    /// What is known of a client of another instance.
    pub(crate) async fn client(&self, id: ClientId) -> Result<Option<ClientInfo>, ClusterError> {
        let carrier = self.shared.lock().carrier.clone();
        carrier.client(id).await
    }

    /// A page of the clients of other instances, with a group of its members alone.
    pub(crate) async fn clients(
        &self,
        group: Option<&Name>,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Page, ClusterError> {
        let carrier = self.shared.lock().carrier.clone();
        carrier.clients(group, cursor, limit).await
    }

    /// How many clients other instances have.
    pub(crate) async fn count(&self) -> Result<Count, ClusterError> {
        let carrier = self.shared.lock().carrier.clone();
        carrier.count().await
    }

    /// Waits until what was sent has been handed over and acknowledged, and what others are known to have sent has come,
    /// until `end` at the latest; not for a cluster that is away.
    pub(crate) async fn drain(&self, end: Instant) {
        let mut press = Instant::now();
        loop {
            let now = Instant::now();
            {
                let mut outgoing = self.shared.lock();
                outgoing.flush(now);
                let lines = &outgoing.lines;
                let done = outgoing.is_drained() && lines.is_settled() && !lines.is_missing_any();
                if done || !outgoing.is_up() || now >= end {
                    return;
                }
                if now >= press {
                    let mut out = Out::default();
                    outgoing.lines.press(now, &mut out);
                    outgoing.publish(&mut out);
                    press = now + PRESS;
                }
            }
            sleep(LOOK).await;
        }
    }

    /// Leaves the cluster, a little after `end` at the latest.
    pub(crate) async fn leave(&self, end: Instant) {
        self.stopped.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let carrier = {
            let mut outgoing = self.shared.lock();
            outgoing.give_up();
            outgoing.carrier.clone()
        };
        if timeout_at(end + LEAVE, carrier.leave()).await.is_err() {
            tracing::warn!(
                "leaving the cluster took too long; others learn of it when the lease ends"
            );
        }
    }

    /// Stops taking part, without a word.
    pub(crate) fn abort(&self) {
        self.stopped.cancel();
        self.tasks.close();
    }

    pub(crate) fn stats(&self) -> ClusterStats {
        let overflowed = self.shared.inbox.lock().dropped();
        let outgoing = self.shared.lock();
        let counts = &outgoing.counts;
        let lines = outgoing.lines.counts().plus(&counts.earlier);
        let (kept_bytes, held_bytes) = outgoing.lines.memory();
        ClusterStats {
            ready: outgoing.readiness == Readiness::Ready,
            instances: outgoing.instances.len(),
            queue_bytes: outgoing.bytes(),
            kept_bytes,
            held_bytes,
            known_clients: outgoing.routes.len(),
            known_groups: outgoing.groups.len(),
            sent: lines.sent,
            received: lines.received,
            lost: lines.lost,
            dropped: counts.dropped,
            in_doubt: lines.in_doubt,
            redirected: counts.redirected,
            unknown: counts.unknown,
            handed_back: counts.handed_back,
            look_ups: counts.look_ups,
            doubled: lines.doubled,
            repaired: lines.repaired,
            stale: lines.stale,
            unreadable: counts.unreadable,
            overflowed,
            failed_writes: self.shared.registrar.failed(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.abort();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock()
    }

    /// Wakes the tasks that have something to do now.
    fn wake(&self, outgoing: &Outgoing) {
        if !outgoing.wanted.is_empty() {
            self.wanted.notify_one();
        }
        // While the cluster is away, its return is what sets going what is stalled.
        if outgoing.is_stalled() && outgoing.is_up() {
            self.stalled.notify_one();
        }
        if !outgoing.own.is_empty() {
            self.inbox.lock().tick();
        }
    }
}

/// Tells the lines the time, and gives up look-ups that took too long.
async fn mind_the_time(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.inbox.lock().tick();
    }
}

/// Goes on when the carrier has room again.
async fn pump(shared: Arc<Shared>) {
    loop {
        shared.stalled.notified().await;
        let carrier = shared.lock().carrier.clone();
        carrier.room().await;
        let mut outgoing = shared.lock();
        outgoing.flush(Instant::now());
        shared.wake(&outgoing);
    }
}
