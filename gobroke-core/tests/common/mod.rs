//! What the behaviour tests share: a seed that is printed, an encoder of one's own, and a client that reads it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "each test binary uses a part of this, and a test that fails by a panic has done its work"
)]

use std::{sync::Arc, time::Duration};

use gobroke_core::{
    Batch, Broke, BrokeBuilder, Client, ClientId, CloseReason, ConnectRequest, Encoder, ErrorFrame,
    Gate, Message, Name, Session,
    testing::{Pipe, Reader, TestEndpoint},
};
use tokio::sync::mpsc;

/// Random numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From `GOBROKE_SEED`, or a fresh one; either is printed.
    pub fn seeded(what: &str) -> Self {
        let seed = std::env::var("GOBROKE_SEED").map_or_else(
            |_| {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                now.unwrap().as_nanos() as u64
            },
            |seed| seed.parse().unwrap(),
        );
        println!("{what}: GOBROKE_SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// An independent stream.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// A frame on the wire of [`Lean`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Welcome,
    Message(Vec<u8>),
    Error(String),
    Ping,
    Close(u16),
}

/// An encoder with little on the wire: a kind, a length, the payload; every byte of the payload is masked, so that
/// two of them write different bytes.
#[derive(Debug)]
pub struct Lean(pub u8);

impl Lean {
    fn write(&self, kind: u8, payload: &[u8], out: &mut Vec<u8>) {
        out.push(kind);
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend(payload.iter().map(|byte| byte ^ self.0));
    }
}

impl Encoder for Lean {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        self.write(b'm', message.payload(), out);
    }

    fn welcome(&self, _: &Client, _: &Name, out: &mut Vec<u8>) {
        self.write(b'w', &[], out);
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        self.write(b'e', error.code.as_bytes(), out);
    }

    fn ping(&self, out: &mut Vec<u8>) {
        self.write(b'p', &[], out);
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        self.write(b'c', &reason.code().to_be_bytes(), out);
    }
}

/// A client whose frames are those of [`Lean`].
#[derive(Debug)]
pub struct Peer {
    pub id: ClientId,
    pub client: Client,
    pub sender: mpsc::Sender<Vec<Message>>,
    pub ears: Ears,
}

/// The reading half of a [`Peer`].
#[derive(Debug)]
pub struct Ears {
    reader: Reader,
    buffer: Vec<u8>,
    at: usize,
    mask: u8,
}

impl Peer {
    /// Connects through an endpoint's gate, over a pipe that takes so many bytes.
    pub async fn connect(endpoint: &TestEndpoint, encoder: &Arc<Lean>, capacity: usize) -> Self {
        Self::connect_with(endpoint, encoder.clone(), encoder.0, capacity).await
    }

    /// The same with any encoder whose frames are those of [`Lean`].
    pub async fn connect_with(
        endpoint: &TestEndpoint,
        encoder: Arc<dyn Encoder>,
        mask: u8,
        capacity: usize,
    ) -> Self {
        let gate = endpoint.gate().await;
        let (pipe, reader) = Pipe::bounded(capacity);
        let wire = Box::new(pipe);
        let session = gate
            .connect(ConnectRequest::default(), encoder, Some(wire))
            .await
            .unwrap();
        Self::over(&gate, session, Ears::new(reader, mask))
    }

    /// A client over a session that is there already.
    pub fn over(gate: &Gate, session: Session, ears: Ears) -> Self {
        let client = session.client().clone();
        let (sender, sent) = mpsc::channel(16);
        gate.spawn(carry(session, sent));
        Self {
            id: client.id(),
            client,
            sender,
            ears,
        }
    }
}

/// The task of a connection.
async fn carry(mut session: Session, mut sent: mpsc::Receiver<Vec<Message>>) {
    let (mut incoming, mut outgoing) = session.halves();
    let reading = async {
        let mut batch = Batch::new();
        while let Some(messages) = sent.recv().await {
            for message in messages {
                batch.push(message);
            }
            if incoming.receive(&mut batch).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        _ = outgoing.drive() => {}
    }
}

impl Ears {
    pub fn new(reader: Reader, mask: u8) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            at: 0,
            mask,
        }
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parse() {
                return Some(frame);
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            if within(self.reader.read(&mut self.buffer)).await == 0 {
                assert!(self.buffer.is_empty(), "the stream ends within a frame");
                return None;
            }
        }
    }

    fn parse(&mut self) -> Option<Frame> {
        let bytes = &self.buffer[self.at..];
        let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().unwrap()) as usize;
        let payload = bytes.get(5..5 + length)?;
        let payload: Vec<u8> = payload.iter().map(|byte| byte ^ self.mask).collect();
        let frame = match bytes[0] {
            b'w' => Frame::Welcome,
            b'm' => Frame::Message(payload),
            b'e' => Frame::Error(String::from_utf8(payload).unwrap()),
            b'p' => Frame::Ping,
            b'c' => Frame::Close(u16::from_be_bytes(payload.try_into().unwrap())),
            kind => panic!("no frame begins with {kind}"),
        };
        self.at += 5 + length;
        Some(frame)
    }
}

/// What must happen soon: a bound for what would otherwise hang. Nothing waits for it to pass.
pub async fn within<F: Future>(future: F) -> F::Output {
    let patience = Duration::from_secs(100);
    match tokio::time::timeout(patience, future).await {
        Ok(output) => output,
        Err(_) => panic!("it does not happen"),
    }
}

/// Waits for a condition that nothing announces, giving way meanwhile.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    // In real time: a paused clock would jump while nothing is to do.
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "it does not happen: {what}"
        );
        tokio::task::yield_now().await;
    }
}

/// Starts a router that must start.
pub async fn start(builder: BrokeBuilder) -> Broke {
    builder.start().await.expect("it starts")
}
