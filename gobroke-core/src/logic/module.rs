//! [`Module`]: a logic module while it runs.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Doer, Handler, Kind, Logic, LogicContext, MAX_BACK_OFF, Make, Passive,
    greeting::{Greeted, Greeting, Telling, over},
    queue::{Handled, Item, NoRoom, Queue, Reserved},
    run::{Caught, Outcome, call, first_poll},
};
use crate::{
    Client, CloseReason, LogicFailure, Message, Name,
    broke::router::Router,
    delivery::{
        lane::{SLICE, Yield},
        room::Room,
        turn::{self, InTurns, Left, Turn, WithHops},
    },
    error::FailureKind,
    stats::{Counter, LogicStats},
};

/// How many messages a worker takes for one turn.
const TURN: usize = 64;
/// How many messages a worker handles between two looks at the clock.
const MESSAGES_PER_LOOK: usize = 8;

/// A logic module while it runs.
pub(crate) struct Module {
    pub(crate) name: Name,
    pub(crate) ctx: LogicContext,
    running: Running,
    failures: Counter,
    closed: AtomicBool,
    tasks: TaskTracker,
    /// Its tasks end at their next wait.
    aborted: CancellationToken,
}

/// Makes a worker, and makes it anew.
type Factory = Arc<dyn Fn() -> Doer + Send + Sync>;

/// What starts a module's tasks, once it is there.
type Start = Box<dyn FnOnce(&Arc<Module>)>;

