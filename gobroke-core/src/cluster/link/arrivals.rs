//! What arrives: put in order by the lines, and routed here, never further.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Local, Shared, outgoing::Outgoing, pending::for_targets};
use crate::{
    Source, Target, Targets,
    cluster::{
        Inbox, InstanceId, Leaving, Notice, To,
        envelope::{Cargo, Content, Load},
        inbox::Event,
        line::{Bounds, Lines, Out},
    },
    message::More,
};

/// How many bytes are taken at a time: a small part of what a lane may hold.
const BATCH: usize = 1 << 20;
/// How many of them are routed in one turn, and about how many bytes: what a gap held back comes all at once.
const TURN: usize = 1024;
const TURN_BYTES: usize = 1 << 20;
/// How long it waits until it tries again to join anew.
const REJOIN: Duration = Duration::from_millis(500);

/// What is to be done here.
enum Work {
    Content(InstanceId, Content),
    /// Something of this instance's own, whose client turned out to be here.
    Own(Cargo),
    Joined(InstanceId),
    Left(InstanceId, Leaving),
}

impl Work {
    fn weight(&self) -> usize {
        let (Self::Content(_, Content::Cargo(cargo)) | Self::Own(cargo)) = self else {
            return size_of::<Self>();
        };
        match &cargo.load {
            Load::Message(message) => message.weight(),
            Load::Command { .. } => size_of::<Self>(),
        }
    }
}

/// What is to be told to others about what was done.
enum Reply {
    NotHere(InstanceId, Cargo),
    Vain(InstanceId, Vec<crate::Name>),
    Unknown(u64),
}

/// What is to be done, and whether this incarnation has to join anew behind it.
#[derive(Default)]
pub(super) struct Arrived {
    work: VecDeque<Work>,
    expelled: bool,
}

/// Takes what the inbox begins with: who is there.
pub(super) fn greet(shared: &Shared) -> Arrived {
    let mut arrived = Arrived::default();
    let mut events = Vec::new();
    let inbox = shared.inbox.lock().clone();
    inbox.try_take(usize::MAX, &mut events);
    arrived.expelled = sort(shared, &mut events, &mut arrived.work);
    arrived
}

/// Does what there is to do, and takes what arrives.
pub(super) async fn run(shared: Arc<Shared>, mut arrived: Arrived) {
    let mut events = Vec::new();
    loop {
        while !arrived.work.is_empty() {
            let Some(local) = shared.local.upgrade() else {
                return;
            };
            local.room().await;
            let mut replies = Vec::new();
            route(&shared, &*local, &mut arrived.work, &mut replies);
            answer(&shared, replies);
        }
        if arrived.expelled {
            rejoin(&shared, &mut arrived.work).await;
        }
        let inbox = shared.inbox.lock().clone();
        inbox.take(BATCH, &mut events).await;
        arrived.expelled = sort(&shared, &mut events, &mut arrived.work);
    }
}

/// How much of it is one turn's, at least the first.
fn some(work: &VecDeque<Work>) -> usize {
    let mut bytes = 0;
    let fits = |work: &&Work| {
        let fits = bytes < TURN_BYTES;
        bytes += work.weight();
        fits
    };
    work.iter().take(TURN).take_while(fits).count()
}

/// Lets the lines put frames in order. Says whether this incarnation has to join anew.
fn sort(shared: &Shared, events: &mut Vec<Event>, work: &mut VecDeque<Work>) -> bool {
    let now = Instant::now();
    let mut out = Out::default();
    let mut expelled = false;
    let mut outgoing = shared.lock();
    for event in events.drain(..) {
        match event {
            Event::Frame(frame) => {
                if let Err(error) = outgoing.lines.arrived(&frame, now, &mut out) {
                    outgoing.counts.unreadable += 1;
                    tracing::warn!(%error, bytes = frame.len(), "a frame of the cluster cannot be read");
                }
            }
            Event::Tick => {
                outgoing.lines.tick(now, &mut out);
                outgoing.expire(now);
            }
            Event::Notice(notice) => {
                let before = work.len();
                expelled |= notified(shared, &mut outgoing, notice, now, &mut out, work);
                // What was released by the notice comes before what it says.
                let said: Vec<Work> = work.drain(before..).collect();
                unpack(&mut outgoing, &mut out, work);
                work.extend(said);
            }
        }
        unpack(&mut outgoing, &mut out, work);
        outgoing.publish(&mut out);
    }
    work.extend(outgoing.own.drain(..).map(Work::Own));
    outgoing.flush(now);
    shared.wake(&outgoing);
    expelled
}

