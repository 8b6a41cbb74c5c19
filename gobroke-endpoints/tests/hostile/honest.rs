//! Clients that do as they should: [`Honest`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gobroke_core::Broke;
use tokio::task::JoinSet;

use crate::{
    at,
    common::{
        TcpClient,
        websocket::{BINARY, LAST, PING, PONG, WebSocket, frame},
    },
    until,
};

const OVER_WEBSOCKET: usize = 160;
const OVER_TCP: usize = 40;
pub(crate) const ALL: usize = OVER_WEBSOCKET + OVER_TCP;

/// How many answers each gets, in the middle, before a phase has lasted.
const LASTING: u64 = 40 * ALL as u64;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    Quiet,
    Attack,
    Exhausted,
}

/// Parts of a doubling of time that are told apart.
const PARTS: f64 = 8.0;

/// How long answers took: how many took so many eighths of a doubling of a microsecond.
#[derive(Debug)]
struct Times([AtomicU64; 256]);

impl Times {
    fn count(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }
}

#[derive(Debug)]
struct Watch {
    phase: AtomicUsize,
    stop: AtomicBool,
    times: [Times; 3],
}

impl Watch {
    fn answered(&self, sent: Instant) {
        let micros = sent.elapsed().as_micros().max(1) as f64;
        let bucket = (micros.log2() * PARTS) as usize;
        let times = &self.times[self.phase.load(Relaxed)];
        times.0[bucket.min(255)].fetch_add(1, Relaxed);
    }
}

/// Clients that say one thing after another, and expect to be answered each of them, in order.
pub(crate) struct Honest {
    clients: JoinSet<()>,
    watch: Arc<Watch>,
}

impl Honest {
    pub(crate) async fn at_work(broke: &Broke) -> Self {
        let watch = Arc::new(Watch {
            phase: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            times: std::array::from_fn(|_| Times(std::array::from_fn(|_| AtomicU64::new(0)))),
        });
        let mut sockets = Vec::new();
        for _ in 0..OVER_WEBSOCKET {
            sockets.push(WebSocket::open(at(broke, "ws")).await);
        }
        let mut clients = JoinSet::new();
        for client in sockets {
            clients.spawn(over_websocket(client, Arc::clone(&watch)));
        }
        for _ in 0..OVER_TCP {
            let client = TcpClient::connect(at(broke, "tcp")).await;
            clients.spawn(over_tcp(client, Arc::clone(&watch)));
        }
        Self { clients, watch }
    }

    pub(crate) fn enter(&mut self, phase: Phase) {
        self.watch.phase.store(phase as usize, Relaxed);
    }

    /// Lets them work for a while.
    pub(crate) async fn work_in(&mut self, phase: Phase) {
        self.enter(phase);
        let times = &self.watch.times[phase as usize];
        until("they are answered", || times.count() >= LASTING).await;
    }

    pub(crate) async fn stop(&mut self) {
        self.watch.stop.store(true, Relaxed);
        while let Some(worked) = self.clients.join_next().await {
            worked.expect("an honest client loses nothing");
        }
    }

    /// Within which time so many of a hundred answers came, to a tenth.
    pub(crate) fn within(&self, phase: Phase, percent: u64) -> Duration {
        let times = &self.watch.times[phase as usize];
        let mut left = times.count() * percent / 100;
        let mut buckets = times.0.iter().enumerate();
        let bucket = buckets.find_map(|(bucket, count)| {
            let count = count.load(Relaxed);
            let found = left < count;
            left = left.saturating_sub(count);
            found.then_some(bucket)
        });
        let bucket = bucket.expect("there are answers") as f64;
        Duration::from_micros(((bucket + 1.0) / PARTS).exp2() as u64)
    }

    pub(crate) fn report(&self) {
        for phase in [Phase::Quiet, Phase::Attack, Phase::Exhausted] {
            println!(
                "{phase:?}: {} answers, half within {:?}, 99 of 100 within {:?}",
                self.watch.times[phase as usize].count(),
                self.within(phase, 50),
                self.within(phase, 99)
            );
        }
    }
}

/// How long a client thinks.
const PAUSE: Duration = Duration::from_millis(50);

async fn over_websocket(mut client: WebSocket, watch: Arc<Watch>) {
    for number in 0_u64.. {
        if watch.stop.load(Relaxed) {
            return;
        }
        let sent = Instant::now();
        let message = frame(LAST | BINARY, number.to_be_bytes());
        client.write(message).await;
        let (mut first, mut answer) = client.next().await.expect("an answer");
        while first == LAST | PING {
            client.write(frame(LAST | PONG, &answer)).await;
            (first, answer) = client.next().await.expect("an answer");
        }
        let expected = (LAST | BINARY, number.to_be_bytes().to_vec());
        assert_eq!((first, answer), expected);
        watch.answered(sent);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn over_tcp(mut client: TcpClient, watch: Arc<Watch>) {
    for number in 0_u64.. {
        if watch.stop.load(Relaxed) {
            return;
        }
        let sent = Instant::now();
        client.send(number.to_be_bytes()).await;
        let answer = client.next().await.expect("an answer");
        assert_eq!(answer, number.to_be_bytes());
        watch.answered(sent);
        tokio::time::sleep(PAUSE).await;
    }
}
