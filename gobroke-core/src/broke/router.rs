//! [`Router`]: where a message goes.

pub(super) mod many;
mod members;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{builder::Hooks, clock::Clock, revoked::RevocationList};
use crate::{
    ClientId, LogicFailure, Message, Name, SendError, Source, Target,
    client::ClientShared,
    cluster::link::{Handed, Link},
    delivery::{
        entry::{Entry, Recipients},
        lane::Lane,
        run::Memory,
        turn::{self, Lent},
    },
    error::AddLogicError,
    logic::{Kind, Logic, duty::Place, module::Module, queue::NoRoom},
    middleware::Middleware,
    registry::Registry,
    stats::Counters,
};

/// A message that passed this many logic modules goes no further.
pub(crate) const MAX_HOPS: u8 = 32;

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
    /// Whether there is to be one.
    pub(crate) clustered: bool,
    /// Where logic runs may be another place now: an instance came or went, or a lease changed hands.
    pub(crate) moved: Notify,
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

impl<'a> By<'a> {
    /// The logic module that sends, where one does.
    fn logic(self) -> Option<&'a Name> {
        match self {
            Self::Send(logic) => logic,
            Self::Door => None,
        }
    }
}

impl Receipt {
    const NONE: Self = Self {
        clients: 0,
        logic: 0,
        instances: 0,
        looked_up: 0,
        unknown: 0,
    };

    /// Queued for one client. As a constant it is written in one piece, and so it is read a moment later.
    const CLIENT: Self = Self {
        clients: 1,
        ..Self::NONE
    };

    /// Queued for one logic module.
    const LOGIC: Self = Self {
        logic: 1,
        ..Self::NONE
    };

    /// Notes what was decided about the targets that are elsewhere.
    fn handed(&mut self, handed: Handed) {
        self.instances = handed.instances;
        self.looked_up = handed.looked_up;
        self.unknown += handed.unknown;
    }
}

impl Router {
    /// Sends a message of the program or of logic.
    pub(crate) fn send(
        self: &Arc<Self>,
        message: Message,
        logic: Option<&Name>,
    ) -> Result<Receipt, SendError> {
        self.send_from(&mut Some(message), logic)
    }

    /// Sends a message to the sender of another one, or back to its own, out of its place.
    pub(crate) fn answer_from(
        self: &Arc<Self>,
        place: &mut Option<Message>,
        sender: Option<&Source>,
        logic: Option<&Name>,
    ) -> Result<Receipt, SendError> {
        match place.as_mut().is_some_and(|message| message.answer(sender)) {
            true => self.send_from(place, logic),
            false => Err(SendError::NoSender),
        }
    }

    /// Sends a message out of a place where it stays until it is taken: each move of a message is a copy of 128 bytes.
    pub(crate) fn send_from(
        self: &Arc<Self>,
        place: &mut Option<Message>,
        logic: Option<&Name>,
    ) -> Result<Receipt, SendError> {
        let Some(message) = place else {
            return Err(SendError::NoTarget);
        };
        // A client's message that is passed on stays the client's.
        if !matches!(message.source(), Source::Client(_)) {
            message.set_source(logic.map_or(Source::Server, |logic| Source::Logic(logic.clone())));
        }
        if !message.take_came_back() && !self.middleware.send.is_empty() {
            self.filter_send(message)?;
        }
        // An answer to the client whose turn it is: most of what a turn sends.
        if let Some(id) = message.targets().one_client()
            && !self.refuses.load(Relaxed)
            && turn::answer(&self.registry, id, place)
        {
            return Ok(Receipt::CLIENT);
        }
        self.send_on(place, logic)
    }

    /// Runs the middleware of sends. What that sends of the message itself has come as far as the message will have.
    fn filter_send(&self, message: &mut Message) -> Result<(), SendError> {
        let passed = message.hops();
        if message.targets().has_logic() {
            message.set_hops(next_hop(passed)?);
        }
        self.middleware.send(message);
        message.set_hops(passed);
        if message.is_rejected() {
            self.stats.rejected.add(1);
            let reason = message.reject_reason().unwrap_or_default().to_owned();
            return Err(SendError::Rejected { reason });
        }
        Ok(())
    }

    /// Counts a hop where logic comes next, and routes the message, or gives it back with the hops that it had.
    fn send_on(
        self: &Arc<Self>,
        place: &mut Option<Message>,
        logic: Option<&Name>,
    ) -> Result<Receipt, SendError> {
        let message = place.as_mut().ok_or(SendError::NoTarget)?;
        let passed = message.hops();
        if message.targets().has_logic() {
            message.set_hops(next_hop(passed)?);
        }
        let mut routed = self.route(place, By::Send(logic));
        if let Err(SendError::Full { message, .. }) = &mut routed {
            self.stats.full.add(1);
            message.set_hops(passed);
            message.come_back();
        }
        routed
    }

