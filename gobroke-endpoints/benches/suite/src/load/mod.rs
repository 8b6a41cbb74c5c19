//! The load: connections on one thread, which send and check that every message arrives once and in order.

pub mod connection;
pub mod dialect;
pub mod expect;
pub mod spans;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use gobroke_bench::{Mode, Whom};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use self::{
    connection::Connection,
    dialect::Dialect,
    expect::{Account, Expect},
    spans::{Span, Spans},
};

/// What is put on a server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub mode: Mode,
    pub connections: usize,
    /// The first so many of each room send.
    pub senders: usize,
    /// How many connections are in a room; without rooms, all of them.
    pub room: usize,
    pub pace: Pace,
    /// Bytes of a message.
    pub payload: usize,
    /// Bytes of each sender's every 16th message, where those are bigger.
    pub big: Option<usize>,
    /// The last so many connections read slowly. Nobody waits for them, and what they get is not looked at.
    pub slow: usize,
}

impl Load {
    /// How many deliveries each message makes, its acknowledgement among them; where that differs, one to all.
    pub fn deliveries(&self) -> usize {
        let left_out = usize::from(!self.mode.includes_sender());
        self.room - self.slow - left_out + usize::from(self.mode.acknowledges())
    }

    /// How many that message of a sender makes that has this number.
    pub fn deliveries_of(&self, sender: usize, number: u32) -> usize {
        match self.mode {
            Mode::Mix => Whom::of(sender, number).count(),
            _ => self.deliveries(),
        }
    }

    /// Whether that message is for a receiver in the sender's room.
    pub fn is_for(&self, receiver: usize, sender: usize, number: u32) -> bool {
        match self.mode {
            Mode::Mix => Whom::of(sender, number).has(receiver),
            mode => sender != receiver || mode.includes_sender(),
        }
    }

    /// What a connection asks for: the room that it is in, or its own index.
    fn path(&self, index: usize) -> usize {
        match self.mode {
            Mode::Mix => index,
            _ => index / self.room,
        }
    }

    /// Bytes of the message that has this number at its sender.
    pub fn payload_of(&self, number: u32) -> usize {
        match self.big {
            Some(big) if number.is_multiple_of(16) => big,
            _ => self.payload,
        }
    }
}

/// How much a slow connection reads at a time, and how often.
const SIP: usize = 16 << 10;
const SIP_EVERY: Duration = Duration::from_millis(100);

/// When messages are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many of each sender are under way: the next is sent when one has reached all.
    Window(usize),
    /// So many a second in all, whether they arrive or not.
    Rate(u32),
}

/// What a round found.
pub struct Seen {
    /// Messages that arrived during the measurement.
    pub delivered: u64,
    pub elapsed: Duration,
    /// From the time a message was due to be sent until one receiver had it, in microseconds.
    pub latency: Histogram<u64>,
    pub account: Account,
    /// How many of the slow connections the server has closed.
    pub cut: usize,
    /// When the messages of the measurement were sent and came, where that is kept.
    pub spans: Vec<Span>,
}

/// A message's beginning: who sent it, its number from 1 on (0: a probe), and when, in hexadecimal digits.
#[derive(Clone, Copy)]
pub struct Header {
    pub sender: u32,
    pub number: u32,
    pub nanos: u64,
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl Header {
    pub fn write(self, payload: &mut [u8]) {
        let mut digits = |at: usize, length: usize, value: u64| {
            for (index, digit) in payload[at..at + length].iter_mut().enumerate() {
                *digit = DIGITS[(value >> (4 * (length - 1 - index)) & 15) as usize];
            }
        };
        digits(0, 8, self.sender.into());
        digits(8, 8, self.number.into());
        digits(16, 16, self.nanos);
    }

    pub fn read(payload: &[u8]) -> Option<Self> {
        let digits = |at: usize, length: usize| {
            payload
                .get(at..at + length)?
                .iter()
                .try_fold(0u64, |value, digit| {
                    let digit = match digit {
                        b'0'..=b'9' => digit - b'0',
                        b'a'..=b'f' => digit - b'a' + 10,
                        _ => return None,
                    };
                    Some(value << 4 | u64::from(digit))
                })
        };
        Some(Self {
            sender: digits(0, 8)? as u32,
            number: digits(8, 8)? as u32,
            nanos: digits(16, 16)?,
        })
    }
}

/// How long connecting may take, until each connection is reached.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Generator {
    load: Load,
    dialect: Dialect,
    poll: Poll,
    connections: Vec<Connection>,
    expect: Expect,
    began: Instant,
    latency: Histogram<u64>,
    measuring: bool,
    spans: Option<Spans>,
    /// As long as the longest.
    payload: Vec<u8>,
    buffer: Vec<u8>,
    /// From this one on they read slowly; until the load begins none does.
    first_slow: usize,
    /// Those that have got a probe.
    probed: usize,
    is_probed: Vec<bool>,
}

