//! How many messages a second the router carries, with nothing but memory under it: 128-byte payloads, two threads.
//!
//! `cargo bench -p gobroke-core --bench throughput` prints the median and the spread of several rounds for
//!
//! - `dispatched`: 100 clients, each message to a dispatched module and back to its client,
//! - `worker`: the same through a worker,
//! - `broadcast`: one client's messages to 10,000, each wire given its bytes,
//! - `look-up`: where a client of another instance is, among 32,768 that are remembered, in no order.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use gobroke_core::{
    Batch, Broke, ClientId, ConnectRequest, Encoder, Gate, Logic, Message, Wire,
    cluster::{Incarnation, InstanceId},
    testing::{Routes, TestEndpoint},
};

/// A message is allocated by one thread and freed by another, which is where the system's allocator (glibc 2.36) waits
/// at its arenas' locks: a fifth of a worker's time. A server of this kind takes another one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 7;
/// Messages that one read gives.
const READ: usize = 16;
const PAYLOAD: [u8; 128] = [b'x'; 128];

/// What a round measured.
#[derive(Clone, Copy)]
struct Figure {
    /// Millions a second.
    rate: f64,
    /// Nanoseconds of the process' CPU time for each: steadier than the rate on a machine that others use.
    cpu: f64,
}

impl Figure {
    fn of(count: u64, took: Duration, cpu: Duration) -> Self {
        Self {
            rate: count as f64 / took.as_secs_f64() / 1e6,
            cpu: cpu.as_nanos() as f64 / count as f64,
        }
    }
}

/// The CPU time of all threads so far; zero where the system does not tell.
fn cpu() -> Duration {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return Duration::ZERO;
    };
    let nanos = tasks.flatten().filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// The least that a frame needs: a length and the payload.
struct Raw;

impl Encoder for Raw {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        out.extend_from_slice(&(message.payload().len() as u16).to_be_bytes());
        out.extend_from_slice(message.payload());
    }
}

/// A socket that takes everything, and counts.
struct Sink(Arc<AtomicU64>);

impl Wire for Sink {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .fetch_add(std::hint::black_box(bytes).len() as u64, Relaxed);
        Ok(bytes.len())
    }

    fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn shutdown(self: Box<Self>) {}
}

const FRAME: u64 = PAYLOAD.len() as u64 + 2;

struct Clients {
    gate: Gate,
    encoder: Arc<dyn Encoder>,
}

