//! [`Router`]: where a message goes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{builder::Hooks, clock::Clock, revoked::RevocationList};
use crate::cluster::{
    Full,
    link::{Link, Remote},
};
use crate::{
    Client, ClientId, CloseReason, LogicFailure, Message, Name, SendError, Source, Target,
    client::ClientShared,
    delivery::{
        lane::{Entry, Lane, Many, Recipients},
        run::Memory,
        turn::{self, Lent},
    },
    error::AddLogicError,
    logic::{
        Logic,
        greeting::Greeting,
        module::Module,
        queue::{NoRoom, Reserved},
    },
    middleware::Middleware,
    registry::Registry,
    stats::Counters,
};

/// A message that passed this many logic modules goes no further.
const MAX_HOPS: u8 = 32;

/// What routes: everything that the parts of one instance share.
pub(crate) struct Router {
    pub(crate) instance: Name,
    pub(crate) handle: Handle,
    pub(crate) clock: Clock,
    pub(crate) lanes: Box<[Arc<Lane>]>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) stats: Arc<Counters>,
    pub(crate) middleware: Middleware,
    pub(crate) hooks: Hooks,
    pub(crate) revocations: RevocationList,
    pub(crate) modules: DashMap<Name, Arc<Module>>,
    /// The modules that want to know who comes and goes.
    pub(crate) watchers: RwLock<Vec<Arc<Module>>>,
    /// The drain begins: endpoints stop accepting, doors stop receiving.
    pub(crate) closing: CancellationToken,
    /// The same for doors, which look at it for every read: a token has a lock.
    pub(crate) draining: AtomicBool,
    pub(crate) logic_cancelled: CancellationToken,
    /// Lanes and the clock end.
    pub(crate) stopped: CancellationToken,
    pub(crate) refuses: AtomicBool,
    /// Endpoints and their connections.
    pub(crate) connections: TaskTracker,
    pub(crate) addresses: Mutex<Vec<(Name, std::net::SocketAddr)>>,
    /// The place in the cluster, where there is one.
    pub(crate) link: OnceLock<Link>,
}

/// What became of a message that was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// For how many clients of this instance it is queued, target by target.
    pub clients: u32,
    /// For how many logic modules it is queued.
    pub logic: u32,
    /// To how many other instances it is handed, as far as is known at once.
    pub instances: u32,
    /// For how many of its targets it is still looked up on which instances they are.
    pub looked_up: u32,
    /// How many addressed clients are known nowhere.
    pub unknown: u32,
}

/// Who routes: a send, or the door, which runs dispatched logic in place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By<'a> {
    /// By this logic module, where one does.
    Send(Option<&'a Name>),
    Door,
}

impl Router {
    /// Sends a message of the program or of logic.
    pub(crate) fn send(
        self: &Arc<Self>,
        mut message: Message,
        logic: Option<&Name>,
    ) -> Result<Receipt, SendError> {
        // A client's message that is passed on stays the client's.
        if !matches!(message.source(), Source::Client(_)) {
            message.set_source(logic.map_or(Source::Server, |logic| Source::Logic(logic.clone())));
        }
        let (again, passed) = (message.take_came_back(), message.hops());
        if message.targets().has_logic() {
            let hops = message.hops().max(turn::hops()) + 1;
            if hops > MAX_HOPS {
                return Err(SendError::TooManyHops { hops });
            }
            message.set_hops(hops);
        }
        if !again && !self.middleware.send.is_empty() {
            self.middleware.send(&mut message);
            if message.is_rejected() {
                self.stats.rejected.add(1);
                let reason = message.reject_reason().unwrap_or_default().to_owned();
                return Err(SendError::Rejected { reason });
            }
        }
        let mut routed = self.route(message, By::Send(logic));
        if let Err(SendError::Full { message, .. }) = &mut routed {
            self.stats.full.add(1);
            message.set_hops(passed);
            message.come_back();
        }
        routed
    }

    /// Runs the middleware at the door, where no step waits. One that panics lets nothing through.
    pub(crate) fn filter(&self, message: &mut Message) {
        let filtered = catch_unwind(AssertUnwindSafe(|| self.middleware.receive_now(message)));
        if filtered.is_err() {
            self.stats.panics.add(1);
            message.reject("internal error");
        }
    }

    /// Routes what a client sent, within the turn of its door.
    pub(crate) fn receive(self: &Arc<Self>, message: Message) -> Result<Receipt, SendError> {
        self.route(message, By::Door)
    }