enum Running {
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
                let queues = (0..count).map(|_| queue()).collect();
                let start = move |module: &Arc<Self>| module.start_workers(make);
                (Running::Worker { queues }, Box::new(start))
            }
            Kind::Passive(passive) => (
                Running::Passive,
                Box::new(move |module: &Arc<Self>| {
                    module.spawn(module.clone().run_passive(passive));
                }),
            ),
        };
        let module = Arc::new(Self {
            name: ctx.name().clone(),
            ctx,
            running,
            failures: Counter::default(),
            closed: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            aborted: CancellationToken::new(),
        });
        start(&module);
        module
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
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

    /// Whether it wants to know who comes and goes.
    pub(crate) fn watches(&self) -> bool {
        !matches!(
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

    /// Appends a message to the queue that it belongs to, or gives it back.
    pub(crate) fn offer(&self, message: Message) -> Result<(), (NoRoom, Box<Message>)> {
        let Some(queue) = self.queue_for(&message) else {
            return Err((NoRoom::Closed, Box::new(message)));
        };
        let offered = queue.offer(message);
        match &offered {
            Err((NoRoom::Full, message)) => turn::pressed(&queue.room, message.weight(), true),
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

    /// Takes a place among the handlers under way: what a dispatched handler that may wait begins with.
    pub(crate) fn take_off(&self) -> Result<Option<Flying>, NoRoom> {
        let Running::Dispatched {
            handler: Handler::Waiting(_),
            flight,
            ..
        } = &self.running
        else {
            return Ok(None);
        };
        if !flight.reserve(0) {
            turn::pressed(flight, 1, true);
            return Err(NoRoom::Full);
        }
        if flight.is_pressed() {
            turn::pressed(flight, 0, true);
        }
        Ok(Some(Flying(flight.clone())))
    }

    /// Runs a dispatched handler in place; one that waits goes on in a task of its own. Within a turn.
    pub(crate) fn dispatch(self: &Arc<Self>, message: Message, flying: Option<Flying>) {
        let Running::Dispatched { handler, .. } = &self.running else {
            return;
        };
        let hops = message.hops();
        match handler {
            Handler::Plain(handle) => {
                let outcome = turn::with_hops(hops, || call(|| handle(message, &self.ctx)));
                self.report(outcome);
            }
            Handler::Waiting(handler) => {
                let (handler, ctx) = (handler.clone(), self.ctx.clone());
                let future = async move { handler.handle(message, &ctx).await };
                self.run_in_place(hops, Box::pin(future), (flying, None));
            }
        }
    }

    /// Runs a handler that may wait; `kept` is dropped when it is over. The task in which it goes on, if it waits.
    fn run_in_place<F>(
        self: &Arc<Self>,
        hops: u8,
        future: Pin<Box<F>>,
        kept: (Option<Flying>, Option<Greeted>),
    ) -> Option<JoinHandle<()>>
    where
        F: Future<Output = crate::LogicResult> + Send + 'static,
    {
        let mut future = WithHops {
            hops,
            future: Caught(future),
        };
        match first_poll(&mut future) {
            Poll::Ready(outcome) => {
                self.report(outcome);
                None
            }
            Poll::Pending => {
                let module = self.clone();
                Some(self.spawn(async move {
                    let (outcome, _) = InTurns(Box::pin(future)).await;
                    module.report(outcome);
                    drop(kept);
                }))
            }
        }
    }

    /// A dispatched module's queue: what logic sends it, and who comes and goes.
    async fn serve_queue(self: Arc<Self>) {
        let Running::Dispatched {
            handler,
            flight,
            queue,
        } = &self.running
        else {
            return;
        };
        let mut batch = VecDeque::new();
        let mut left = Left::any();
        let mut telling = Telling::default();
        let mut until = Instant::now() + SLICE;
        while queue.take(&mut batch, TURN).await.is_some() {
            while !batch.is_empty() {
                left.eased(&self.ctx.router().lanes).await;
                give_way(&mut until).await;
                left = self.serve_some(handler, queue, &mut batch, &mut telling);
                flight.eased().await;
            }
            tokio::task::consume_budget().await;
        }
    }

    fn serve_some(
        self: &Arc<Self>,
        handler: &Handler,
        queue: &Queue,
        batch: &mut VecDeque<Item>,
        telling: &mut Telling,
    ) -> Left {
        let turn = Turn::begin();
        while let Some(item) = batch.pop_front() {
            let Ok(flying) = self.take_off() else {
                batch.push_front(item);
                break;
            };
            let weight = item.weight();
            let ctx = self.ctx.clone();
            match (item, handler) {
                (Item::Message(message), _) => self.dispatch(message, flying),
                (Item::Joined(client, greeted), Handler::Waiting(handler)) => {
                    let (id, before) = (client.id(), telling.before(&client));
                    let handler = handler.clone();
                    let future = async move {
                        over(before).await;
                        handler.joined(&client, &ctx).await
                    };
                    let task = self.run_in_place(0, Box::pin(future), (flying, Some(greeted)));
                    telling.goes_on(id, task);
                }
                (Item::Left(client, reason), Handler::Waiting(handler)) => {
                    let (id, before) = (client.id(), telling.before(&client));
                    let handler = handler.clone();
                    let future = async move {
                        over(before).await;
                        handler.left(&client, &reason, &ctx).await
                    };
                    let task = self.run_in_place(0, Box::pin(future), (flying, None));
                    telling.goes_on(id, task);
                }
                (Item::Joined(..) | Item::Left(..), Handler::Plain(_)) => {}
            }
            queue.room.release(1, weight);
            if turn::is_held_back() {
                break;
            }
        }
        turn.end()
    }

    fn start_workers(self: &Arc<Self>, make: Make) {
        let Running::Worker { queues } = &self.running else {
            return;
        };
        match make {
            Make::Once(doer) => {
                let work = self.clone().work(queues[0].clone(), doer, None);
                self.spawn(work);
            }
            Make::Again(make) => {
                let make: Factory = make.into();
                for queue in queues {
                    self.spawn(self.clone().work_made(queue.clone(), make.clone()));
                }
            }
        }
    }

    /// Makes the worker in its own task: a factory may panic, or reach into the router.
    async fn work_made(self: Arc<Self>, queue: Arc<Queue>, make: Factory) {
        let doer = self.make_anew(&make, &mut 0).await;
        self.work(queue, doer, Some(make)).await;
    }

    async fn work(self: Arc<Self>, queue: Arc<Queue>, mut doer: Doer, make: Option<Factory>) {
        let mut batch = VecDeque::new();
        let mut left = Left::any();
        let mut panics_in_a_row = 0;
        let mut until = Instant::now() + SLICE;
        while queue.take(&mut batch, TURN).await.is_some() {
            while !batch.is_empty() {
                left.eased(&self.ctx.router().lanes).await;
                give_way(&mut until).await;
                let panicked;
                (panicked, left) = match &mut doer {
                    Doer::Plain(_) => self.work_some_now(&queue, &mut doer, &mut batch, until),
                    Doer::Waiting(_) => {
                        InTurns(Box::pin(self.work_some(&queue, &mut doer, &mut batch))).await
                    }
                };
                match &make {
                    Some(make) if panicked => {
                        doer = self.make_anew(make, &mut panics_in_a_row).await;
                    }
                    _ => panics_in_a_row = 0,
                }
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Makes a worker anew, after a back-off; a factory that panics is asked again.
    async fn make_anew(&self, make: &Factory, panics_in_a_row: &mut u32) -> Doer {
        loop {
            if *panics_in_a_row > 0 {
                tokio::time::sleep(back_off(*panics_in_a_row)).await;
            }
            *panics_in_a_row += 1;
            let mut made = None;
            let outcome = call(|| {
                made = Some(make());
                Ok(())
            });
            self.report(outcome);
            if let Some(doer) = made {
                return doer;
            }
        }
    }

    /// A turn of a plain worker; says whether it panicked.
    fn work_some_now(
        &self,
        queue: &Queue,
        doer: &mut Doer,
        batch: &mut VecDeque<Item>,
        until: Instant,
    ) -> (bool, Left) {
        let turn = Turn::begin();
        let mut panicked = false;
        let (mut handled, mut weight) = (0, 0);
        while let (Some(item), Doer::Plain(handle)) = (batch.pop_front(), &mut *doer) {
            handled += 1;
            weight += item.weight();
            if let Item::Message(message) = item {
                let hops = message.hops();
                let outcome = turn::with_hops(hops, || call(|| handle(message, &self.ctx)));
                panicked = matches!(outcome, Err(FailureKind::Panic(_)));
                self.report(outcome);
            }
            let late = handled % MESSAGES_PER_LOOK == 0 && Instant::now() >= until;
            if panicked || late || turn::is_held_back() {
                break;
            }
        }
        let left = turn.end();
        // Given back at once for all, and when they are handled: doors and drain look at it.
        queue.room.release(handled, weight);
        (panicked, left)
    }

    /// The same for one that may wait.
    async fn work_some(&self, queue: &Queue, doer: &mut Doer, batch: &mut VecDeque<Item>) -> bool {
        while let (Some(item), Doer::Waiting(worker)) = (batch.pop_front(), &mut *doer) {
            let (weight, hops) = (item.weight(), item.hops());
            let _handled = Handled { queue, weight };
            let future = match item {
                Item::Message(message) => worker.handle(message, &self.ctx),
                Item::Joined(ref client, _) => worker.joined(client, &self.ctx),
                Item::Left(ref client, ref reason) => worker.left(client, reason, &self.ctx),
            };
            let outcome = WithHops {
                hops,
                future: Caught(future),
            }
            .await;
            let panicked = matches!(outcome, Err(FailureKind::Panic(_)));
            self.report(outcome);
            if panicked {
                return true;
            }
            if turn::is_held_back() {
                return false;
            }
        }
        false
    }

    async fn run_passive(self: Arc<Self>, mut passive: Box<dyn Passive>) {
        let (outcome, _) = InTurns(Box::pin(Caught(passive.run(&self.ctx)))).await;
        self.report(outcome);
    }

    fn report(&self, outcome: Outcome) {
        let Err(kind) = outcome else { return };
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
}

impl Module {
    /// Ends its tasks at their next wait.
    pub(crate) fn abort(&self) {
        self.ctx.cancel();
        self.aborted.cancel();
        self.tasks.close();
    }
}

/// A handler under way, counted.
pub(crate) struct Flying(Arc<Room>);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.release(1, 0);
    }
}

/// Lets the thread's other tasks go on once a slice of time is over: a lane that was woken last stands behind this
/// task, and no other thread takes it from there.
async fn give_way(until: &mut Instant) {
    if Instant::now() >= *until {
        Yield::default().await;
        *until = Instant::now() + SLICE;
    }
}

fn back_off(panics_in_a_row: u32) -> Duration {
    let doubled = Duration::from_millis(100).saturating_mul(1 << (panics_in_a_row - 1).min(10));
    doubled.min(MAX_BACK_OFF)
}