impl Clients {
    /// A client that sends so many reads, held back by the door alone, and then waits for as many frames.
    async fn talk(&self, reads: usize) {
        let got = Arc::new(AtomicU64::new(0));
        let request = ConnectRequest::default();
        let wire: Box<dyn Wire> = Box::new(Sink(got.clone()));
        let mut session = self
            .gate
            .connect(request, self.encoder.clone(), Some(wire))
            .await
            .expect("it is admitted");
        let (mut incoming, _outgoing) = session.halves();
        let mut batch = Batch::new();
        for _ in 0..reads {
            for _ in 0..READ {
                let message = Message::new(Bytes::copy_from_slice(&PAYLOAD)).to_logic(logic());
                batch.push(message);
            }
            incoming.receive(&mut batch).await.expect("it is open");
        }
        while got.load(Relaxed) < (reads * READ) as u64 * FRAME {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A client that only listens, for as long as it is held.
    async fn listen(&self, got: &Arc<AtomicU64>) -> gobroke_core::Session {
        let wire: Box<dyn Wire> = Box::new(Sink(got.clone()));
        self.gate
            .connect(ConnectRequest::default(), self.encoder.clone(), Some(wire))
            .await
            .expect("it is admitted")
    }
}

/// The name is kept, as a codec keeps it.
fn logic() -> gobroke_core::Name {
    thread_local!(static NAME: gobroke_core::Name = "logic".into());
    NAME.with(Clone::clone)
}

async fn start(logic: Logic) -> (Broke, Arc<Clients>) {
    let endpoint = TestEndpoint::to_logic("logic");
    let broke = Broke::builder()
        .endpoint(endpoint.clone())
        .logic(logic)
        .start()
        .await
        .expect("it starts");
    let clients = Clients {
        gate: endpoint.gate().await,
        encoder: Arc::new(Raw),
    };
    (broke, Arc::new(clients))
}

/// 100 clients, each sending and hearing; messages a second.
async fn there_and_back(logic: Logic, reads: usize) -> Figure {
    let (broke, clients) = start(logic).await;
    let (began, cpu_before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let clients = clients.clone();
            tokio::spawn(async move { clients.talk(reads).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("it talks to the end");
    }
    let figure = Figure::of(
        (100 * reads * READ) as u64,
        began.elapsed(),
        cpu() - cpu_before,
    );
    broke.stop().await;
    figure
}

/// One client's messages to 10,000; deliveries a second.
async fn broadcast(reads: usize) -> Figure {
    let (broke, clients) = start(Logic::dispatched("logic", |message, ctx| {
        ctx.broadcast(message)?;
        Ok(())
    }))
    .await;
    let got = Arc::new(AtomicU64::new(0));
    let mut listeners = Vec::new();
    for _ in 0..10_000 {
        listeners.push(clients.listen(&got).await);
    }
    let (began, cpu_before) = (Instant::now(), cpu());
    let talker = clients.clone();
    tokio::spawn(async move { talker.talk(reads).await })
        .await
        .expect("it talks to the end");
    let deliveries = (reads * READ) as u64 * 10_000;
    while got.load(Relaxed) < deliveries * FRAME {
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
    let figure = Figure::of(deliveries, began.elapsed(), cpu() - cpu_before);
    drop(listeners);
    broke.stop().await;
    figure
}

fn reply()
-> impl Fn(Message, &gobroke_core::LogicContext) -> gobroke_core::LogicResult + Send + Sync + 'static
{
    |message, ctx| {
        ctx.reply(&message, message.clone())?;
        Ok(())
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    // What is named on the command line; all without a name. Cargo adds flags.
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let mut results: Vec<(&str, Vec<Figure>)> = ["dispatched", "worker", "broadcast", "look-up"]
        .into_iter()
        .filter(|name| asked.is_empty() || asked.iter().any(|asked| asked == name))
        .map(|name| (name, Vec::new()))
        .collect();
    // Interleaved, so that a change of the machine's speed meets all. The first round warms up.
    for round in 0..=ROUNDS {
        for (name, figures) in &mut results {
            let name = *name;
            let run = runtime.spawn(async move {
                match name {
                    "dispatched" => there_and_back(Logic::dispatched("logic", reply()), 1000).await,
                    "worker" => there_and_back(Logic::worker("logic", reply()), 1000).await,
                    "broadcast" => broadcast(500).await,
                    _ => look_up(),
                }
            });
            let figure = runtime.block_on(run).expect("a round ends");
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    println!(
        "{:<12} {:>12} {:>12} {:>12} {:>12}",
        "", "median", "least", "most", "own CPU"
    );
    for (name, mut figures) in results {
        figures.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let [least, median, most] = [0, ROUNDS / 2, ROUNDS - 1].map(|index| figures[index].rate);
        figures.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
        let cpu = figures[ROUNDS / 2].cpu;
        println!("{name:<12} {median:>9.2} M/s {least:>9.2} M/s {most:>9.2} M/s {cpu:>9.1} ns");
    }
}

/// What a message to a client of another instance costs to find where that is, where it was found before.
fn look_up() -> Figure {
    const COUNT: usize = 4_000_000;
    let clients: Vec<ClientId> = (0..32_768).map(|_| ClientId::new()).collect();
    let mut routes = Routes::of(&clients, &InstanceId::new("two", Incarnation::new(1, 0)));
    let (begun, before) = (Instant::now(), cpu());
    for number in 0..COUNT {
        // An odd step goes through all of them, far from one to the next.
        let client = clients[number.wrapping_mul(10_007) % clients.len()];
        assert!(routes.find(client).is_some());
    }
    Figure::of(COUNT as u64, begun.elapsed(), cpu() - before)
}
