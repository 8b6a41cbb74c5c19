//! One round: a server is started, put under a load, and looked at.

use std::{
    fmt,
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use gobroke_bench::Mode;
use hdrhistogram::Histogram;

use crate::{
    load::{
        Generator, Load, PATIENCE, Pace, connection::Connection, dialect::Dialect, expect::Account,
        histogram, spans::Span,
    },
    scenario::Kind,
    server::{Contender, Server},
};

#[derive(Clone, Copy)]
pub struct Times {
    pub warm_up: Duration,
    pub measured: Duration,
}

impl Times {
    /// So long is measured, after a quarter of it.
    pub fn of(seconds: f64) -> Self {
        Self {
            warm_up: Duration::from_secs_f64(seconds / 4.0),
            measured: Duration::from_secs_f64(seconds),
        }
    }

    /// Roughly how long a round takes: the server starts, clients connect one after the other and wait for silence.
    pub fn expected(self, kind: &Kind) -> Duration {
        let connecting = CONNECTING * kind.connections() as u32;
        let measuring = match kind {
            Kind::Idle(_) => PARTING + 2 * SETTLING,
            _ => self.warm_up + self.measured,
        };
        let waiting = match kind.load() {
            // For what has not arrived, up to three seconds.
            Some(load) if matches!(load.pace, Pace::Rate(300..)) => CATCHING_UP,
            _ => Duration::ZERO,
        };
        STARTING + connecting + measuring + waiting
    }

    /// How long it may take at most, whatever the server does once it listens.
    pub fn longest(self) -> Duration {
        STUCK + self.warm_up + self.measured
    }
}

/// Measured on 2 cores.
const STARTING: Duration = Duration::from_millis(400);
const CONNECTING: Duration = Duration::from_micros(150);
/// About half of the contenders fall behind in a busy room.
const CATCHING_UP: Duration = Duration::from_millis(1500);
/// Until it is given up: connecting, with the answer that a connection last waits for, and what has not arrived.
const STUCK: Duration = Duration::from_secs(PATIENCE.as_secs() + 10);
/// Until the system has moved who began together: mostly half of it.
const PARTING: Duration = Duration::from_millis(700);
/// How long handshakes may still end after they were answered.
const SETTLING: Duration = Duration::from_millis(500);

/// What a round found. Where a figure has no meaning for a scenario, it is none.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The server's processor time for each delivered message, in microseconds; in churn, for each connection, and
    /// where connections are idle, for each of the last thousand.
    pub cpu: Option<f64>,
    /// Delivered messages a second; in churn, connections.
    pub throughput: Option<f64>,
    /// Milliseconds: median, 99 % and 99.9 %.
    pub latency: Option<[f64; 3]>,
    /// How many messages a write of the server carries.
    pub together: Option<f64>,
    /// Resident memory at the end of the load, in MiB.
    pub memory: Option<f64>,
    /// Resident memory for each connection, in KiB.
    pub per_connection: Option<f64>,
    /// Where connections are idle: what each of the first thousand and of the last thousand cost to connect, in
    /// microseconds of the server's processor time.
    pub connecting: Option<[f64; 2]>,
    /// Where a room is busy beside what is measured.
    pub beside: Option<Beside>,
    /// What went wrong, where it is looked at.
    pub account: Option<Account>,
    /// How many of the slow receivers the server has closed, where there are some.
    pub cut: Option<usize>,
    /// It delivered less than 95 % of what it was sent at a fixed rate.
    pub fell_behind: bool,
}

/// A busy room, and what was measured beside it.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// How long a message of the room took from its first receiver to its last, in milliseconds: the median.
    pub pass: f64,
    /// How many messages were sent while one of the room's was under way: the latencies are theirs.
    pub counted: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cpu) = self.cpu {
            write!(f, "{cpu:8.2} µs ")?;
        }
        if let Some(throughput) = self.throughput {
            write!(f, "{:8.1} k/s ", throughput / 1000.0)?;
        }
        if let Some(together) = self.together {
            write!(f, "{together:5.1} a write ")?;
        }
        if let Some([p50, p99, _]) = self.latency {
            write!(f, "p50 {p50:.2} ms p99 {p99:.2} ms ")?;
        }
        if let Some(memory) = self.per_connection {
            write!(f, "{memory:8.1} KiB a connection ")?;
        }
        if let Some([first, last]) = self.connecting {
            write!(
                f,
                "the first thousand {first:.1} µs, the last {last:.1} µs each "
            )?;
        }
        if let Some(Beside { pass, counted }) = self.beside {
            write!(f, "of {counted} beside a pass of {pass:.2} ms ")?;
        }
        if let Some(cut) = self.cut {
            write!(f, "{cut} slow receivers cut ")?;
        }
        if self.fell_behind {
            write!(f, "DOES NOT HOLD ")?;
        }
        if let Some(account) = self
            .account
            .filter(|account| *account != Account::default())
        {
            let Account {
                lost,
                doubled,
                disordered,
                stray,
            } = account;
            write!(
                f,
                "lost {lost} doubled {doubled} disordered {disordered} stray {stray}"
            )?;
        }
        Ok(())
    }
}