    /// Puts a message where it goes: everywhere, or nowhere.
    fn route(self: &Arc<Self>, message: Message, by: By<'_>) -> Result<Receipt, SendError> {
        if self.refuses.load(Relaxed) {
            return Err(SendError::Stopped);
        }
        let none_excluded = message.targets().excluded().next().is_none();
        match message.targets().as_slice() {
            [] => Err(SendError::NoTarget),
            [Target::Client(id)] if none_excluded => match turn::client(&self.registry, *id) {
                Some(client) if !client.is_closed() => self.to_client(message, client),
                _ => self.to_many(message, by),
            },
            [Target::Logic(name)] => {
                let module = self.module(name)?;
                self.to_logic(message, &module, by)
            }
            _ => self.to_many(message, by),
        }
    }

    fn to_client(&self, message: Message, client: Arc<ClientShared>) -> Result<Receipt, SendError> {
        let lane = &self.lanes[client.lane.context.index];
        let entry = Entry::Message {
            message,
            to: Recipients::Client(client),
        };
        let mut queue = lane.lock();
        if !lane.room.fits(entry.weight()) {
            drop(queue);
            turn::pressed(&lane.room, entry.weight(), false);
            return Err(full("lane", entry));
        }
        lane.push(&mut queue, entry);
        drop(queue);
        turn::fed(lane);
        Ok(Receipt {
            clients: 1,
            ..Receipt::default()
        })
    }

    fn to_logic(
        &self,
        message: Message,
        module: &Arc<Module>,
        by: By<'_>,
    ) -> Result<Receipt, SendError> {
        if by == By::Door && module.runs_at_door() {
            match module.take_off() {
                Ok(flying) => module.dispatch(message, flying),
                Err(why) => return Err(no_room(why, &module.name, Box::new(message))),
            }
        } else {
            let offered = module.offer(message);
            offered.map_err(|(why, message)| no_room(why, &module.name, message))?;
        }
        Ok(Receipt {
            logic: 1,
            ..Receipt::default()
        })
    }

    fn module(self: &Arc<Self>, name: &Name) -> Result<Lent, SendError> {
        let module =
            turn::module(self, name).ok_or_else(|| SendError::UnknownLogic(name.clone()))?;
        if module.is_passive() {
            return Err(SendError::PassiveLogic(name.clone()));
        }
        Ok(module)
    }