    /// Runs the middleware at the door, where no step waits. One that panics lets nothing through.
    #[inline]
    pub(crate) fn filter(&self, message: &mut Message) {
        let filtered = catch_unwind(AssertUnwindSafe(|| self.middleware.receive_now(message)));
        if filtered.is_err() {
            self.stats.panics.add(1);
            message.reject("internal error");
        }
    }

    /// Routes what a client sent, within the turn of its door; `met` is the module that took what came before it.
    #[inline]
    pub(crate) fn receive(
        self: &Arc<Self>,
        place: &mut Option<Message>,
        met: &mut Option<Lent>,
    ) -> Result<Receipt, SendError> {
        let Some([Target::Logic(name)]) =
            place.as_ref().map(|message| message.targets().as_slice())
        else {
            return self.route(place, By::Door);
        };
        if self.refuses.load(Relaxed) {
            return Err(SendError::Stopped);
        }
        let module = match met {
            Some(module) if module.is_still(name) => module,
            met => met.insert(self.module(name)?),
        };
        self.to_logic(place, module, By::Door)
    }

    /// Puts a message where it goes: everywhere, or nowhere.
    #[inline]
    fn route(
        self: &Arc<Self>,
        place: &mut Option<Message>,
        by: By<'_>,
    ) -> Result<Receipt, SendError> {
        if self.refuses.load(Relaxed) {
            return Err(SendError::Stopped);
        }
        let message = place.as_ref().ok_or(SendError::NoTarget)?;
        if let Some(id) = message.targets().one_client() {
            return self.to_one(place, id, by.logic());
        }
        match message.targets().as_slice() {
            [] => Err(SendError::NoTarget),
            [Target::Logic(name)] => {
                let module = self.module(name)?;
                self.to_logic(place, &module, by)
            }
            _ => self.to_many(place.take().ok_or(SendError::NoTarget)?, by),
        }
    }

    /// Puts a message for one client where it is.
    fn to_one(
        &self,
        place: &mut Option<Message>,
        id: ClientId,
        logic: Option<&Name>,
    ) -> Result<Receipt, SendError> {
        let client = turn::client(&self.registry, id).filter(|client| !client.is_closed());
        let message = place.take().ok_or(SendError::NoTarget)?;
        match client {
            Some(client) => self.to_client(message, client),
            None => self.to_absent(message, id, logic),
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
        turn::fed_for_one(lane);
        Ok(Receipt::CLIENT)
    }

    /// Puts a message for a client into its lane, whether there is room or not.
    pub(super) fn append_to_lane(&self, message: Message, client: Arc<ClientShared>) {
        let lane = &self.lanes[client.lane.context.index];
        let to = Recipients::Client(client);
        lane.push(&mut lane.lock(), Entry::Message { message, to });
        turn::fed(lane);
    }

    #[inline]
    fn to_logic(
        &self,
        place: &mut Option<Message>,
        module: &Arc<Module>,
        by: By<'_>,
    ) -> Result<Receipt, SendError> {
        let taken = match by == By::Door && module.runs_at_door() {
            true => module.run_at_door(place),
            false => module.offer(place),
        };
        match taken {
            Ok(()) => Ok(Receipt::LOGIC),
            Err(why) => Err(not_taken(why, module, place)),
        }
    }

    #[inline]
    fn module(self: &Arc<Self>, name: &Name) -> Result<Lent, SendError> {
        let module =
            turn::module(self, name).ok_or_else(|| SendError::UnknownLogic(name.clone()))?;
        if module.is_passive() {
            return Err(SendError::PassiveLogic(name.clone()));
        }
        Ok(module)
    }

    pub(crate) fn add_logic(self: &Arc<Self>, logic: Logic) -> Result<(), AddLogicError> {
        if self.refuses.load(Relaxed) {
            return Err(AddLogicError::Stopped);
        }
        if matches!(logic.kind, Kind::Dispatched(_)) && logic.place != Place::Here {
            return Err(AddLogicError::Dispatched(logic.name));
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

/// How many modules a message will have passed that is sent to one more.
fn next_hop(passed: u8) -> Result<u8, SendError> {
    let hops = passed.max(turn::hops()) + 1;
    match hops > MAX_HOPS {
        true => Err(SendError::TooManyHops { hops }),
        false => Ok(hops),
    }
}

/// Gives a message back that logic did not take out of its place.
#[cold]
fn not_taken(why: NoRoom, module: &Module, place: &mut Option<Message>) -> SendError {
    match place.take() {
        Some(message) => no_room(why, &module.name, Box::new(message)),
        None => SendError::NoTarget,
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
