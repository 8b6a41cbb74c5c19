//! [`Module`]: a logic module while it runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Handler, Kind, Logic, LogicContext, Make, Passive,
    duty::Place,
    greeting::{Greeted, Greeting},
    queue::{Item, NoRoom, Queue, Reserved},
    run::{Caught, Outcome},
};
use crate::{
    Client, CloseReason, LogicFailure, Message, Name,
    broke::router::Router,
    delivery::{
        lane::{SLICE, look_at_sockets},
        room::Room,
        turn::{self, InTurns},
    },
    error::FailureKind,
    stats::{Counter, LogicStats},
};

/// How many messages are taken from a queue for one turn.
pub(super) const TURN: usize = 64;

/// A logic module while it runs.
pub(crate) struct Module {
    pub(crate) name: Name,
    pub(crate) ctx: LogicContext,
    pub(super) running: Running,
    failures: Counter,
    closed: AtomicBool,
    /// Where it runs, of one that runs elsewhere or once, as far as that is known.
    pub(super) holder: Mutex<Option<Name>>,
    placed: bool,
    tasks: TaskTracker,
    /// Its tasks end at their next wait.
    aborted: CancellationToken,
}

/// What starts a module's tasks, once it is there.
type Start = Box<dyn FnOnce(&Arc<Module>)>;

pub(super) enum Running {
    /// Handlers that wait are counted in `flight`; what logic sends goes through `queue`.
    Dispatched {
        handler: Handler,
        flight: Arc<Room>,
        queue: Arc<Queue>,
    },
    Worker {
        queues: Vec<Arc<Queue>>,
    },
    Passive,
}

impl Module {
    /// Starts a module.
    pub(crate) fn start(logic: Logic, router: &Arc<Router>) -> Arc<Self> {
        let place = match logic.place {
            Place::On(name) if name == router.instance => Place::Here,
            place => place,
        };
        let placed = place != Place::Here;
        let queue = || Queue::new(logic.queue_messages, logic.queue_bytes);
        let cancelled = router.logic_cancelled.child_token();
        let ctx = LogicContext::new(logic.name.clone(), router.clone(), cancelled);
        let (running, start): (_, Start) = match logic.kind {
            Kind::Dispatched(handler) => {
                let flight = Arc::new(Room::eager(logic.in_flight));
                let queue = queue();
                let start = |module: &Arc<Self>| {
                    module.spawn(module.clone().serve_queue());
                };
                (
                    Running::Dispatched {
                        handler,
                        flight,
                        queue,
                    },
                    Box::new(start),
                )
            }
            Kind::Worker(make) => {
                let count = if matches!(make, Make::Again(_)) {
                    logic.workers
                } else {
                    1
                };
                let queues: Vec<_> = (0..count).map(|_| queue()).collect();
                let served = queues.clone();
                let start = move |module: &Arc<Self>| match place {
                    Place::Here => module.start_workers(make),
                    place => module.follow(&served, make, place),
                };
                (Running::Worker { queues }, Box::new(start))
            }
            Kind::Passive(passive) => (
                Running::Passive,
                Box::new(move |module: &Arc<Self>| match place {
                    Place::Here => drop(module.spawn(module.clone().run_passive(passive))),
                    place => module.follow_passive(passive, place),
                }),
            ),
        };
        let module = Arc::new(Self {
            name: ctx.name().clone(),
            ctx,
            running,
            failures: Counter::default(),
            closed: AtomicBool::new(false),
            holder: Mutex::default(),
            placed,
            tasks: TaskTracker::new(),
            aborted: CancellationToken::new(),
        });
        start(&module);
        module
    }

    pub(super) fn spawn(
        &self,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let aborted = self.aborted.clone();
        let task = async move {
            tokio::select! {
                () = future => {}
                () = aborted.cancelled() => {}
            }
        };
        self.tasks.spawn_on(task, &self.ctx.router().handle)
    }

    /// Whether it takes messages.
    pub(crate) fn is_passive(&self) -> bool {
        matches!(self.running, Running::Passive)
    }

    /// On which instance it runs, as far as that is known.
    pub(crate) fn holder(&self) -> Option<Name> {
        match self.placed {
            true => self.holder.lock().clone(),
            false => Some(self.ctx.router().instance.clone()),
        }
    }

    /// Whether it wants to know who comes and goes.
    pub(crate) fn watches(&self) -> bool {
        !self.placed
            && !matches!(
                self.running,
                Running::Passive
                    | Running::Dispatched {
                        handler: Handler::Plain(_),
                        ..
                    }
            )
    }

    /// Whether the door runs it in place.
    pub(crate) fn runs_at_door(&self) -> bool {
        matches!(self.running, Running::Dispatched { .. })
    }

