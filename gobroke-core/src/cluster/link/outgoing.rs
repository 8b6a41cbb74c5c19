//! [`Outgoing`]: everything that goes to other instances, in one order for each sender, and what is known of them.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    cache::Cache,
    groups::Groups,
    pending::{Job, Key, Parcel, Parts, Pending, Share},
    resolve::Held,
};
use crate::{
    ClientId, Name, Source,
    cluster::{
        InstanceId, Membership, To,
        envelope::{Cargo, Content},
        line::{Lines, Out},
    },
    delivery::room::Room,
};

/// How many clients of other instances are remembered.
pub(crate) const CLIENTS: usize = 65_536;

/// Whether this instance takes part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// It may not hear what others send.
    Deaf,
    /// Nothing can be sent; it waits.
    Away,
    /// A newer instance has its name.
    Superseded,
}

/// What is counted beside the lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) dropped: u64,
    pub(super) redirected: u64,
    pub(super) unknown: u64,
    pub(super) look_ups: u64,
    pub(super) handed_back: u64,
    pub(super) unreadable: u64,
    /// Of lines that ended since this instance had to join anew.
    pub(super) earlier: crate::cluster::line::Counts,
}

/// What was decided about something that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handed {
    /// To how many instances it goes, as far as that is known now.
    pub(crate) instances: u32,
    /// For how many of its targets that is still looked up.
    pub(crate) looked_up: u32,
    /// How many clients are nowhere.
    pub(crate) unknown: u32,
}

/// What the link keeps under its lock. Nothing in it waits, and nothing calls the router.
pub(super) struct Outgoing {
    pub(super) lines: Lines,
    pub(super) carrier: Arc<dyn Membership>,
    pub(super) readiness: Readiness,
    pub(super) instances: BTreeSet<InstanceId>,
    pub(super) routes: Cache<ClientId, InstanceId>,
    pub(super) groups: Groups,
    pub(super) counts: Counts,
    /// What is to be done here after all, by the task that handles arrivals.
    pub(super) own: Vec<Cargo>,
    /// What the task that looks up has to ask for.
    pub(super) wanted: Vec<Key>,
    pub(super) asked: HashSet<Key>,
    /// Which senders wait for a key, and with which of what they hold.
    pub(super) waiters: HashMap<Key, Vec<(Source, u64)>>,
    pub(super) held: HashMap<Source, Held>,
    /// What is held next has this number, or a higher one.
    pub(super) numbered: u64,
    pub(super) queue: VecDeque<Parcel>,
    /// Frames that have their numbers, and that the carrier had no room for.
    stalled: VecDeque<(To, Bytes)>,
    pub(super) bytes: usize,
    bound: usize,
    room: Arc<Room>,
}

impl Outgoing {
    pub(super) fn new(
        lines: Lines,
        carrier: Arc<dyn Membership>,
        room: Arc<Room>,
        bound: usize,
    ) -> Self {
        Self {
            lines,
            carrier,
            readiness: Readiness::Ready,
            instances: BTreeSet::new(),
            routes: Cache::new(CLIENTS, |_| 1),
            groups: Groups::new(),
            counts: Counts::default(),
            own: Vec::new(),
            wanted: Vec::new(),
            asked: HashSet::new(),
            waiters: HashMap::new(),
            held: HashMap::new(),
            numbered: 0,
            queue: VecDeque::new(),
            stalled: VecDeque::new(),
            bytes: 0,
            bound,
            room,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the carrier takes frames.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.readiness, Readiness::Ready | Readiness::Deaf)
    }

    /// Takes room past what doors wait for, up to the bound: for answers, and while the cluster is away.
    pub(super) fn spare(&mut self, weight: usize) -> Option<Share> {
        (self.bytes + weight <= self.bound).then_some(Share {
            weight,
            pressing: false,
        })
    }

    /// Behind whom something is sent: its source; but what a logic module sends stays behind what that module did
    /// before in its own name, be it a client's message that it passes on.
    pub(super) fn sender(&self, source: &Source, logic: Option<&Name>) -> Source {
        if let Some(logic) = logic
            && !self.held.is_empty()
        {
            let logic = Source::Logic(logic.clone());
            if self.held.contains_key(&logic) {
                return logic;
            }
        }
        source.clone()
    }

    /// Counts what waits still: it is not sent any more.
    pub(super) fn give_up(&mut self) {
        let queued = self.queue.iter().map(|parcel| self.owed(&parcel.parts));
        let held = self.held.values().flat_map(|held| &held.pending);
        let held = held.map(|pending| match &pending.job {
            Job::Ready(parts) => self.owed(parts),
            Job::Resolving(resolving) => {
                (resolving.instances(self.lines.me()) + pending.missing) as u64
            }
        });
        self.counts.dropped += queued.chain(held).sum::<u64>();
        self.queue.clear();
        self.held.clear();
        self.counts.earlier.in_doubt += self.lines.unsettled();
    }