/// Reads what the lines released. What the link itself has to know, it learns here, in order.
fn unpack(outgoing: &mut Outgoing, out: &mut Out, work: &mut VecDeque<Work>) {
    for delivery in out.deliver.drain(..) {
        match Content::decode(&delivery.content) {
            Ok(Content::Gained(groups)) => {
                for group in groups {
                    outgoing.groups.gained(&group, &delivery.origin);
                }
            }
            Ok(Content::Vain(groups)) => {
                for group in groups {
                    outgoing.groups.vain(&group, &delivery.origin);
                }
            }
            Ok(Content::Forget) => outgoing.groups.forget(),
            Ok(content) => {
                if let Content::Cargo(cargo) = &content {
                    learn(outgoing, cargo, &delivery.origin);
                }
                work.push_back(Work::Content(delivery.origin, content));
            }
            Err(error) => {
                outgoing.counts.unreadable += 1;
                tracing::warn!(%error, origin = %delivery.origin, "an envelope cannot be read");
            }
        }
    }
}

/// An envelope teaches where its source is.
fn learn(outgoing: &mut Outgoing, cargo: &Cargo, origin: &InstanceId) {
    if let Source::Client(client) = cargo.load.source()
        && cargo.native
        && outgoing.routes.get(client) != Some(origin)
    {
        outgoing.routes.insert(*client, origin.clone());
    }
}

fn notified(
    shared: &Shared,
    outgoing: &mut Outgoing,
    notice: Notice,
    now: Instant,
    out: &mut Out,
    work: &mut VecDeque<Work>,
) -> bool {
    use super::Readiness;
    tracing::debug!(instance = %shared.name, ?notice, "told by the cluster");
    match notice {
        Notice::Joined(instance, version) => {
            let older = outgoing.instances.iter();
            let older = older.filter(|known| known.name == instance.name && **known != instance);
            for older in older.cloned().collect::<Vec<_>>() {
                outgoing.left(&older, out);
                work.push_back(Work::Left(older, Leaving::Replaced));
            }
            if outgoing.joined(&instance, version, now, out) {
                work.push_back(Work::Joined(instance));
            }
        }
        Notice::Left(instance, why) => {
            if outgoing.left(&instance, out) {
                work.push_back(Work::Left(instance, why));
            }
        }
        Notice::Away if outgoing.readiness != Readiness::Superseded => outgoing.away(),
        Notice::Deaf if outgoing.readiness != Readiness::Superseded => {
            if outgoing.readiness == Readiness::Away {
                outgoing.back(now, out);
                shared.registrar.retry();
            }
            outgoing.readiness = Readiness::Deaf;
        }
        Notice::Back if outgoing.readiness != Readiness::Superseded => {
            outgoing.back(now, out);
            shared.registrar.retry();
        }
        Notice::Away | Notice::Deaf | Notice::Back => {}
        Notice::OutOfStep => shared.registrar.write_all(),
        Notice::Expelled => return true,
        Notice::Superseded => {
            outgoing.away();
            outgoing.readiness = Readiness::Superseded;
            tracing::error!(instance = %shared.name, "a newer instance has this one's name; this one takes part no more");
        }
    }
    false
}

/// Routes a batch as one turn.
fn route(shared: &Shared, local: &dyn Local, work: &mut VecDeque<Work>, replies: &mut Vec<Reply>) {
    let mut origins = Origins::default();
    let count = some(work);
    local.turn(&mut || {
        for work in work.drain(..count) {
            match work {
                Work::Content(origin, Content::Cargo(mut cargo)) => {
                    if let Load::Message(message) = &mut cargo.load {
                        message.come_from(origins.of(&origin));
                    }
                    deliver(local, Some(origin), cargo, replies);
                }
                Work::Own(cargo) => deliver(local, None, cargo, replies),
                Work::Content(origin, Content::NotHere(cargo)) => {
                    let mut outgoing = shared.lock();
                    outgoing.handed_back(&origin, cargo, Instant::now());
                    shared.wake(&outgoing);
                }
                Work::Content(
                    _,
                    Content::Replaced {
                        client,
                        registration,
                    },
                ) => {
                    shared.registrar.replaced(local, client, registration);
                }
                Work::Content(_, Content::Revoked(revocations)) => local.revoked(&revocations),
                Work::Content(_, Content::Moved(logic)) => local.logic_moved(&logic),
                Work::Content(_, _) => {}
                Work::Joined(instance) => local.instance_joined(&instance),
                Work::Left(instance, why) => local.instance_left(&instance, why),
            }
        }
    });
}

