//! Start, drain, stop.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use tokio::{
    runtime::Handle,
    sync::{Notify, OnceCell},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Broke, BrokeBuilder, Reach,
    clock::{self, Clock},
    revoked::RevocationList,
    router::Router,
};
use crate::{
    ClientId, CloseReason, Endpoint, Gate, Logic, Name, StartError,
    delivery::{context::LaneContext, lane::Lane, run::Memory},
    error::EndpointError,
    gate::Readiness,
    logic::run::caught,
    registry::Registry,
    stats::Counters,
};

/// How long a step of the drain waits between two looks at what is left.
const LOOK: Duration = Duration::from_millis(2);

/// Ends the router when the last handle goes.
pub(super) struct Running {
    router: std::sync::Weak<Router>,
    /// Lanes and the clock.
    tasks: TaskTracker,
    stopped: OnceCell<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(router) = self.router.upgrade() {
            self.abort(&router);
        }
    }
}

pub(super) async fn start(mut builder: BrokeBuilder) -> Result<Broke, StartError> {
    let handle = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
    let endpoints = std::mem::take(&mut builder.endpoints);
    let logic = std::mem::take(&mut builder.logic);
    let cluster = builder.cluster.take();
    for (index, endpoint) in endpoints.iter().enumerate() {
        if endpoints[..index]
            .iter()
            .any(|other| other.name() == endpoint.name())
        {
            return Err(StartError::DuplicateEndpoint(endpoint.name()));
        }
    }
    let coalesce = endpoints
        .iter()
        .map(|endpoint| endpoint.options().coalesce)
        .min()
        .unwrap_or_default();
    let router = assemble(builder, cluster.is_some(), coalesce, &handle);
    let tasks = TaskTracker::new();
    for lane in &router.lanes {
        tasks.spawn_on(lane.clone().run(router.stopped.clone()), &handle);
    }
    let watch = clock::watch(Arc::downgrade(&router), router.stopped.clone());
    tasks.spawn_on(watch, &handle);
    let running = Running {
        router: Arc::downgrade(&router),
        tasks,
        stopped: OnceCell::new(),
    };
    let broke = Broke {
        reach: Reach(router.clone()),
        running: Arc::new(running),
    };
    let started = async {
        // Passive logic runs from when it is added, and may send to any other: so it comes last.
        let (passive, called): (Vec<_>, Vec<_>) = logic.into_iter().partition(Logic::is_passive);
        for module in called.into_iter().chain(passive) {
            router.add_logic(module)?;
        }
        if let Some(cluster) = cluster {
            router.join_cluster(cluster).await?;
        }
        for endpoint in endpoints {
            listen(&router, endpoint).await?;
        }
        Ok(())
    };
    match started.await {
        Ok(()) => Ok(broke),
        Err(error) => {
            broke.stop().await;
            Err(error)
        }
    }
}

