//! How many allocations a message costs, in a steady state: 128-byte payloads, one thread.
//!
//! `cargo bench -p gobroke-core --bench allocations` prints it for each way that a message can go. The payload's own
//! buffer, which a real endpoint copies out of its read buffer, is one of them. Counts are the same on every machine, so
//! `cargo test` runs this too, and fails where one is more than a twentieth off `baseline.txt`.

mod baseline;
mod least;

use std::{
    io,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use gobroke_core::{
    Admission, Batch, Broke, BrokeBuilder, ClientId, ConnectRequest, Encoder, Logic, LogicContext,
    LogicResult, Message, Name, Session, Wire, cluster::MemoryCluster, testing::TestEndpoint,
};
use tokio::runtime::Runtime;

use self::{baseline::Baseline, least::least};

const PAYLOAD: usize = 128;
const ACKNOWLEDGEMENT: usize = 32;
const READ: u64 = 16;
const READS: u64 = 400;
/// How many listen to what is said to many.
const LISTENERS: usize = 100;

struct Raw;

impl Encoder for Raw {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        out.extend_from_slice(message.payload());
    }
}

/// A socket that takes everything, and counts the bytes.
struct Sink(Arc<AtomicU64>);

impl Wire for Sink {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(bytes.len() as u64, Relaxed);
        Ok(bytes.len())
    }

    fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn shutdown(self: Box<Self>) {}
}

/// A router with sessions whose sockets take everything.
struct House {
    broke: Broke,
    sessions: Vec<Session>,
    written: Arc<AtomicU64>,
}

impl House {
    async fn start(builder: BrokeBuilder, clients: usize) -> Self {
        let endpoint = TestEndpoint::to_logic("logic");
        let broke = builder.endpoint(endpoint.clone()).start().await;
        let broke = broke.expect("it starts");
        let (gate, encoder): (_, Arc<dyn Encoder>) = (endpoint.gate().await, Arc::new(Raw));
        let (mut sessions, written) = (Vec::new(), Arc::<AtomicU64>::default());
        for _ in 0..clients {
            let (request, wire) = (ConnectRequest::default(), Box::new(Sink(written.clone())));
            let session = gate.connect(request, encoder.clone(), Some(wire)).await;
            sessions.push(session.expect("it is admitted"));
        }
        Self {
            broke,
            sessions,
            written,
        }
    }

    /// Lets the first client send, and waits after each read until so many bytes of each message are written there.
    async fn send(&mut self, reads: u64, there: &AtomicU64, bytes: u64) {
        let (mut incoming, _outgoing) = self.sessions[0].halves();
        let (mut batch, logic) = (Batch::new(), Name::from("logic"));
        let mut due = there.load(Relaxed);
        for _ in 0..reads {
            for _ in 0..READ {
                let payload = Bytes::copy_from_slice(&[b'x'; PAYLOAD]);
                let message = Message::new(payload).to_logic(&logic);
                batch.push(message);
            }
            incoming.receive(&mut batch).await.expect("it is open");
            due += READ * bytes;
            while there.load(Relaxed) < due {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Counts for one router, whose logic has so many bytes written of each message.
fn count(baseline: &mut Baseline, name: &str, logic: Logic, clients: usize, bytes: usize) {
    let runtime = runtime();
    let builder = Broke::builder()
        .receive_middleware(look_at)
        .logic(logic)
        .on_connect(async |_| Ok(Admission::anonymous().in_group("room")));
    let mut house = runtime.block_on(House::start(builder, clients));
    let (broke, written) = (house.broke.clone(), house.written.clone());
    let counted = least(|| runtime.block_on(house.send(READS, &written, bytes as u64)));
    baseline.count(name, &counted, READ * READS);
    drop(house);
    runtime.block_on(broke.stop());
}

/// Counts for two routers: a client of the one sends to one of the other.
fn count_between_instances(baseline: &mut Baseline) {
    let runtime = runtime();
    let cluster = MemoryCluster::new();
    let builder = |name: &str| Broke::builder().instance(name).cluster(cluster.clone());
    let there = runtime.block_on(House::start(builder("there"), 1));
    let receiver: ClientId = there.sessions[0].client().id();
    let logic = Logic::dispatched("logic", move |mut message: Message, ctx: &LogicContext| {
        message.targets_mut().clear();
        ctx.send(message.to_client(receiver))?;
        Ok(())
    });
    let mut here = runtime.block_on(House::start(builder("here").logic(logic), 1));
    let counted = least(|| {
        runtime.block_on(here.send(READS, &there.written, PAYLOAD as u64));
    });
    baseline.count("to a client of another instance", &counted, READ * READS);
    for house in [here, there] {
        drop(house.sessions);
        runtime.block_on(house.broke.stop());
    }
}

/// A receive middleware, as most programs have one.
fn look_at(message: &mut Message) {
    if message.payload().len() > PAYLOAD {
        message.reject("too large");
    }
}

fn reply(message: &Message, ctx: &LogicContext) -> LogicResult {
    ctx.reply(message, message.clone())?;
    Ok(())
}

/// To the room without its sender, who gets an acknowledgement: both kinds of shares in one pass.
fn say(mut message: Message, ctx: &LogicContext, room: &Name) -> LogicResult {
    let acknowledgement = Message::new(message.payload().slice(..ACKNOWLEDGEMENT));
    ctx.reply(&message, acknowledgement)?;
    let sender = message.client();
    message.targets_mut().clear();
    sender
        .into_iter()
        .for_each(|sender| message.targets_mut().exclude(sender));
    ctx.send(message.to_group(room))?;
    Ok(())
}

fn main() -> ExitCode {
    let mut baseline = Baseline::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/benches/allocations/baseline.txt"
    ));
    let one = |name, logic| (name, logic, 1, PAYLOAD);
    let broadcast = Logic::dispatched("logic", |message, ctx| {
        ctx.broadcast(message)?;
        Ok(())
    });
    let room = Name::from("room");
    let say = Logic::dispatched("logic", move |message, ctx| say(message, ctx, &room));
    let others = (LISTENERS - 1) * PAYLOAD;
    for (name, logic, clients, bytes) in [
        one(
            "dispatched",
            Logic::dispatched("logic", |message, ctx| reply(&message, ctx)),
        ),
        one(
            "worker",
            Logic::worker("logic", |message, ctx| reply(&message, ctx)),
        ),
        ("broadcast", broadcast, LISTENERS, LISTENERS * PAYLOAD),
        (
            "to a room, acknowledged",
            say,
            LISTENERS,
            others + ACKNOWLEDGEMENT,
        ),
    ] {
        count(&mut baseline, name, logic, clients, bytes);
    }
    count_between_instances(&mut baseline);
    baseline.judge()
}
