//! Logic: what the developer writes. [`Logic`] is a module with a name and a kind, and the kind says how it runs.
//!
//! | kind | receives | runs |
//! |---|---|---|
//! | [`Dispatched`] | every message at once | concurrently, bounded in flight |
//! | [`Worker`] | one message at a time | in a task of its own, with state that needs no lock |
//! | [`Passive`] | nothing | by itself, until it is cancelled |
//!
//! Since sending never waits, most handlers are plain closures:
//!
//! ```
//! use gobroke_core::{Logic, LogicContext, Message};
//! let chat = Logic::dispatched("chat", |message, ctx| {
//!     ctx.broadcast(message)?;
//!     Ok(())
//! });
//! let mut seen = 0;
//! let count = Logic::worker("count", move |message, ctx| {
//!     seen += 1;
//!     ctx.reply(&message, Message::text(seen.to_string()))?;
//!     Ok(())
//! });
//! # let _ = (chat, count);
//! ```
//!
//! A plain handler runs on the thread that reads its client's connection: one that blocks (a file, a lock that is
//! held for long, heavy computing) stalls that thread's other connections. Put such work into
//! [`tokio::task::spawn_blocking`] from an async handler, or into a worker.

mod context;
mod dispatched;
pub(crate) mod duty;
pub(crate) mod greeting;
pub(crate) mod module;
pub(crate) mod queue;
pub(crate) mod run;
mod worker;

use std::{fmt, time::Duration};

use async_trait::async_trait;

pub use self::context::LogicContext;
use self::duty::Place;
use crate::{Client, CloseReason, LogicResult, Message, Name};

/// Handles every message at once, many at a time: for what needs no state of its own, or shares it.
///
/// It runs within the turn of the client's connection; a handler that waits goes on in a task of its own, so the
/// router is never blocked. After a wait only a handler's own sends are in order.
#[async_trait]
pub trait Dispatched: Send + Sync + 'static {
    /// Handles a message.
    ///
    /// # Errors
    /// Any error is counted, traced and handed to the error hook; so is a panic.
    async fn handle(&self, message: Message, ctx: &LogicContext) -> LogicResult;

    /// A client came to this instance; its first message follows. Default: nothing.
    async fn joined(&self, client: &Client, ctx: &LogicContext) -> LogicResult {
        let _ = (client, ctx);
        Ok(())
    }

    /// A client of this instance is gone; its last message was before. Default: nothing.
    async fn left(&self, client: &Client, reason: &CloseReason, ctx: &LogicContext) -> LogicResult {
        let _ = (client, reason, ctx);
        Ok(())
    }

    /// Makes it a module of this name.
    fn into_dispatched(self, name: impl Into<Name>) -> Logic
    where
        Self: Sized,
    {
        Logic::new(
            name,
            Kind::Dispatched(Handler::Waiting(std::sync::Arc::new(self))),
        )
    }
}

/// Handles one message at a time, in order, in a task of its own: its state needs no lock.
///
/// ```
/// use gobroke_core::{Logic, LogicContext, LogicResult, Message, Worker, async_trait};
///
/// #[derive(Default)]
/// struct Counter {
///     seen: u64,
/// }
///
/// #[async_trait]
/// impl Worker for Counter {
///     async fn handle(&mut self, message: Message, ctx: &LogicContext) -> LogicResult {
///         self.seen += 1;
///         ctx.reply(&message, Message::text(self.seen.to_string()))?;
///         Ok(())
///     }
/// }
///
/// let logic: Logic = Counter::default().into_worker("count");
/// ```
#[async_trait]
pub trait Worker: Send + 'static {
    /// Handles a message.
    ///
    /// # Errors
    /// Any error is counted, traced and handed to the error hook; so is a panic. The worker goes on with the state
    /// that it has; one made by [`Logic::worker_factory`] is made anew after a panic.
    async fn handle(&mut self, message: Message, ctx: &LogicContext) -> LogicResult;

    /// A client came to this instance; its first message follows. Default: nothing.
    async fn joined(&mut self, client: &Client, ctx: &LogicContext) -> LogicResult {
        let _ = (client, ctx);
        Ok(())
    }

    /// A client of this instance is gone; its last message was before. Default: nothing.
    async fn left(
        &mut self,
        client: &Client,
        reason: &CloseReason,
        ctx: &LogicContext,
    ) -> LogicResult {
        let _ = (client, reason, ctx);
        Ok(())
    }

    /// Makes it a module of this name.
    fn into_worker(self, name: impl Into<Name>) -> Logic
    where
        Self: Sized,
    {
        Logic::new(
            name,
            Kind::Worker(Make::Once(Doer::Waiting(Box::new(self)))),
        )
    }
}