impl Generator {
    /// Connects all, one after the other, and waits until each is reached.
    pub fn connect(load: Load, dialect: Dialect, address: SocketAddr) -> io::Result<Self> {
        Self::connect_to(load, dialect, address, 0)
    }

    /// The same with rooms that are counted from `first` on.
    pub fn connect_to(
        load: Load,
        dialect: Dialect,
        address: SocketAddr,
        first: usize,
    ) -> io::Result<Self> {
        let give_up = Instant::now() + PATIENCE;
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            if Instant::now() > give_up {
                let error = format!("only {index} of {} have connected", load.connections);
                return Err(io::Error::other(error));
            }
            let mut connection =
                Connection::open(dialect, address, first + load.path(index), load.mode)?;
            poll.registry().register(
                connection.stream_mut(),
                Token(index),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            connections.push(connection);
        }
        let mut generator = Self {
            expect: Expect::new(&load),
            load,
            dialect,
            poll,
            is_probed: vec![false; connections.len()],
            connections,
            began: Instant::now(),
            latency: histogram(),
            measuring: false,
            spans: None,
            payload: vec![b'x'; load.payload.max(load.big.unwrap_or(0))],
            buffer: vec![0; 1 << 20],
            first_slow: load.connections,
            probed: 0,
        };
        generator.probe(give_up)?;
        Ok(generator)
    }

    /// Keeps when each message was sent and came.
    pub fn keeping_spans(mut self) -> Self {
        self.spans = Some(Spans::default());
        self
    }

    fn senders(&self) -> impl Iterator<Item = usize> + use<> {
        let Load {
            connections,
            room,
            senders,
            ..
        } = self.load;
        (0..connections).filter(move |index| index % room < senders)
    }

    /// Sends probes until every connection has got one, then waits for silence.
    fn probe(&mut self, give_up: Instant) -> io::Result<()> {
        let mut events = Events::with_capacity(4096);
        while self.probed < self.connections.len() {
            if Instant::now() > give_up {
                return Err(io::Error::other(format!(
                    "{} of {} connections are not reached",
                    self.connections.len() - self.probed,
                    self.connections.len()
                )));
            }
            let probers: Vec<usize> = match self.load.mode {
                // The first of them is reached by the second alone.
                Mode::Others => (0..self.connections.len().min(2)).collect(),
                Mode::Rooms | Mode::Beside => (0..self.connections.len())
                    .step_by(self.load.room)
                    .collect(),
                Mode::Echo => (0..self.connections.len())
                    .filter(|&index| !self.is_probed[index])
                    .collect(),
                Mode::All | Mode::AllAck | Mode::OthersAck | Mode::Mix => vec![0],
            };
            for index in probers {
                self.send(index, 0, 0)?;
            }
            let round = Instant::now() + Duration::from_millis(100);
            while Instant::now() < round && self.probed < self.connections.len() {
                self.turn(&mut events, Duration::from_millis(10))?;
            }
        }
        while self.turn(&mut events, Duration::from_millis(50))? > 0 && Instant::now() < give_up {}
        Ok(())
    }