pub fn measure(contender: &Contender, kind: &Kind, times: Times) -> io::Result<Figures> {
    match *kind {
        Kind::Load(load)
        | Kind::Tcp(load)
        | Kind::SecureTcp(load)
        | Kind::Tls(load)
        | Kind::Mix(load)
        | Kind::Workers(load) => under_load(contender, load, times),
        Kind::Idle(connections) => idle(contender, connections),
        Kind::Beside(room) => beside(contender, room, times),
        Kind::Churn => churn(contender, times),
    }
}

fn under_load(contender: &Contender, load: Load, times: Times) -> io::Result<Figures> {
    let server = Server::start(contender, load.mode)?;
    let generator = Generator::connect(load, contender.dialect, server.address)?;
    let (mut marks, mut memory) = (Vec::new(), 0);
    let seen = generator.run(times.warm_up, times.measured, |written| {
        marks.push((server.cpu(), segments().saturating_sub(written)));
        memory = server.memory();
    })?;
    // What does nothing uses nothing: it would be the best.
    if seen.delivered == 0 {
        let error = format!("nothing came while it was measured ({:?})", seen.account);
        return Err(io::Error::other(error));
    }
    let used = marks[1].0 - marks[0].0;
    let writes = marks[1].1.saturating_sub(marks[0].1);
    let throughput = seen.delivered as f64 / seen.elapsed.as_secs_f64();
    let fell_behind = match load.pace {
        Pace::Window(_) => false,
        Pace::Rate(rate) => throughput < 0.95 * f64::from(rate) * load.deliveries() as f64,
    };
    Ok(Figures {
        cpu: Some(used.as_secs_f64() * 1e6 / seen.delivered as f64),
        throughput: Some(throughput),
        latency: Some(milliseconds(&seen.latency)),
        together: (writes > 0).then(|| seen.delivered as f64 / writes as f64),
        memory: Some(memory as f64 / f64::from(1 << 20)),
        account: Some(seen.account),
        cut: (load.slow > 0).then_some(seen.cut),
        fell_behind,
        ..Figures::default()
    })
}

/// How many TCP segments with data this machine has sent: on the loopback interface, one for each write of up to 64 KiB.
fn segments() -> u64 {
    let counters = std::fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next(), lines.next());
    let (names, values) = (names.unwrap_or_default(), values.unwrap_or_default());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let sent = pairs.find(|(name, _)| *name == "TCPOrigDataSent");
    sent.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

fn idle(contender: &Contender, connections: usize) -> io::Result<Figures> {
    let server = Server::start(contender, Mode::Echo)?;
    let open = || Connection::open(contender.dialect, server.address, 0, Mode::Echo);
    // What the first ones cost once is not theirs.
    let mut all = (0..100).map(|_| open()).collect::<io::Result<Vec<_>>>()?;
    settle();
    let before = server.memory();
    // Right before they are counted: a sleep brings the two together again.
    part(&server);
    // The processor time of each thousand, beside all that were there before.
    let mut thousands = Vec::new();
    let mut cpu = server.cpu();
    let give_up = Instant::now() + PATIENCE;
    for index in 0..connections {
        if Instant::now() > give_up {
            let error = format!("only {index} of {connections} have connected");
            return Err(io::Error::other(error));
        }
        all.push(open()?);
        if (index + 1) % 1000 == 0 {
            let now = server.cpu();
            thousands.push((now - cpu).as_secs_f64() * 1e3);
            cpu = now;
        }
    }
    settle();
    let used = server.memory().saturating_sub(before);
    Ok(Figures {
        cpu: thousands.last().copied(),
        connecting: match thousands[..] {
            [first, .., last] => Some([first, last]),
            _ => None,
        },
        per_connection: Some(used as f64 / 1024.0 / connections as f64),
        memory: Some(server.memory() as f64 / f64::from(1 << 20)),
        ..Figures::default()
    })
}