/// Runs by itself: timers, monitors, feeds. It never receives messages.
#[async_trait]
pub trait Passive: Send + 'static {
    /// Runs until it is done or cancelled ([`LogicContext::cancelled`]); it is given the drain time to return, and is
    /// dropped at its next wait after that.
    ///
    /// # Errors
    /// Any error is counted, traced and handed to the error hook; so is a panic.
    async fn run(&mut self, ctx: &LogicContext) -> LogicResult;

    /// Makes it a module of this name.
    fn into_passive(self, name: impl Into<Name>) -> Logic
    where
        Self: Sized,
    {
        Logic::new(name, Kind::Passive(Box::new(self)))
    }
}

/// A logic module: a name, a kind, and its bounds.
pub struct Logic {
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    pub(crate) workers: usize,
    pub(crate) queue_messages: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) in_flight: usize,
    pub(crate) place: Place,
}

pub(crate) enum Kind {
    Dispatched(Handler),
    Worker(Make),
    Passive(Box<dyn Passive>),
}

pub(crate) type PlainHandler = Box<dyn Fn(Message, &LogicContext) -> LogicResult + Send + Sync>;
pub(crate) type PlainDoer = Box<dyn FnMut(Message, &LogicContext) -> LogicResult + Send>;

/// A dispatched handler: one that never waits costs no box a call.
pub(crate) enum Handler {
    Plain(PlainHandler),
    Waiting(std::sync::Arc<dyn Dispatched>),
}

/// A worker's handler.
pub(crate) enum Doer {
    Plain(PlainDoer),
    Waiting(Box<dyn Worker>),
}

/// How a worker comes to be.
pub(crate) enum Make {
    Once(Doer),
    Again(Box<dyn Fn() -> Doer + Send + Sync>),
}