    /// Whether everything has been handed to the carrier, and nobody is held back.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.stalled.is_empty() && self.held.is_empty()
    }

    /// Whether the carrier has to say when it has room.
    pub(super) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Sends something that is known to go there, behind what its sender sent before.
    pub(super) fn send(
        &mut self,
        source: &Source,
        parts: Parts,
        share: Share,
        now: Instant,
    ) -> Handed {
        let instances = parts.iter().map(|(to, _)| self.reach(to)).sum();
        match self.held.get_mut(source) {
            Some(held) => {
                self.bytes += share.weight;
                held.pending.push_back(Pending {
                    job: Job::Ready(parts),
                    missing: 0,
                    since: now,
                    share,
                });
            }
            None => self.enqueue(parts, share, now),
        }
        Handed {
            instances,
            ..Handed::default()
        }
    }

    /// Sends something by itself: nobody's message, so no sender holds it back.
    pub(super) fn note(&mut self, to: To, content: Content, share: Share) {
        self.bytes += share.weight;
        let parts = std::iter::once((to, content)).collect();
        self.queue.push_back(Parcel { parts, share });
    }

    /// Hands it to the carrier, or has it wait where something waits already.
    pub(super) fn enqueue(&mut self, parts: Parts, share: Share, now: Instant) {
        self.bytes += share.weight;
        if self.is_up() && self.queue.is_empty() && !self.is_stalled() {
            self.dispatch(Parcel { parts, share }, now);
        } else {
            self.queue.push_back(Parcel { parts, share });
        }
    }

    /// Hands to the carrier what it takes.
    pub(super) fn flush(&mut self, now: Instant) {
        if !self.is_up() {
            return;
        }
        while let Some((to, frame)) = self.stalled.pop_front() {
            if self.carrier.publish(&to, frame.clone()).is_err() {
                self.stalled.push_front((to, frame));
                return;
            }
        }
        while let Some(parcel) = self.queue.pop_front() {
            self.dispatch(parcel, now);
            if self.is_stalled() {
                return;
            }
        }
    }

    fn dispatch(&mut self, Parcel { parts, share }: Parcel, now: Instant) {
        self.release(share);
        for (to, content) in parts {
            self.hand_over(to, &content, now);
        }
    }

    /// Draws a number and hands the frame to the carrier, or keeps it until that has room.
    fn hand_over(&mut self, to: To, content: &Content, now: Instant) {
        if self.reach(&to) == 0 {
            self.counts.dropped += u64::from(content.is_cargo() && to != To::All);
            return;
        }
        let frame = self
            .lines
            .send(&to, content.is_cargo(), |out| content.encode(out), now);
        if self.is_stalled() || self.carrier.publish(&to, frame.clone()).is_err() {
            self.stalled.push_back((to, frame));
        }
    }

    /// How many messages they are, counted once for each instance.
    fn owed(&self, parts: &Parts) -> u64 {
        let cargo = parts.iter().filter(|(_, content)| content.is_cargo());
        cargo.map(|(to, _)| u64::from(self.reach(to))).sum()
    }

    /// How many instances it reaches.
    pub(super) fn reach(&self, to: &To) -> u32 {
        match to {
            To::All => self.instances.len() as u32,
            To::Instance(instance) => u32::from(!self.lines.has_left(instance)),
        }
    }

    pub(super) fn release(&mut self, share: Share) {
        self.bytes -= share.weight;
        if share.pressing {
            self.room.release(1, share.weight);
        }
    }

    /// Publishes what lines have to say to each other. What the carrier does not take is said again later.
    pub(super) fn publish(&mut self, out: &mut Out) {
        for (to, frame) in out.publish.drain(..) {
            if self.is_up() {
                // Not taken is lost, and lines repair what is lost.
                let _ = self.carrier.publish(&to, frame);
            }
        }
        if std::mem::take(&mut out.lost_notes) {
            self.groups.forget();
        }
    }

    /// The cluster is away: nothing that waits presses any door from now on.
    pub(super) fn away(&mut self) {
        self.readiness = Readiness::Away;
        self.lines.away();
        let held = self.held.values_mut().flat_map(|held| &mut held.pending);
        let shares = self.queue.iter_mut().map(|parcel| &mut parcel.share);
        for share in shares.chain(held.map(|pending| &mut pending.share)) {
            if std::mem::take(&mut share.pressing) {
                self.room.release(1, share.weight);
            }
        }
    }

    /// The cluster is back: look-ups have their time from now on.
    pub(super) fn back(&mut self, now: Instant, out: &mut Out) {
        self.readiness = Readiness::Ready;
        for pending in self.held.values_mut().flat_map(|held| &mut held.pending) {
            pending.since = now;
        }
        self.lines.back(now, out);
    }

    pub(super) fn joined(
        &mut self,
        instance: &InstanceId,
        version: u8,
        now: Instant,
        out: &mut Out,
    ) -> bool {
        if instance.name == self.lines.me().name || self.lines.has_left(instance) {
            return false;
        }
        self.lines.joined(instance, version, now, out);
        self.instances.insert(instance.clone())
    }

    pub(super) fn left(&mut self, instance: &InstanceId, out: &mut Out) -> bool {
        self.lines.left(instance, out);
        self.routes.retain(|at| at != instance);
        self.groups.left(instance);
        self.instances.remove(instance)
    }

    /// Starts anew in another incarnation; [`back`](Self::back) says from when on.
    pub(super) fn rejoined(&mut self, lines: Lines, carrier: Arc<dyn Membership>) {
        let unsettled = self.lines.unsettled();
        let earlier = &mut self.counts.earlier;
        *earlier = earlier.plus(&self.lines.counts());
        earlier.in_doubt += unsettled;
        self.lines = lines;
        self.carrier = carrier;
        self.instances.clear();
        self.routes.clear();
        self.groups.forget();
        self.stalled.clear();
    }
}