    /// Any mix of targets: room is taken everywhere before anything is queued anywhere.
    fn to_many(self: &Arc<Self>, message: Message, by: By<'_>) -> Result<Receipt, SendError> {
        let mut plan = self.plan(&message)?;
        let mut reserved: SmallVec<[Reserved<'_>; 2]> = SmallVec::new();
        let mut in_place: SmallVec<[_; 2]> = SmallVec::new();
        for module in &plan.modules {
            let room = match by == By::Door && module.runs_at_door() {
                true => module
                    .take_off()
                    .map(|flying| in_place.push((module, flying))),
                false => module.reserve(&message).map(|room| reserved.push(room)),
            };
            if let Err(why) = room {
                return Err(no_room(why, &module.name, Box::new(message)));
            }
        }
        let permit = match self.reserve_remote(&message, &plan.remote) {
            Ok(permit) => permit,
            Err(Full) => {
                return Err(SendError::Full {
                    queue: "cluster".into(),
                    message: Box::new(message),
                });
            }
        };
        if let Err(lane) = self.append_to_lanes(&message, &plan) {
            turn::pressed(
                &lane.room,
                size_of::<Entry>() + message.payload().len(),
                false,
            );
            return Err(SendError::Full {
                queue: "lane".into(),
                message: Box::new(message),
            });
        }
        for room in reserved {
            room.commit(message.clone());
        }
        for (module, flying) in in_place {
            module.dispatch(message.clone(), flying);
        }
        if let Some(permit) = permit {
            let logic = if let By::Send(logic) = by {
                logic
            } else {
                None
            };
            let handed = permit.send(&message, plan.remote, logic);
            plan.receipt.instances = handed.instances;
            plan.receipt.looked_up = handed.looked_up;
            plan.receipt.unknown += handed.unknown;
        }
        Ok(plan.receipt)
    }

    fn plan(self: &Arc<Self>, message: &Message) -> Result<Plan, SendError> {
        let mut plan = Plan::default();
        let clustered = self.link.get().is_some();
        for target in message.targets().iter() {
            match target {
                Target::All => {
                    plan.remote.all = clustered;
                    plan.many.everyone = true;
                    plan.receipt.clients += self.registry.len() as u32;
                }
                Target::Client(id) => match self
                    .registry
                    .client(*id)
                    .filter(|client| !client.is_closed())
                {
                    Some(client) => {
                        plan.receipt.clients += 1;
                        plan.many.clients.push(client);
                    }
                    None if clustered => plan.remote.clients.push(*id),
                    None => plan.receipt.unknown += 1,
                },
                Target::Group(name) => {
                    if clustered {
                        plan.remote.groups.push(name.clone());
                    }
                    if let Some(group) = self.registry.group(name) {
                        plan.receipt.clients += group.total();
                        plan.many.groups.push(group);
                    }
                }
                Target::Logic(name) => {
                    let module = self.module(name)?;
                    plan.modules.push(Arc::clone(&module));
                }
            }
        }
        plan.receipt.logic = plan.modules.len() as u32;
        let except = message
            .targets()
            .excluded()
            .filter_map(|id| self.registry.client(id));
        plan.many.except.extend(except);
        Ok(plan)
    }

    /// Appends a message to all lanes that it concerns, under all their locks, taken in the lanes' order: broadcasts
    /// have one order everywhere, and a cause comes before its effect.
    pub(super) fn append_to_lanes(&self, message: &Message, plan: &Plan) -> Result<(), &Arc<Lane>> {
        let mut shares: SmallVec<[(&Arc<Lane>, Recipients); 4]> = SmallVec::new();
        for lane in &self.lanes {
            if let Some(to) = plan.share(lane.context.index) {
                shares.push((lane, to));
            }
        }
        let weight = size_of::<Entry>() + message.payload().len();
        let mut queues: SmallVec<[_; 4]> = SmallVec::new();
        for (lane, _) in &shares {
            queues.push(lane.lock());
            if !lane.room.fits(weight) {
                return Err(lane);
            }
        }
        let mut fed: SmallVec<[&Arc<Lane>; 4]> = SmallVec::new();
        for ((lane, to), queue) in shares.into_iter().zip(&mut queues) {
            lane.push(
                queue,
                Entry::Message {
                    message: message.clone(),
                    to,
                },
            );
            fed.push(lane);
        }
        drop(queues);
        fed.into_iter().for_each(turn::fed);
        Ok(())
    }

    /// Appends an encoded control frame for a client, in order with its messages.
    pub(crate) fn send_frame(&self, client: &Arc<ClientShared>, frame: bytes::Bytes) {
        if !client.is_closed() {
            client.lane.append(Entry::Frame {
                client: client.clone(),
                frame,
            });
        }
    }

    /// Ends a client behind all that was sent to it.
    pub(crate) fn close(&self, client: &Arc<ClientShared>, reason: CloseReason) {
        let mut state = client.state.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        client.lane.append(Entry::Close(client.clone(), reason));
        client.closed.store(true, Relaxed);
    }

    /// Ends a client at once; what waits for it is dropped, and counted.
    pub(crate) fn end(&self, client: &Arc<ClientShared>, reason: CloseReason) {
        client.closed.store(true, Relaxed);
        if client.outbox.closing().is_none() && reason == CloseReason::SlowConsumer {
            self.stats.slow_consumers.add(1);
        }
        let dropped = client.outbox.end(reason);
        self.stats.dropped.add(dropped as u64);
    }

    /// A newer session of the same client has come: this one is closed, and logic is told that it left before it is
    /// told that the newer one joined.
    pub(crate) fn replace(&self, older: &Arc<ClientShared>) {
        self.close(older, CloseReason::Replaced);
        self.tell_left(older, &CloseReason::Replaced);
    }

    /// Tells logic that a client is gone, once.
    fn tell_left(&self, client: &Arc<ClientShared>, reason: &CloseReason) {
        if client.told_left.swap(true, Relaxed) {
            return;
        }
        let left = Client(client.clone());
        self.watchers
            .read()
            .iter()
            .for_each(|module| module.left(&left, reason));
    }

    pub(crate) fn join_local(&self, client: &Arc<ClientShared>, name: &Name) -> bool {
        let mut state = client.state.lock();
        if state.closed || state.groups.iter().any(|group| group.name == *name) {
            return false;
        }
        let (group, first) = self
            .registry
            .join(name, client.lane.context.index, self.lanes.len());
        client
            .lane
            .append(Entry::Join(client.clone(), group.clone()));
        state.groups.push(group);
        // Under the client's lock, so that the cluster is told in this order.
        self.group_joined(client, name, first);
        true
    }

    pub(crate) fn leave_local(&self, client: &Arc<ClientShared>, name: &Name) -> bool {
        let mut state = client.state.lock();
        let Some(index) = state.groups.iter().position(|group| group.name == *name) else {
            return false;
        };
        if state.closed {
            return false;
        }
        let group = state.groups.swap_remove(index);
        client.lane.append(Entry::Leave(client.clone(), group));
        self.group_left(client, name);
        true
    }

    /// A session is gone: registry, groups and logic forget the client. It appends and wakes, and never passes, since
    /// it may run in an unwinding.
    pub(crate) fn forget(&self, client: &Arc<ClientShared>) {
        let mut state = client.state.lock();
        state.closed = true;
        state.groups = Vec::new();
        client.closed.store(true, Relaxed);
        client.lane.append(Entry::Forget(client.clone()));
        drop(state);
        let reason = client
            .outbox
            .closing()
            .unwrap_or(CloseReason::ConnectionLost);
        let dropped = client.outbox.end(reason.clone());
        self.stats.dropped.add(dropped as u64);
        self.stats.panics.add(client.outbox.has_panicked().into());
        self.stats.disconnected.add(1);
        self.registry.remove(client);
        self.tell_left(client, &reason);
        self.client_went(client);
    }

    /// Tells logic that a client came; its door waits for the answer before its first message.
    pub(crate) fn greet(&self, client: &Arc<ClientShared>) -> Option<Arc<Greeting>> {
        let watchers = self.watchers.read();
        if watchers.is_empty() {
            return None;
        }
        let client = Client(client.clone());
        let greeting = Arc::default();
        watchers
            .iter()
            .for_each(|module| module.joined(&client, &greeting));
        (!greeting.is_done()).then_some(greeting)
    }

    pub(crate) fn add_logic(self: &Arc<Self>, logic: Logic) -> Result<(), AddLogicError> {
        if self.refuses.load(Relaxed) {
            return Err(AddLogicError::Stopped);
        }
        match self.modules.entry(logic.name.clone()) {
            dashmap::Entry::Occupied(known) => Err(AddLogicError::Duplicate(known.key().clone())),
            dashmap::Entry::Vacant(place) => {
                let module = Module::start(logic, self);
                if module.watches() {
                    self.watchers.write().push(module.clone());
                }
                place.insert(module);
                Ok(())
            }
        }
    }

    /// Takes a module away: nothing reaches it any more.
    pub(crate) fn take_logic(&self, name: &str) -> Option<Arc<Module>> {
        let (_, module) = self.modules.remove(name)?;
        self.watchers
            .write()
            .retain(|watcher| !Arc::ptr_eq(watcher, &module));
        Some(module)
    }

    pub(crate) fn logic_failed(&self, failure: &LogicFailure) {
        match failure.kind {
            crate::FailureKind::Panic(_) => self.stats.logic_panics.add(1),
            _ => self.stats.logic_errors.add(1),
        }
        tracing::error!("{failure}");
        if let Some(hook) = &self.hooks.on_error {
            let told = catch_unwind(AssertUnwindSafe(|| hook(failure)));
            if told.is_err() {
                self.stats.panics.add(1);
            }
        }
    }

    pub(crate) fn local_client(&self, id: ClientId) -> Option<Client> {
        self.registry
            .client(id)
            .filter(|client| !client.is_closed())
            .map(Client)
    }

    /// The members that a group has here.
    pub(crate) fn local_members(&self, name: &str) -> Vec<Client> {
        if self.registry.group(name).is_none() {
            return Vec::new();
        }
        let mut members = Vec::new();
        self.registry.for_each(|client| {
            if client
                .state
                .lock()
                .groups
                .iter()
                .any(|group| group.name == *name)
            {
                members.push(Client(client.clone()));
            }
        });
        members
    }
}

/// Where a message with several targets goes.
#[derive(Default)]
pub(super) struct Plan {
    modules: SmallVec<[Arc<Module>; 2]>,
    pub(super) many: Many,
    remote: Remote,
    receipt: Receipt,
}

impl Plan {
    /// What of it concerns a lane.
    fn share(&self, lane: usize) -> Option<Recipients> {
        let many = &self.many;
        let here = |client: &&Arc<ClientShared>| client.lane.context.index == lane;
        let share = Many {
            everyone: many.everyone,
            groups: many
                .groups
                .iter()
                .filter(|group| group.counts[lane].load(Relaxed) > 0)
                .cloned()
                .collect(),
            clients: many.clients.iter().filter(here).cloned().collect(),
            except: many.except.iter().filter(here).cloned().collect(),
        };
        match (
            share.everyone,
            &*share.groups,
            &*share.clients,
            &*share.except,
        ) {
            (false, [], [], _) => None,
            (true, [], [], []) => Some(Recipients::Everyone),
            (false, [group], [], []) => Some(Recipients::Group(group.clone())),
            (false, [], [client], []) => Some(Recipients::Client(client.clone())),
            _ => Some(Recipients::Many(Box::new(share))),
        }
    }
}

fn full(queue: &str, entry: Entry) -> SendError {
    match entry {
        Entry::Message { message, .. } => SendError::Full {
            queue: queue.into(),
            message: Box::new(message),
        },
        // Only messages are refused.
        _ => SendError::Stopped,
    }
}

fn no_room(why: NoRoom, name: &Name, message: Box<Message>) -> SendError {
    match why {
        NoRoom::Closed => SendError::UnknownLogic(name.clone()),
        NoRoom::Full => SendError::Full {
            queue: format!("logic {name}").into(),
            message,
        },
    }
}