impl Logic {
    pub(crate) fn new(name: impl Into<Name>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            workers: 1,
            queue_messages: 1024,
            queue_bytes: 8 << 20,
            in_flight: 1024,
            place: Place::Here,
        }
    }

    /// A dispatched module from a plain closure.
    pub fn dispatched<F>(name: impl Into<Name>, handle: F) -> Self
    where
        F: Fn(Message, &LogicContext) -> LogicResult + Send + Sync + 'static,
    {
        Self::new(name, Kind::Dispatched(Handler::Plain(Box::new(handle))))
    }

    /// A dispatched module from an async closure. The context comes by value.
    ///
    /// ```
    /// use gobroke_core::Logic;
    /// let logic = Logic::dispatched_async("look_up", async |message, ctx| {
    ///     tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    ///     ctx.send_back(message)?;
    ///     Ok(())
    /// });
    /// # let _ = logic;
    /// ```
    pub fn dispatched_async<F, Fut>(name: impl Into<Name>, handle: F) -> Self
    where
        F: Fn(Message, LogicContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = LogicResult> + Send + 'static,
    {
        run::Closure(handle).into_dispatched(name)
    }

    /// A worker module from a plain closure, whose state it keeps.
    pub fn worker<F>(name: impl Into<Name>, handle: F) -> Self
    where
        F: FnMut(Message, &LogicContext) -> LogicResult + Send + 'static,
    {
        Self::new(
            name,
            Kind::Worker(Make::Once(Doer::Plain(Box::new(handle)))),
        )
    }

    /// A worker module from an async closure. The context comes by value.
    pub fn worker_async<F, Fut>(name: impl Into<Name>, handle: F) -> Self
    where
        F: FnMut(Message, LogicContext) -> Fut + Send + 'static,
        Fut: Future<Output = LogicResult> + Send + 'static,
    {
        run::Closure(handle).into_worker(name)
    }

    /// A worker module that is made by a factory: several on request ([`Logic::workers`]), and made anew, with fresh
    /// state, after a panic: at once for the first, then after 100 ms, doubling up to 10 s.
    ///
    /// ```
    /// # use gobroke_core::{Logic, LogicContext, LogicResult, Message, Worker, async_trait};
    /// # #[derive(Default)] struct Counter;
    /// # #[async_trait] impl Worker for Counter {
    /// #     async fn handle(&mut self, _: Message, _: &LogicContext) -> LogicResult { Ok(()) }
    /// # }
    /// let logic = Logic::worker_factory("count", Counter::default).workers(4);
    /// # let _ = logic;
    /// ```
    pub fn worker_factory<F, W>(name: impl Into<Name>, make: F) -> Self
    where
        F: Fn() -> W + Send + Sync + 'static,
        W: Worker,
    {
        let make = move || Doer::Waiting(Box::new(make()));
        Self::new(name, Kind::Worker(Make::Again(Box::new(make))))
    }

    /// A passive module from an async closure.
    pub fn passive<F, Fut>(name: impl Into<Name>, run: F) -> Self
    where
        F: FnMut(LogicContext) -> Fut + Send + 'static,
        Fut: Future<Output = LogicResult> + Send + 'static,
    {
        run::Closure(run).into_passive(name)
    }

    /// How many workers share the module's messages. Messages of one client (of one key, where the message has the
    /// tag `key`) always go to the same one, so their order holds. Only for modules made by
    /// [`Logic::worker_factory`]; others have one. Default: 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// How many messages may wait for each worker, and how many bytes. At half the doors wait, at the whole logic is
    /// refused with `Full`. Default: 1,024 messages, 8 MiB.
    #[must_use]
    pub fn queue(mut self, messages: usize, bytes: usize) -> Self {
        self.queue_messages = messages.max(1);
        self.queue_bytes = bytes.max(1);
        self
    }

    /// How many handlers of a dispatched module may wait for something at a time. Default: 1,024.
    #[must_use]
    pub fn in_flight(mut self, handlers: usize) -> Self {
        self.in_flight = handlers.max(1);
        self
    }

    /// Runs it on the instance of this name alone: messages for it are carried there from all instances that have it,
    /// and wait in their [queues](Logic::queue) while there is none. For workers and passive modules. A module that
    /// runs elsewhere, or once, is not told of clients that come and go. See
    /// [where logic runs](crate::docs::logic#where-it-runs).
    #[must_use]
    pub fn on_instance(mut self, name: impl Into<Name>) -> Self {
        self.place = Place::On(name.into());
        self
    }

    /// Runs it once in the whole cluster: on the instance that holds its lease, among those that have the module. Each
    /// holder has a [fencing token](LogicContext::fencing_token). Messages for it are carried to the holder, and wait in
    /// the [queues](Logic::queue) of their instances during a hand-over. For workers and passive modules. See
    /// [where logic runs](crate::docs::logic#where-it-runs), also for what holds and what does not.
    ///
    /// ```
    /// use gobroke_core::Logic;
    ///
    /// let mut seen = 0;
    /// let count = Logic::worker("count", move |message, ctx| {
    ///     seen += 1;
    ///     ctx.reply(&message, gobroke_core::Message::text(seen.to_string()))?;
    ///     Ok(())
    /// })
    /// .singleton();
    /// # let _ = count;
    /// ```
    #[must_use]
    pub fn singleton(mut self) -> Self {
        self.place = Place::Once;
        self
    }

    /// The name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn is_passive(&self) -> bool {
        matches!(self.kind, Kind::Passive(_))
    }
}

impl fmt::Debug for Logic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Dispatched(_) => "dispatched",
            Kind::Worker(_) => "worker",
            Kind::Passive(_) => "passive",
        };
        f.debug_struct("Logic")
            .field("name", &self.name)
            .field("kind", &kind)
            .finish_non_exhaustive()
    }
}

/// The longest back-off of a worker that panics again and again.
pub(crate) const MAX_BACK_OFF: Duration = Duration::from_secs(10);