/// A router of a builder's bounds, middleware and hooks; nothing of it runs yet.
pub(crate) fn assemble(
    builder: BrokeBuilder,
    clustered: bool,
    coalesce: Duration,
    handle: &Handle,
) -> Arc<Router> {
    let BrokeBuilder {
        instance,
        middleware,
        hooks,
        lanes,
        lane_bytes,
        memory: max_memory,
        ..
    } = builder;
    let (registry, memory, stats) = (
        Arc::<Registry>::default(),
        Arc::<Memory>::default(),
        Arc::<Counters>::default(),
    );
    let count = lanes
        .unwrap_or_else(|| handle.metrics().num_workers())
        .max(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sharing = (count as f64 / cores as f64).max(1.0);
    let lanes: Box<[Arc<Lane>]> = (0..count)
        .map(|index| {
            let context = LaneContext {
                index,
                registry: registry.clone(),
                memory: memory.clone(),
                max_memory,
                stats: stats.clone(),
                coalesce,
                sharing,
                on_group_gone: OnceLock::new(),
            };
            Lane::new(context, lane_bytes)
        })
        .collect();
    let logic_cancelled = CancellationToken::new();
    Arc::new(Router {
        instance: instance.unwrap_or_else(|| format!("gobroke-{}", ClientId::new()).into()),
        handle: handle.clone(),
        clock: Clock::new(),
        lanes,
        registry,
        memory,
        stats,
        middleware,
        hooks,
        revocations: RevocationList::default(),
        modules: DashMap::new(),
        watchers: RwLock::default(),
        draining: false.into(),
        closing: CancellationToken::new(),
        logic_cancelled,
        stopped: CancellationToken::new(),
        refuses: false.into(),
        connections: TaskTracker::new(),
        addresses: Mutex::default(),
        link: OnceLock::new(),
        clustered,
        moved: Notify::new(),
    })
}

/// Starts an endpoint, and waits until it listens.
async fn listen(router: &Arc<Router>, endpoint: Arc<dyn Endpoint>) -> Result<(), StartError> {
    let name = endpoint.name();
    let (gate, readiness) = Gate::new(router.clone(), name.clone(), endpoint.options());
    let (failed, failure) = tokio::sync::oneshot::channel();
    let (traced, served_by) = (name.clone(), Arc::downgrade(router));
    router.connections.spawn_on(
        async move {
            let error = match caught(endpoint.serve(gate)).await {
                Some(Ok(())) => EndpointError::NotReady,
                Some(Err(error)) => error,
                None => EndpointError::Panicked,
            };
            let Some(router) = served_by.upgrade() else { return };
            if matches!(error, EndpointError::Panicked) {
                router.stats.panics.add(1);
            }
            // Whoever waits for it to listen is told; after that, an end before the drain is.
            if let Err(error) = failed.send(error)
                && !router.closing.is_cancelled()
            {
                tracing::error!(endpoint = %traced, %error, "an endpoint ended before its time: nobody comes in through it");
            }
        },
        &router.handle,
    );
    let source = tokio::select! {
        biased;
        () = ready(&readiness) => return Ok(()),
        failure = failure => failure.unwrap_or(EndpointError::NotReady),
    };
    Err(StartError::Endpoint {
        endpoint: name,
        source,
    })
}

async fn ready(readiness: &Readiness) {
    readiness.wait().await;
}

impl Running {
    /// Drains and stops, once; who calls it meanwhile waits for the same end.
    pub(super) async fn stop(&self, router: &Arc<Router>) {
        self.stopped.get_or_init(|| self.drain(router)).await;
    }

    /// In this order: doors, passive logic, modules until empty, lanes, the cluster's queue, closings, outboxes,
    /// sockets.
    async fn drain(&self, router: &Arc<Router>) {
        let end = Instant::now() + router.hooks.drain;
        // Logic that takes its time leaves some of it to the closings.
        let logic_end = Instant::now() + router.hooks.drain.mul_f64(0.6);
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        router.draining.store(true, SeqCst);
        router.closing.cancel();
        until(logic_end, || {
            let mut none = true;
            router
                .registry
                .for_each_session(|client| none &= !client.in_turn.load(SeqCst));
            none
        })
        .await;
        // All are told before the first is waited for.
        modules(router)
            .filter(|module| module.is_passive())
            .for_each(|module| module.ctx.cancel());
        for module in modules(router).filter(|module| module.is_passive()) {
            module.stop(left(logic_end)).await;
        }
        // Modules may feed each other, so all of them have to be empty at once.
        until(logic_end, || modules(router).all(|module| module.is_idle())).await;
        until(end, || router.lanes.iter().all(|lane| lane.is_idle())).await;
        if let Some(link) = router.link.get() {
            // Half of what is left of the time: the clients need some, too.
            link.drain(Instant::now() + left(end) / 2).await;
        }
        self.close_clients(router, end).await;
        until(end, || router.registry.sessions_len() == 0).await;
        router.refuses.store(true, Relaxed);
        // `left` of the clients that just went.
        until(end, || modules(router).all(|module| module.is_idle())).await;
        for module in modules(router) {
            module.stop(left(end)).await;
        }
        if let Some(link) = router.link.get() {
            link.drain(end).await;
            link.leave(end).await;
        }
        router.connections.close();
        let cut = timeout_at(end, router.connections.wait()).await.is_err();
        self.abort(router);
        if cut {
            tracing::warn!(
                clients = router.registry.len(),
                "connections did not end within the drain time"
            );
        }
        let _ = timeout_at(
            Instant::now() + Duration::from_secs(1),
            router.connections.wait(),
        )
        .await;
        self.tasks.wait().await;
    }

    /// Paced, so that the clients do not come back all at once.
    async fn close_clients(&self, router: &Arc<Router>, end: Instant) {
        let clients = router.registry.sessions();
        for (index, some) in clients.chunks(router.hooks.close_pace).enumerate() {
            if index > 0 && Instant::now() < end {
                sleep(Duration::from_millis(10)).await;
            }
            for client in some {
                router.close(client, CloseReason::GoingAway);
            }
        }
    }

    /// Ends everything at once.
    pub(super) fn abort(&self, router: &Arc<Router>) {
        router.refuses.store(true, Relaxed);
        router.draining.store(true, SeqCst);
        router.closing.cancel();
        router.logic_cancelled.cancel();
        for client in router.registry.sessions() {
            client.closed.store(true, Relaxed);
            client.outbox.end(CloseReason::GoingAway);
        }
        router.stopped.cancel();
        if let Some(link) = router.link.get() {
            link.abort();
        }
        let names: Vec<Name> = router
            .modules
            .iter()
            .map(|module| module.key().clone())
            .collect();
        for name in names {
            if let Some(module) = router.take_logic(&name) {
                module.abort();
            }
        }
        router.connections.close();
        self.tasks.close();
    }
}

fn modules(router: &Router) -> impl Iterator<Item = Arc<crate::logic::module::Module>> + use<> {
    router
        .modules
        .iter()
        .map(|module| module.value().clone())
        .collect::<Vec<_>>()
        .into_iter()
}

async fn until(end: Instant, done: impl Fn() -> bool) {
    while !done() && Instant::now() < end {
        sleep(LOOK).await;
    }
}

/// Ctrl-C and SIGTERM, from when it is made on.
pub(super) struct Signals {
    #[cfg(unix)]
    listening: [Option<tokio::signal::unix::Signal>; 2],
    #[cfg(windows)]
    listening: Option<tokio::signal::windows::CtrlC>,
}

impl Signals {
    /// Listens. Where no handler can be installed, no signal comes, rather than one at once.
    pub(super) fn listen() -> Self {
        #[cfg(unix)]
        let listening = {
            use tokio::signal::unix::{SignalKind, signal};
            [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| heard(signal(kind)))
        };
        #[cfg(windows)]
        let listening = heard(tokio::signal::windows::ctrl_c());
        Self { listening }
    }

    /// The next of them. Cancel-safe.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.listening;
        tokio::select! {
            Some(()) = async { interrupt.as_mut()?.recv().await } => {}
            Some(()) = async { terminate.as_mut()?.recv().await } => {}
            else => std::future::pending().await,
        }
    }

    /// The next of them. Cancel-safe.
    #[cfg(windows)]
    pub(super) async fn next(&mut self) {
        match &mut self.listening {
            Some(interrupt) => drop(interrupt.recv().await),
            None => std::future::pending().await,
        }
    }
}

fn heard<S>(listening: std::io::Result<S>) -> Option<S> {
    listening
        .inspect_err(|error| tracing::error!(%error, "cannot listen for a signal"))
        .ok()
}
