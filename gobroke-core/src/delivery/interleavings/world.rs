//! A router whose lanes and sockets the checker runs, and what came out of the sockets.

use std::{
    future::poll_fn,
    io,
    panic::resume_unwind,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::Duration,
};

use shuttle::{
    future::{JoinHandle, block_on, spawn},
    rand::{Rng, thread_rng},
    thread,
};
use tokio::runtime::Runtime;

use crate::{
    BrokeBuilder, Client, ClientId, CloseReason, ConnectRequest, Encoder, EndpointOptions, Gate,
    Message, Name, Session, Wire,
    broke::{lifecycle::assemble, router::Router},
    client::ClientShared,
};

/// How often one who waits for the others lets them go on before it gives up.
const PATIENCE: usize = 20_000;

pub(super) fn below(end: usize) -> usize {
    thread_rng().gen_range(0..end)
}

pub(super) fn chance(one_in: usize) -> bool {
    below(one_in) == 0
}

/// A runtime for those who ask for one; it runs nothing.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().expect("a runtime")
    })
}

/// A router, the tasks of its lanes, and an endpoint's gate.
pub(super) struct World {
    pub(super) router: Arc<Router>,
    gate: Gate,
    lanes: Vec<JoinHandle<()>>,
}

impl World {
    pub(super) fn new(builder: BrokeBuilder, options: EndpointOptions) -> Arc<Self> {
        let router = assemble(builder, false, options.coalesce, runtime().handle());
        let run = |lane: &Arc<_>| spawn(super::Lane::run(Arc::clone(lane), router.stopped.clone()));
        let lanes = router.lanes.iter().map(run).collect();
        let (gate, _) = Gate::new(router.clone(), "socket".into(), options);
        Arc::new(Self {
            router,
            gate,
            lanes,
        })
    }

    /// Connects a client, whose task finishes what passes leave to it.
    pub(super) fn open(&self, groups: &[&'static str], plug: &Plug) -> (Session, JoinHandle<()>) {
        let wire = plug.wired.then(|| Box::new(plug.clone()) as Box<dyn Wire>);
        let slot = self.gate.slot(None).expect("no limit");
        let mut admitted =
            block_on(self.gate.admit(slot, ConnectRequest::default())).expect("everyone is let in");
        admitted.admission.groups = groups.iter().map(|&group| group.into()).collect();
        let session = self.gate.open(admitted, plug.encoder.clone(), wire);
        let session = session.expect("it is not closing");
        let client = session.client().0.clone();
        let task = match plug.wired {
            true => spawn(async move {
                let mut asked = None;
                poll_fn(|cx| client.outbox.poll_drive(cx, &mut asked)).await;
            }),
            false => spawn(take(client, plug.clone())),
        };
        (session, task)
    }

    pub(super) fn lanes_are_idle(&self) -> bool {
        self.router
            .lanes
            .iter()
            .all(|lane| lane.is_idle() && lane.room.entries() == 0 && lane.room.bytes() == 0)
    }

    /// Waits until nothing is queued and nothing waits for a socket, with nobody there to wake anyone.
    pub(super) fn settle(&self) {
        let empty = |client: &Arc<ClientShared>| client.outbox.waiting().is_none();
        wait_until("lanes and outboxes are empty", || {
            self.lanes_are_idle() && self.router.registry.sessions().iter().all(empty)
        });
    }

    /// Ends the lanes' tasks.
    pub(super) fn stop(&self) {
        self.router.stopped.cancel();
        wait_until("the lanes' tasks have ended", || {
            self.lanes.iter().all(JoinHandle::is_finished)
        });
        assert_eq!(self.router.memory.held(), 0, "no run is held any more");
    }
}

pub(super) fn wait_until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..PATIENCE {
        if done() {
            return;
        }
        thread::yield_now();
    }
    panic!("it never came to it that {what}");
}

/// For clients without a wire: takes batches as an endpoint does.
async fn take(client: Arc<ClientShared>, plug: Plug) {
    while let Some(frames) = poll_fn(|cx| client.outbox.poll_next(cx)).await {
        shuttle::future::yield_now().await;
        plug.socket.lock().bytes.extend_from_slice(frames.bytes());
    }
}

/// What a socket took.
#[derive(Default)]
pub(super) struct Socket {
    bytes: Vec<u8>,
    pub(super) stalled: bool,
    breaks: bool,
    shut: bool,
    waiting: Option<Waker>,
}

/// One end of a client: its socket, which takes some bytes now and then, and its encoder.
#[derive(Clone)]
pub(super) struct Plug {
    /// A lock that the checker does not know: a socket is no concern of the router's.
    pub(super) socket: Arc<parking_lot::Mutex<Socket>>,
    encoder: Arc<dyn Encoder>,
    wired: bool,
}

impl Plug {
    pub(super) fn new(encoder: &Arc<dyn Encoder>, wired: bool) -> Self {
        Self {
            socket: Arc::default(),
            encoder: encoder.clone(),
            wired,
        }
    }

    pub(super) fn stall(&self) {
        self.socket.lock().stalled = true;
    }

    pub(super) fn break_soon(&self) {
        self.socket.lock().breaks = true;
    }

    pub(super) fn go_on(&self) {
        let mut socket = self.socket.lock();
        socket.stalled = false;
        if let Some(waiting) = socket.waiting.take() {
            waiting.wake();
        }
    }

    pub(super) fn is_shut(&self) -> bool {
        !self.wired || self.socket.lock().shut
    }

    /// The frames that came, whole ones only if `ended`.
    pub(super) fn frames(&self, ended: bool) -> Vec<String> {
        let text = String::from_utf8(self.socket.lock().bytes.clone()).expect("frames are text");
        assert!(
            !ended || text.is_empty() || text.ends_with('\n'),
            "a frame was begun and not finished: {text:?}"
        );
        let mut frames: Vec<_> = text.split('\n').map(str::to_owned).collect();
        frames.pop();
        frames
    }
}

impl Wire for Plug {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = self.socket.lock();
        if socket.breaks && chance(3) {
            resume_unwind(Box::new("a wire breaks"));
        }
        let taken = match below(4) {
            _ if socket.stalled => 0,
            0 => 0,
            1 => bytes.len(),
            _ => 1 + below(bytes.len()),
        };
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        socket.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.socket.lock();
        if socket.stalled {
            socket.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if chance(2) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn shutdown(self: Box<Self>) {
        self.socket.lock().shut = true;
    }
}

/// Frames that are lines; a message "!" makes it panic.
pub(super) struct Lines;

impl Encoder for Lines {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        if message.payload() == "!" {
            resume_unwind(Box::new("an encoder breaks"));
        }
        out.extend_from_slice(message.payload());
        out.push(b'\n');
    }

    fn welcome(&self, _: &Client, _: &Name, out: &mut Vec<u8>) {
        out.extend_from_slice(b"welcome\n");
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("close {}\n", reason.code()).as_bytes());
    }
}

/// An endpoint's options under which lanes rest.
pub(super) fn options() -> EndpointOptions {
    EndpointOptions {
        coalesce: Duration::from_millis(10),
        ..EndpointOptions::default()
    }
}

pub(super) fn id(session: &Session) -> ClientId {
    session.client().id()
}
