//! [`Outgoing`]: everything that goes to other instances, in one order for each sender, and what is known of them.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    cache::Cache,
    groups::Groups,
    pending::{Job, Key, Parcel, Parts, Pending, Resolving, Share},
};
use crate::{
    ClientId, Name, Source, Target,
    cluster::{
        InstanceId, Membership, To,
        envelope::{Cargo, Command, Content, Load},
        line::{Lines, Out},
    },
    delivery::room::Room,
};

/// How many clients of other instances are remembered.
const CLIENTS: usize = 65_536;
/// How long a look-up may hold back its sender.
const HELD: Duration = Duration::from_millis(500);

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
    asked: HashSet<Key>,
    /// Which senders wait for a key, and with which of what they hold.
    waiters: HashMap<Key, Vec<(Source, u64)>>,
    held: HashMap<Source, Held>,
    queue: VecDeque<Parcel>,
    /// Frames that have their numbers, and that the carrier had no room for.
    stalled: VecDeque<(To, Bytes)>,
    bytes: usize,
    bound: usize,
    room: Arc<Room>,
}

/// A sender that is held back: in order, from this number on.
#[derive(Default)]
struct Held {
    first: u64,
    pending: VecDeque<Pending>,
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
            routes: Cache::new(CLIENTS),
            groups: Groups::new(),
            counts: Counts::default(),
            own: Vec::new(),
            wanted: Vec::new(),
            asked: HashSet::new(),
            waiters: HashMap::new(),
            held: HashMap::new(),
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
        self.bytes += share.weight;
        match self.held.get_mut(source) {
            Some(held) => held.pending.push_back(Pending {
                job: Job::Ready(parts),
                missing: 0,
                since: now,
                share,
            }),
            None => self.queue.push_back(Parcel { parts, share }),
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

    /// Sends a message or a command to where its targets are; looks up those that are not remembered.
    pub(super) fn resolve(
        &mut self,
        source: &Source,
        mut resolving: Resolving,
        keys: impl IntoIterator<Item = Key>,
        share: Share,
        now: Instant,
    ) -> Handed {
        let mut missing: Vec<Key> = Vec::new();
        for key in keys {
            if !self.place(&mut resolving, &key) {
                missing.push(key);
            }
        }
        let handed = Handed {
            instances: resolving.at.len() as u32,
            looked_up: missing.len() as u32,
            unknown: resolving.unknown as u32,
        };
        if missing.is_empty() && !self.held.contains_key(source) {
            let parts = self.finish(resolving);
            self.bytes += share.weight;
            self.queue.push_back(Parcel { parts, share });
            return handed;
        }
        let held = self.held.entry(source.clone()).or_default();
        let number = held.first + held.pending.len() as u64;
        held.pending.push_back(Pending {
            job: Job::Resolving(resolving),
            missing: missing.len(),
            since: now,
            share,
        });
        self.bytes += share.weight;
        for key in missing {
            self.want(&key);
            self.waiters
                .entry(key)
                .or_default()
                .push((source.clone(), number));
        }
        handed
    }

    /// Places a key by what is remembered. Says whether it is.
    fn place(&mut self, resolving: &mut Resolving, key: &Key) -> bool {
        let me = self.lines.me();
        match key {
            _ if self.instances.is_empty() => resolving.place(key, &[], me),
            Key::Client(id) => match self.routes.get_mut(id, |_| 1) {
                Some(instance) => resolving.place(key, std::slice::from_ref(instance), me),
                None => return false,
            },
            Key::Group(name) => match self.groups.get(name) {
                Some(instances) => resolving.place(key, instances, me),
                None => return false,
            },
        }
        true
    }

    /// Everything is placed: what goes where. Counts what is nowhere, and sets apart what is here after all.
    fn finish(&mut self, mut resolving: Resolving) -> Parts {
        self.counts.unknown += resolving.unknown;
        let me = self.lines.me();
        if let Some(index) = resolving.at.iter().position(|(at, _)| at == me) {
            let (_, targets) = resolving.at.swap_remove(index);
            let load = match &resolving.load {
                Load::Message(message) => {
                    Load::Message(super::pending::for_targets(message, targets))
                }
                command => command.clone(),
            };
            self.own.push(Cargo {
                redirected: true,
                native: false,
                load,
            });
        }
        if let Load::Command {
            command: Command::Join(group),
            ..
        } = &resolving.load
        {
            for (instance, _) in &resolving.at {
                if self.groups.expect(group, instance) {
                    self.wanted.push(Key::Group(group.clone()));
                    self.asked.insert(Key::Group(group.clone()));
                }
            }
        }
        resolving.parts()
    }

    fn want(&mut self, key: &Key) {
        if self.asked.insert(key.clone()) {
            if let Key::Group(name) = key {
                self.groups.load(name);
            }
            self.wanted.push(key.clone());
        }
    }

    /// The directory says where a client is.
    pub(super) fn located(
        &mut self,
        client: ClientId,
        instance: Option<&InstanceId>,
        now: Instant,
    ) {
        let known: &[InstanceId] = instance.map_or(&[], std::slice::from_ref);
        if let Some(instance) = instance
            && instance != self.lines.me()
        {
            self.routes.insert(client, instance.clone(), 1);
        }
        self.answered(&Key::Client(client), known, now);
    }

    /// The directory says where a group has members, as it was asked in this era.
    pub(super) fn group_located(
        &mut self,
        group: &Name,
        instances: Vec<InstanceId>,
        era: u64,
        now: Instant,
    ) {
        let instances = self.groups.loaded(group, instances, era);
        self.answered(&Key::Group(group.clone()), &instances, now);
    }

    /// The directory did not answer: what somebody still waits for is to be asked again.
    pub(super) fn unanswered(&mut self, keys: Vec<Key>) {
        for key in keys {
            if self.waiters.contains_key(&key) {
                self.wanted.push(key);
            } else {
                self.asked.remove(&key);
                if let Key::Group(group) = &key {
                    self.groups.loaded(group, Vec::new(), u64::MAX);
                }
            }
        }
    }

    fn answered(&mut self, key: &Key, instances: &[InstanceId], now: Instant) {
        self.asked.remove(key);
        let me = self.lines.me().clone();
        for (source, number) in self.waiters.remove(key).unwrap_or_default() {
            let Some(held) = self.held.get_mut(&source) else {
                continue;
            };
            // What was given up meanwhile is not held any more.
            let Some(pending) = number
                .checked_sub(held.first)
                .and_then(|index| held.pending.get_mut(index as usize))
            else {
                continue;
            };
            if let Job::Resolving(resolving) = &mut pending.job {
                resolving.place(key, instances, &me);
                pending.missing -= 1;
            }
            self.advance(&source, now);
        }
    }

    /// Sends what a held sender has, as far as nothing of it waits any more.
    fn advance(&mut self, source: &Source, now: Instant) {
        let Some(mut held) = self.held.remove(source) else {
            return;
        };
        while let Some(pending) = held.pending.front() {
            let late = self.is_up() && now.saturating_duration_since(pending.since) >= HELD;
            if pending.missing > 0 && !late {
                break;
            }
            let Some(pending) = held.pending.pop_front() else {
                break;
            };
            held.first += 1;
            self.counts.dropped += pending.missing as u64;
            let parts = match pending.job {
                Job::Ready(parts) => parts,
                Job::Resolving(resolving) => self.finish(resolving),
            };
            self.queue.push_back(Parcel {
                parts,
                share: pending.share,
            });
        }
        if !held.pending.is_empty() {
            self.held.insert(source.clone(), held);
        }
    }

    /// Gives up look-ups that took too long.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.held.is_empty() || !self.is_up() {
            return;
        }
        let late = |held: &Held| {
            let first = held.pending.front();
            first.is_some_and(|pending| now.saturating_duration_since(pending.since) >= HELD)
        };
        let late = self.held.iter().filter(|(_, held)| late(held));
        let late: Vec<Source> = late.map(|(source, _)| source.clone()).collect();
        for source in late {
            self.advance(&source, now);
        }
        if self.held.is_empty() {
            self.waiters.clear();
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
        while let Some(Parcel { parts, share }) = self.queue.pop_front() {
            self.release(share);
            for (to, content) in parts {
                self.hand_over(to, &content, now);
            }
            if self.is_stalled() {
                return;
            }
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

    /// How many instances it reaches.
    fn reach(&self, to: &To) -> u32 {
        match to {
            To::All => self.instances.len() as u32,
            To::Instance(instance) => u32::from(!self.lines.has_left(instance)),
        }
    }

    fn release(&mut self, share: Share) {
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

    pub(super) fn joined(&mut self, instance: &InstanceId, now: Instant, out: &mut Out) -> bool {
        if instance.name == self.lines.me().name || self.lines.has_left(instance) {
            return false;
        }
        self.lines.joined(instance, now, out);
        self.instances.insert(instance.clone())
    }

    pub(super) fn left(&mut self, instance: &InstanceId, out: &mut Out) -> bool {
        self.lines.left(instance, out);
        self.routes.retain(|at| at != instance);
        self.groups.left(instance);
        self.instances.remove(instance)
    }

    /// A client was not where it was looked for.
    pub(super) fn not_at(&mut self, client: ClientId, instance: &InstanceId) {
        if self
            .routes
            .get_mut(&client, |_| 1)
            .is_some_and(|at| at == instance)
        {
            self.routes.remove(&client);
        }
    }

    /// Something came back: it is sent once more to where the directory says, unless that was the second time.
    pub(super) fn handed_back(&mut self, from: &InstanceId, cargo: Cargo, now: Instant) {
        let clients: Vec<ClientId> = match &cargo.load {
            Load::Message(message) => message
                .targets()
                .iter()
                .filter_map(|target| match target {
                    Target::Client(client) => Some(*client),
                    _ => None,
                })
                .collect(),
            Load::Command { client, .. } => vec![*client],
        };
        for client in &clients {
            self.not_at(*client, from);
        }
        if cargo.redirected {
            self.counts.unknown += clients.len() as u64;
            return;
        }
        let weight = match &cargo.load {
            Load::Message(message) => message.weight(),
            Load::Command { .. } => size_of::<Pending>(),
        };
        let Some(share) = self.spare(weight) else {
            self.counts.dropped += clients.len() as u64;
            return;
        };
        self.counts.redirected += clients.len() as u64;
        let resolving = Resolving {
            redirected: true,
            not_at: Some(from.clone()),
            ..Resolving::new(cargo.load)
        };
        let source = resolving.load.source().clone();
        let keys = clients.into_iter().map(Key::Client);
        self.resolve(&source, resolving, keys, share, now);
    }

    /// Starts anew in another incarnation.
    pub(super) fn rejoined(&mut self, lines: Lines, carrier: Arc<dyn Membership>) {
        let unsettled = self.lines.unsettled();
        let earlier = &mut self.counts.earlier;
        *earlier = earlier.plus(&self.lines.counts());
        earlier.in_doubt += unsettled;
        self.lines = lines;
        self.carrier = carrier;
        self.readiness = Readiness::Ready;
        self.instances.clear();
        self.routes.clear();
        self.groups.forget();
        self.stalled.clear();
    }
}