/// A message a millisecond from one client to another, both outside a room that is busy. The room's own figures are its
/// throughput and how long its messages take; the latencies are those of the messages beside it that were sent while one
/// of its own was under way.
fn beside(contender: &Contender, room: Load, times: Times) -> io::Result<Figures> {
    let server = Server::start(contender, room.mode)?;
    let generator = Generator::connect(room, contender.dialect, server.address)?.keeping_spans();
    let pair = Load {
        mode: Mode::Others,
        connections: 2,
        room: 2,
        pace: Pace::Rate(1000),
        ..room
    };
    let pair = Generator::connect_to(pair, contender.dialect, server.address, 1)?.keeping_spans();
    let (room, pair) = std::thread::scope(|scope| {
        let room = scope.spawn(|| generator.run(times.warm_up, times.measured, |_| {}));
        let pair = pair.run(times.warm_up, times.measured, |_| {});
        (room.join(), pair)
    });
    let room = room.map_err(|_| io::Error::other("the room's load panicked"))??;
    let pair = pair?;
    let mut passes: Vec<Duration> = room.spans.iter().map(Span::pass).collect();
    passes.sort_unstable();
    let pass = passes.get(passes.len() / 2).copied().unwrap_or_default();
    let is_beside = |one: &&Span| room.spans.iter().any(|span| span.covers(one.sent));
    let mut latency = histogram();
    for one in pair.spans.iter().filter(is_beside) {
        latency.saturating_record(one.last.duration_since(one.sent).as_micros() as u64);
    }
    Ok(Figures {
        latency: (!latency.is_empty()).then(|| milliseconds(&latency)),
        throughput: Some(room.delivered as f64 / room.elapsed.as_secs_f64()),
        beside: Some(Beside {
            pass: pass.as_secs_f64() * 1e3,
            counted: latency.len() as usize,
        }),
        account: Some(room.account + pair.account),
        ..Figures::default()
    })
}

/// The median, 99 % and 99.9 %.
fn milliseconds(latency: &Histogram<u64>) -> [f64; 3] {
    [0.5, 0.99, 0.999].map(|share| latency.value_at_quantile(share) as f64 / 1000.0)
}

fn settle() {
    std::thread::sleep(SETTLING);
}

/// Asks for a page that is not there, until the system has the server and this program on processors of their own. Who
/// wakes each other begins on one, where a connection costs little more than half: nobody sleeps between two of them.
fn part(server: &Server) {
    let ask = || -> io::Result<usize> {
        let mut stream = std::net::TcpStream::connect(server.address)?;
        stream.set_read_timeout(Some(PARTING))?;
        stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        stream.read(&mut [0; 4096])
    };
    let until = Instant::now() + PARTING;
    while Instant::now() < until {
        // What is answered does not matter.
        let _ = ask();
    }
}

fn churn(contender: &Contender, times: Times) -> io::Result<Figures> {
    let server = Server::start(contender, Mode::Rooms)?;
    let mut payload = [b'x'; 128];
    let mut buffer = vec![0; 64 << 10];
    let began = Instant::now();
    let mut cpu = server.cpu();
    let mut from = began;
    let (mut cycles, mut warm) = (0u64, false);
    while from.elapsed() < times.measured {
        if !warm && began.elapsed() >= times.warm_up {
            (warm, cycles, cpu, from) = (true, 0, server.cpu(), Instant::now());
        }
        let mut connection = Connection::open(contender.dialect, server.address, 0, Mode::Rooms)?;
        crate::load::Header {
            sender: 0,
            number: 1,
            nanos: 0,
        }
        .write(&mut payload);
        say_until_heard(
            &mut connection,
            contender.dialect,
            &payload,
            &mut buffer,
            began,
        )?;
        cycles += 1;
    }
    Ok(Figures {
        cpu: Some((server.cpu() - cpu).as_secs_f64() * 1e6 / cycles.max(1) as f64),
        throughput: Some(cycles as f64 / from.elapsed().as_secs_f64()),
        ..Figures::default()
    })
}

/// Sends, and again where the server had not yet let it into its room.
fn say_until_heard(
    connection: &mut Connection,
    dialect: Dialect,
    payload: &[u8],
    buffer: &mut [u8],
    began: Instant,
) -> io::Result<()> {
    for _ in 0..1000 {
        connection.put(dialect, payload);
        connection.flush()?;
        let patience = Instant::now() + Duration::from_millis(20);
        while Instant::now() < patience {
            let mut heard = false;
            connection.read(
                buffer,
                dialect,
                |payload, _| heard |= !payload.is_empty(),
                began,
            )?;
            if heard {
                return Ok(());
            }
        }
    }
    Err(io::Error::other("it is not heard"))
}
