//! [`BrokeBuilder`]: what a router is made of.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use crate::{
    Admission, Broke, ConnectRequest, Endpoint, Logic, LogicFailure, Message, Name, Refusal,
    StartError,
    cluster::Cluster,
    middleware::{Middleware, Step},
};

type Asked = Pin<Box<dyn Future<Output = Result<Admission, Refusal>> + Send>>;
type OnConnect = Box<dyn Fn(ConnectRequest) -> Asked + Send + Sync>;
type OnError = Box<dyn Fn(&LogicFailure) + Send + Sync>;

/// What the program hangs into the router, and the router's own bounds.
pub(crate) struct Hooks {
    pub(crate) on_connect: Option<OnConnect>,
    pub(crate) on_error: Option<OnError>,
    pub(crate) drain: Duration,
    pub(crate) close_pace: usize,
}

/// What a router is made of. See [`Broke::builder`].
#[must_use = "a builder does nothing until `start` is called"]
pub struct BrokeBuilder {
    pub(super) instance: Option<Name>,
    pub(super) endpoints: Vec<Arc<dyn Endpoint>>,
    pub(super) logic: Vec<Logic>,
    pub(super) middleware: Middleware,
    pub(super) hooks: Hooks,
    pub(super) lanes: Option<usize>,
    pub(super) lane_bytes: usize,
    pub(super) memory: usize,
    pub(super) cluster: Option<Arc<dyn Cluster>>,
}

impl Default for BrokeBuilder {
    fn default() -> Self {
        Self {
            instance: None,
            endpoints: Vec::new(),
            logic: Vec::new(),
            middleware: Middleware::default(),
            hooks: Hooks {
                on_connect: None,
                on_error: None,
                drain: Duration::from_secs(10),
                close_pace: 1000,
            },
            lanes: None,
            lane_bytes: 8 << 20,
            memory: 256 << 20,
            cluster: None,
        }
    }
}

impl BrokeBuilder {
    /// Names the instance: it stands in welcomes, traces and, with a cluster, in the directory. Default: `gobroke-`
    /// and a fresh id.
    pub fn instance(mut self, name: impl Into<Name>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// Adds a way in. Several share one router, and their clients talk to each other.
    pub fn endpoint(mut self, endpoint: impl Endpoint) -> Self {
        self.endpoints.push(Arc::new(endpoint));
        self
    }

    /// Adds a logic module.
    pub fn logic(mut self, logic: impl Into<Logic>) -> Self {
        self.logic.push(logic.into());
        self
    }

    /// Joins other instances: clients and groups are reached wherever they are. Default: this instance is alone.
    ///
    /// The instance should have a [name](BrokeBuilder::instance) of its own, the same after a restart.
    pub fn cluster(mut self, cluster: impl Cluster) -> Self {
        self.cluster = Some(Arc::new(cluster));
        self
    }

    /// Adds a function that sees every message of a client at the door, once, in the order of attachment. It may
    /// change the message, tag it, or [reject](Message::reject) it: the client is told the reason.
    ///
    /// ```
    /// # use gobroke_core::{Broke, Message};
    /// let builder = Broke::builder().receive_middleware(|message: &mut Message| {
    ///     if message.payload().len() > 1 << 20 {
    ///         message.reject("too large");
    ///     }
    /// });
    /// # let _ = builder;
    /// ```
    pub fn receive_middleware(
        mut self,
        middleware: impl Fn(&mut Message) + Send + Sync + 'static,
    ) -> Self {
        self.middleware
            .add_receive(Step::Plain(Box::new(middleware)));
        self
    }

    /// Adds one that may wait, which the door may do. It takes and returns the message.
    ///
    /// ```
    /// # use gobroke_core::{Broke, Message};
    /// let builder = Broke::builder().receive_middleware_async(async |message: Message| {
    ///     tokio::task::yield_now().await;
    ///     message.with_tag("seen", true)
    /// });
    /// # let _ = builder;
    /// ```
    pub fn receive_middleware_async<F, Fut>(mut self, middleware: F) -> Self
    where
        F: Fn(Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Message> + Send + 'static,
    {
        self.middleware
            .add_receive(Step::Waiting(Box::new(move |message| {
                Box::pin(middleware(message))
            })));
        self
    }

    /// Adds a function that sees every message that logic or the program sends, once, where it is sent. A rejected one
    /// comes back as [`SendError::Rejected`](crate::SendError::Rejected).
    pub fn send_middleware(
        mut self,
        middleware: impl Fn(&mut Message) + Send + Sync + 'static,
    ) -> Self {
        self.middleware.send.push(Box::new(middleware));
        self
    }

    /// Sets the hook that admits connections: it answers with an identity, metadata and groups, or refuses with a
    /// status and a reason. Default: everyone is let in, with a fresh id.
    ///
    /// ```
    /// # use gobroke_core::{Admission, Broke, Refusal};
    /// let builder = Broke::builder().on_connect(async |request| match request.header("authorization") {
    ///     Some("Bearer secret") => Ok(Admission::anonymous().in_group("staff")),
    ///     _ => Err(Refusal::unauthorized("send a bearer token")),
    /// });
    /// # let _ = builder;
    /// ```
    pub fn on_connect<F, Fut>(mut self, hook: F) -> Self
    where
        F: Fn(ConnectRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Admission, Refusal>> + Send + 'static,
    {
        self.hooks.on_connect = Some(Box::new(move |request| Box::pin(hook(request))));
        self
    }

    /// Sets the hook that is told of every error and panic of logic, beside the counter and the trace.
    pub fn on_error(mut self, hook: impl Fn(&LogicFailure) + Send + Sync + 'static) -> Self {
        self.hooks.on_error = Some(Box::new(hook));
        self
    }

    /// How many lanes the clients are spread over. Default: one for each worker of the runtime.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = Some(lanes.max(1));
        self
    }

    /// How many bytes may be queued in a lane: at half the doors wait, at the whole sends are refused with `Full`.
    /// Default: 8 MiB.
    pub fn lane_bytes(mut self, bytes: usize) -> Self {
        self.lane_bytes = bytes.max(1);
        self
    }

    /// How many bytes all outboxes may hold together: whole allocations, a shared run once. Above it those who hold the
    /// oldest run are closed as slow consumers, together. Default: 256 MiB.
    pub fn outbox_memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// How long [`Broke::stop`] takes at the most until it drops what is left. Default: 10 s.
    pub fn drain(mut self, within: Duration) -> Self {
        self.hooks.drain = within;
        self
    }

    /// How many clients are closed at a time in a drain, every 10 ms, so that they do not come back all at once.
    /// Default: 1,000.
    pub fn close_pace(mut self, clients: usize) -> Self {
        self.hooks.close_pace = clients.max(1);
        self
    }

    /// Starts: logic first, the passive after all other, then the endpoints; returns once all endpoints listen.
    ///
    /// # Errors
    /// The first thing that failed (a port in use, two modules of one name); what had been started is stopped.
    pub async fn start(self) -> Result<Broke, StartError> {
        super::lifecycle::start(self).await
    }
}

impl fmt::Debug for BrokeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokeBuilder")
            .field("instance", &self.instance)
            .field(
                "endpoints",
                &self
                    .endpoints
                    .iter()
                    .map(|endpoint| endpoint.name())
                    .collect::<Vec<_>>(),
            )
            .field("logic", &self.logic)
            .field("middleware", &self.middleware)
            .finish_non_exhaustive()
    }
}