    /// Puts the load on for a while, then for as long as is measured; `mark` is called at both ends of that, with how
    /// often the connections have written.
    pub fn run(
        mut self,
        warm_up: Duration,
        measured: Duration,
        mut mark: impl FnMut(u64),
    ) -> io::Result<Seen> {
        let mut events = Events::with_capacity(4096);
        let senders: Vec<usize> = self.senders().collect();
        self.began = Instant::now();
        let (from, until) = (self.began + warm_up, self.began + warm_up + measured);
        let mut before = 0;
        let mut started = self.began;
        let mut sent = 0u64;
        self.first_slow = self.load.connections - self.load.slow;
        let mut next_sip = self.began;
        loop {
            let now = Instant::now();
            if !self.measuring && now >= from {
                self.measuring = true;
                before = self.expect.delivered;
                started = now;
                mark(self.writes());
            }
            if now >= until {
                break;
            }
            let wait = match self.load.pace {
                Pace::Window(window) => {
                    for &sender in &senders {
                        let number = self.expect.sent(sender);
                        let free = window - self.expect.outstanding(sender);
                        let nanos = now.duration_since(self.began).as_nanos() as u64;
                        for number in number + 1..=number + free as u32 {
                            self.expect.send(sender);
                            self.put(sender, number, nanos);
                        }
                        self.connections[sender].flush()?;
                    }
                    until - now
                }
                Pace::Rate(rate) => loop {
                    let due =
                        self.began + Duration::from_nanos(sent * 1_000_000_000 / u64::from(rate));
                    if due > now {
                        break due.min(until) - now;
                    }
                    let sender = senders[sent as usize % senders.len()];
                    sent += 1;
                    let number = self.expect.send(sender);
                    let nanos = due.duration_since(self.began).as_nanos() as u64;
                    self.send(sender, number, nanos)?;
                },
            };
            self.turn(&mut events, wait.min(SIP_EVERY))?;
            if now >= next_sip {
                next_sip = now + SIP_EVERY;
                self.sip();
            }
        }
        mark(self.writes());
        let elapsed = started.elapsed();
        let delivered = self.expect.delivered - before;
        self.measuring = false;
        let patience = Instant::now() + Duration::from_secs(3);
        while !self.expect.is_complete() && Instant::now() < patience {
            self.turn(&mut events, Duration::from_millis(50))?;
        }
        // What comes now is too much.
        while self.turn(&mut events, Duration::from_millis(50))? > 0 && Instant::now() < patience {}
        Ok(Seen {
            delivered,
            elapsed,
            cut: self.cut(),
            account: self.expect.account(),
            latency: self.latency,
            spans: self
                .spans
                .map_or_else(Vec::new, |spans| spans.between(from, until)),
        })
    }

    /// Lets each slow connection read a little. One that is closed reads nothing: that is seen at the end.
    fn sip(&mut self) {
        for connection in &mut self.connections[self.first_slow..] {
            let _ = connection.discard(&mut self.buffer[..SIP]);
        }
    }

    /// Lets the slow connections read to the end, for a second at most; says how many came to one.
    fn cut(&mut self) -> usize {
        let patience = Instant::now() + Duration::from_secs(1);
        let mut open: Vec<usize> = (self.first_slow..self.connections.len()).collect();
        while !open.is_empty() && Instant::now() < patience {
            open.retain(|&index| self.connections[index].discard(&mut self.buffer).is_ok());
        }
        self.load.slow - open.len()
    }

    fn writes(&self) -> u64 {
        self.connections.iter().map(|one| one.writes).sum()
    }

    fn send(&mut self, index: usize, number: u32, nanos: u64) -> io::Result<()> {
        self.put(index, number, nanos);
        self.connections[index].flush()
    }

    /// Appends a message to what a connection writes next.
    fn put(&mut self, index: usize, number: u32, nanos: u64) {
        let header = Header {
            sender: index as u32,
            number,
            nanos,
        };
        let payload = &mut self.payload[..self.load.payload_of(number)];
        header.write(payload);
        self.connections[index].put(self.dialect, payload);
    }

    /// Waits for sockets, and reads what came: so many bytes.
    fn turn(&mut self, events: &mut Events, wait: Duration) -> io::Result<usize> {
        if let Err(error) = self.poll.poll(events, Some(wait))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let Self {
            connections,
            expect,
            latency,
            spans,
            buffer,
            is_probed,
            probed,
            dialect,
            first_slow,
            ..
        } = self;
        let mut bytes = 0;
        for event in events.iter() {
            let index = event.token().0;
            let connection = &mut connections[index];
            if event.is_writable() {
                connection.flush()?;
            }
            if !event.is_readable() || index >= *first_slow {
                continue;
            }
            bytes += connection.read(
                buffer,
                *dialect,
                |payload, nanos| {
                    let Some(header) = Header::read(payload) else {
                        return;
                    };
                    if header.number == 0 {
                        if !std::mem::replace(&mut is_probed[index], true) {
                            *probed += 1;
                        }
                        return;
                    }
                    let counts = expect.receive(index, header, payload.len());
                    if counts && self.measuring {
                        latency.saturating_record(nanos.saturating_sub(header.nanos) / 1000);
                    }
                    if let Some(spans) = spans.as_mut().filter(|_| counts) {
                        spans.delivered(header, self.began, nanos);
                    }
                },
                self.began,
            )?;
        }
        Ok(bytes)
    }
}

/// Of microseconds.
pub fn histogram() -> Histogram<u64> {
    // Three significant digits, from a microsecond to a minute.
    Histogram::new_with_bounds(1, 60_000_000, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are sound"))
}