    /// Whether it has been removed: it takes nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Takes room for a message in the queue that it belongs to.
    pub(crate) fn reserve(&self, message: &Message) -> Result<Reserved<'_>, NoRoom> {
        let queue = self.queue_for(message).ok_or(NoRoom::Closed)?;
        let reserved = queue.reserve(message.weight());
        match reserved {
            Err(NoRoom::Full) => turn::pressed(&queue.room, message.weight(), true),
            _ if queue.room.is_pressed() => turn::pressed(&queue.room, 0, true),
            _ => {}
        }
        reserved
    }

    /// Appends the message of a place, which holds one, to the queue that it belongs to, or leaves it there.
    pub(crate) fn offer(&self, place: &mut Option<Message>) -> Result<(), NoRoom> {
        let Some(message) = place else { return Ok(()) };
        let weight = message.weight();
        let queue = self.queue_for(message).ok_or(NoRoom::Closed)?;
        let offered = queue.offer(place);
        match &offered {
            Err(NoRoom::Full) => turn::pressed(&queue.room, weight, true),
            _ if queue.room.is_pressed() => turn::pressed(&queue.room, 0, true),
            _ => {}
        }
        offered
    }

    fn queue_for(&self, message: &Message) -> Option<&Arc<Queue>> {
        match &self.running {
            Running::Dispatched { queue, .. } => Some(queue),
            Running::Worker { queues } if queues.len() == 1 => queues.first(),
            Running::Worker { queues } => {
                let hash = match (message.tag("key"), message.client()) {
                    (Some(key), _) => self.ctx.router().registry.hash_key(key),
                    (None, Some(client)) => self.ctx.router().registry.hash(client),
                    (None, None) => 0,
                };
                queues.get((hash % queues.len() as u64) as usize)
            }
            Running::Passive => None,
        }
    }

    /// Tells it that a client came. Every worker is told: messages with a key may come to any.
    pub(crate) fn joined(&self, client: &Client, greeting: &Arc<Greeting>) {
        match &self.running {
            Running::Dispatched { queue, .. } => {
                queue.force(Item::Joined(client.clone(), greeting.expect()));
            }
            // A worker's queue keeps the order by itself.
            Running::Worker { queues } => {
                queues
                    .iter()
                    .for_each(|queue| queue.force(Item::Joined(client.clone(), Greeted(None))));
            }
            Running::Passive => {}
        }
    }

    /// Tells it that a client is gone.
    pub(crate) fn left(&self, client: &Client, reason: &CloseReason) {
        let left = || Item::Left(client.clone(), reason.clone());
        match &self.running {
            Running::Dispatched { queue, .. } => queue.force(left()),
            Running::Worker { queues } => queues.iter().for_each(|queue| queue.force(left())),
            Running::Passive => {}
        }
    }

    async fn run_passive(self: Arc<Self>, mut passive: Box<dyn Passive>) {
        let (outcome, _) = InTurns(Box::pin(Caught(passive.run(&self.ctx)))).await;
        self.report(outcome);
    }

    #[inline]
    pub(super) fn report(&self, outcome: Outcome) {
        if let Err(kind) = outcome {
            self.failed(kind);
        }
    }

    #[cold]
    fn failed(&self, kind: FailureKind) {
        self.failures.add(1);
        self.ctx.router().logic_failed(&LogicFailure {
            logic: self.name.clone(),
            kind,
        });
    }

    pub(crate) fn stats(&self) -> LogicStats {
        let (queued, in_flight) = match &self.running {
            Running::Dispatched { queue, flight, .. } => (queue.room.entries(), flight.entries()),
            Running::Worker { queues } => {
                (queues.iter().map(|queue| queue.room.entries()).sum(), 0)
            }
            Running::Passive => (0, 0),
        };
        LogicStats {
            queued,
            in_flight,
            failures: self.failures.get(),
        }
    }

    /// Whether nothing waits and nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        let stats = self.stats();
        stats.queued == 0 && stats.in_flight == 0
    }

    /// Ends it: what is queued is handled, for as long as is given; then what still runs is dropped at its next wait.
    pub(crate) async fn stop(&self, within: Duration) {
        self.closed.store(true, Relaxed);
        if self.is_passive() {
            self.ctx.cancel();
        }
        match &self.running {
            Running::Dispatched { queue, .. } => queue.close(),
            Running::Worker { queues } => queues.iter().for_each(|queue| queue.close()),
            Running::Passive => {}
        }
        self.tasks.close();
        if tokio::time::timeout(within, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(logic = %self.name, "a logic module did not end within the drain time and is dropped");
            self.ctx.cancel();
            self.aborted.cancel();
            // A handler that never waits cannot be dropped: do not wait for it.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        }
        self.ctx.cancel();
    }

    /// Ends its tasks at their next wait.
    pub(crate) fn abort(&self) {
        self.ctx.cancel();
        self.aborted.cancel();
        self.tasks.close();
    }
}

/// What a module does without a pause. When it is over the thread's other tasks come first: a lane that was woken last
/// stands behind the module's task, and no other thread takes it from there.
pub(super) struct Slice {
    until: Instant,
}

impl Slice {
    pub(super) fn begin() -> Self {
        Self {
            until: Instant::now() + SLICE,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    pub(super) async fn give_way_if_over(&mut self) {
        if self.is_over() {
            look_at_sockets().await;
            *self = Self::begin();
        }
    }
}