/// What the messages of one instance share, for the one that was met last.
#[derive(Default)]
struct Origins(Option<(InstanceId, Arc<More>)>);

impl Origins {
    fn of(&mut self, origin: &InstanceId) -> &Arc<More> {
        let known = self.0.take().filter(|(known, _)| known == origin);
        let (_, shared) = self.0.insert(known.unwrap_or_else(|| {
            let shared = More::from_instance(origin.name.clone());
            (origin.clone(), Arc::new(shared))
        }));
        shared
    }
}

/// Routes one message or command; `origin` is `None` for this instance's own.
fn deliver(local: &dyn Local, origin: Option<InstanceId>, cargo: Cargo, replies: &mut Vec<Reply>) {
    let Cargo {
        redirected,
        native,
        load,
    } = cargo;
    let back = |load| Cargo {
        redirected,
        native,
        load,
    };
    match load {
        Load::Message(message) => {
            let missing = local.deliver(message);
            let Some(origin) = origin else {
                replies.push(Reply::Unknown(missing.clients.len() as u64));
                return;
            };
            if !missing.groups.is_empty() {
                replies.push(Reply::Vain(origin.clone(), missing.groups.into_vec()));
            }
            if let Some(message) = missing.message {
                let clients = missing.clients.into_iter().map(Target::Client);
                let targets = Targets::from_lists(clients.collect(), Vec::new());
                let message = for_targets(message, targets);
                replies.push(Reply::NotHere(origin, back(Load::Message(message))));
            }
        }
        Load::Command {
            source,
            client,
            command,
        } => {
            if local.command(client, command.clone()) {
                return;
            }
            match origin {
                Some(origin) => {
                    let load = Load::Command {
                        source,
                        client,
                        command,
                    };
                    replies.push(Reply::NotHere(origin, back(load)));
                }
                None => replies.push(Reply::Unknown(1)),
            }
        }
    }
}

/// Hands back what was not for here, and says which groups have nobody here.
fn answer(shared: &Shared, replies: Vec<Reply>) {
    if replies.is_empty() {
        return;
    }
    let mut outgoing = shared.lock();
    for reply in replies {
        match reply {
            Reply::Unknown(count) => outgoing.counts.unknown += count,
            Reply::Vain(origin, groups) => {
                if let Some(share) = outgoing.spare(64) {
                    outgoing.note(To::Instance(origin), Content::Vain(groups), share);
                }
            }
            Reply::NotHere(origin, cargo) => {
                let (weight, count) = match &cargo.load {
                    Load::Message(message) => {
                        (message.weight(), message.targets().as_slice().len())
                    }
                    Load::Command { .. } => (256, 1),
                };
                match outgoing.spare(weight) {
                    Some(share) => {
                        outgoing.counts.handed_back += count as u64;
                        outgoing.note(To::Instance(origin), Content::NotHere(cargo), share);
                    }
                    None => outgoing.counts.dropped += count as u64,
                }
            }
        }
    }
    outgoing.flush(Instant::now());
    shared.wake(&outgoing);
}

/// Joins in a new incarnation: the old one was removed while this instance could not say that it lives.
async fn rejoin(shared: &Shared, work: &mut VecDeque<Work>) {
    tracing::warn!(instance = %shared.name, "this instance was removed from the cluster; it joins anew");
    let known = {
        let mut outgoing = shared.lock();
        outgoing.away();
        outgoing.instances.clone()
    };
    let (carrier, inbox) = loop {
        let inbox = Inbox::new();
        match shared.cluster.join(&shared.name, inbox.clone()).await {
            Ok(carrier) => break (carrier, inbox),
            Err(error) => tracing::warn!(%error, "cannot join the cluster anew"),
        }
        sleep(REJOIN).await;
    };
    let me = InstanceId::new(&shared.name, carrier.incarnation());
    let mut out = Out::default();
    {
        let mut outgoing = shared.lock();
        outgoing.rejoined(Lines::new(me, Bounds::default()), carrier.into());
        outgoing.back(Instant::now(), &mut out);
        outgoing.publish(&mut out);
    }
    shared.registrar.write_all();
    // The inbox begins with those who are there. Who of those that were known is not, has left meanwhile.
    let mut events = Vec::new();
    inbox.try_take(usize::MAX, &mut events);
    *shared.inbox.lock() = inbox;
    sort(shared, &mut events, work);
    work.retain(|work| !matches!(work, Work::Joined(instance) if known.contains(instance)));
    let there = shared.lock().instances.clone();
    let left = known.difference(&there).cloned();
    work.extend(left.map(|instance| Work::Left(instance, Leaving::Expired)));
}
