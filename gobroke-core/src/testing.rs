//! For tests: an in-memory endpoint ([`TestEndpoint`]) and a client to talk through it ([`TestClient`]).
//!
//! What is sent to a test client goes through a [`Wire`] of a bounded capacity, as it would through a
//! socket: lanes write it, and a client that does not read fills it. With tokio's paused time
//! (`#[tokio::test(start_paused = true)]`) pings, time-outs and rests take no time.

mod frames;
mod pipe;
mod routes;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use self::frames::TestEncoder;
#[doc(hidden)]
pub use self::routes::Routes;
pub use self::{
    frames::Received,
    pipe::{Pipe, Reader},
};
use crate::{
    Batch, ClientId, CloseReason, ConnectRequest, Encoder, Endpoint, EndpointError,
    EndpointOptions, Gate, Message, Name, Refusal, Session, Targets, Wire,
};

/// How long [`TestClient::next`] waits before it says that nothing came.
const PATIENCE: Duration = Duration::from_secs(30);

/// An endpoint in memory. A clone is the same endpoint: give one to the builder, and connect through the other.
#[derive(Clone)]
pub struct TestEndpoint(Arc<Inner>);

struct Inner {
    name: Name,
    options: EndpointOptions,
    targets: Targets,
    capacity: usize,
    encoder: Arc<dyn Encoder>,
    gate: OnceLock<Gate>,
    ready: Notify,
}

impl TestEndpoint {
    /// An endpoint whose clients' messages go to a logic module, unless they name targets themselves.
    pub fn to_logic(logic: impl Into<Name>) -> Self {
        Self::new(std::iter::once(crate::Target::Logic(logic.into())).collect())
    }

    /// An endpoint whose clients' messages go to these targets, unless they name some themselves.
    pub fn new(targets: Targets) -> Self {
        Self(Arc::new(Inner {
            name: "test".into(),
            options: EndpointOptions::default(),
            targets,
            capacity: 64 << 10,
            encoder: Arc::new(TestEncoder),
            gate: OnceLock::new(),
            ready: Notify::new(),
        }))
    }

    /// Gives it another name than `test`.
    #[must_use]
    pub fn named(self, name: impl Into<Name>) -> Self {
        self.change(|inner| inner.name = name.into())
    }

    /// Changes its bounds and times.
    #[must_use]
    pub fn options(self, change: impl FnOnce(&mut EndpointOptions)) -> Self {
        self.change(|inner| change(&mut inner.options))
    }

    /// How many bytes each client's connection takes before it is full. Default: 64 KiB.
    #[must_use]
    pub fn capacity(self, bytes: usize) -> Self {
        self.change(|inner| inner.capacity = bytes)
    }

    /// Puts another encoder in the place of the one that [`TestClient`] reads.
    #[must_use]
    pub fn encoder(self, encoder: Arc<dyn Encoder>) -> Self {
        self.change(|inner| inner.encoder = encoder)
    }

    fn change(self, change: impl FnOnce(&mut Inner)) -> Self {
        let Inner {
            name,
            options,
            targets,
            capacity,
            encoder,
            ..
        } = &*self.0;
        let mut inner = Inner {
            name: name.clone(),
            options: options.clone(),
            targets: targets.clone(),
            capacity: *capacity,
            encoder: encoder.clone(),
            gate: OnceLock::new(),
            ready: Notify::new(),
        };
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// The gate, once the router serves the endpoint.
    pub async fn gate(&self) -> Gate {
        loop {
            let mut ready = std::pin::pin!(self.0.ready.notified());
            ready.as_mut().enable();
            if let Some(gate) = self.0.gate.get() {
                return gate.clone();
            }
            ready.await;
        }
    }

    /// Connects a client.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn connect(&self) -> Result<TestClient, Refusal> {
        self.connect_as(ConnectRequest::default()).await
    }

    /// Connects a client from an address.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn connect_from(&self, remote: SocketAddr) -> Result<TestClient, Refusal> {
        self.connect_as(ConnectRequest::from_remote(remote)).await
    }

    /// Connects a client with this request for the `on_connect` hook.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn connect_as(&self, request: ConnectRequest) -> Result<TestClient, Refusal> {
        let (writer, reader) = Pipe::bounded(self.0.capacity);
        self.connect_over(request, Some(Box::new(writer)), reader)
            .await
    }

    /// Connects a client over a wire of one's own; what the client then reads comes from `reader`.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn connect_over(
        &self,
        request: ConnectRequest,
        wire: Option<Box<dyn Wire>>,
        reader: Reader,
    ) -> Result<TestClient, Refusal> {
        let gate = self.gate().await;
        let session = gate.connect(request, self.0.encoder.clone(), wire).await?;
        let id = session.client().id();
        let (sender, receiver) = mpsc::channel(64);
        gate.spawn(carry(session, receiver, self.0.targets.clone()));
        Ok(TestClient {
            id,
            sender: Some(sender),
            reader,
            buffer: Vec::new(),
            frames: VecDeque::new(),
        })
    }
}

/// What a client sends.
enum Sent {
    Messages(Vec<Message>),
    Pong,
    Close(CloseReason),
}

/// The task of a connection.
async fn carry(mut session: Session, mut sent: mpsc::Receiver<Sent>, targets: Targets) {
    let (mut incoming, mut outgoing) = session.halves();
    let reading = async {
        let mut batch = Batch::new();
        loop {
            match sent.recv().await {
                Some(Sent::Messages(messages)) => {
                    for mut message in messages {
                        if message.targets().is_empty() {
                            *message.targets_mut() = targets.clone();
                        }
                        batch.push(message);
                    }
                }
                Some(Sent::Pong) => incoming.heard(),
                Some(Sent::Close(reason)) => {
                    incoming.close(reason);
                    continue;
                }
                None => return CloseReason::ConnectionLost,
            }
            if incoming.receive(&mut batch).await.is_err() {
                // Closed: what still comes is not read; `drive` ends by itself.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = reading => {}
        _ = outgoing.drive() => {}
    }
}

#[async_trait]
impl Endpoint for TestEndpoint {
    fn name(&self) -> Name {
        self.0.name.clone()
    }

    fn options(&self) -> EndpointOptions {
        self.0.options.clone()
    }

    async fn serve(&self, gate: Gate) -> Result<(), EndpointError> {
        if self.0.gate.set(gate.clone()).is_err() {
            return Err(EndpointError::Other(
                "a test endpoint serves one router".into(),
            ));
        }
        self.0.ready.notify_waiters();
        gate.ready(None);
        gate.closing().await;
        Ok(())
    }
}

impl std::fmt::Debug for TestEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestEndpoint")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

/// A client of a [`TestEndpoint`]. Dropping it breaks the connection.
#[derive(Debug)]
pub struct TestClient {
    id: ClientId,
    sender: Option<mpsc::Sender<Sent>>,
    reader: Reader,
    buffer: Vec<u8>,
    frames: VecDeque<Received>,
}

impl TestClient {
    /// The id.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Sends a payload to the endpoint's targets. Waits while the door does.
    pub async fn send(&self, payload: impl Into<bytes::Bytes>) {
        self.send_all(vec![Message::new(payload)]).await;
    }

    /// Sends a message; one without targets goes to the endpoint's.
    pub async fn send_message(&self, message: Message) {
        self.send_all(vec![message]).await;
    }

    /// Sends several messages as one read would give them.
    pub async fn send_all(&self, messages: Vec<Message>) {
        self.pass_on(Sent::Messages(messages)).await;
    }

    /// Answers a ping.
    pub async fn pong(&self) {
        self.pass_on(Sent::Pong).await;
    }

    /// Closes from the client's side.
    pub async fn close(&self) {
        self.pass_on(Sent::Close(CloseReason::Normal)).await;
    }

    async fn pass_on(&self, sent: Sent) {
        if let Some(sender) = &self.sender {
            // A connection that ended takes nothing: what the client notices is in what it reads.
            let _ = sender.send(sent).await;
        }
    }

    /// The next message, passing over all other frames; `None` at the end of the connection, or where nothing came for
    /// 30 s.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Received::Message(message) = self.frame().await? {
                return Some(*message);
            }
        }
    }

    /// The next payload, as text.
    pub async fn next_text(&mut self) -> Option<String> {
        let message = self.next().await?;
        Some(String::from_utf8_lossy(message.payload()).into_owned())
    }

    /// The next frame of any kind; `None` at the end of the connection, or where nothing came for 30 s.
    pub async fn frame(&mut self) -> Option<Received> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let read = tokio::time::timeout(PATIENCE, self.reader.read(&mut self.buffer)).await;
            if read.unwrap_or(0) == 0 {
                return None;
            }
            frames::decode(&mut self.buffer, &mut self.frames);
        }
    }

    /// Reads on until the connection ends, and says with what close, if one came.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        let mut close = None;
        while let Some(frame) = self.frame().await {
            if let Received::Close { code, reason } = frame {
                close = Some((code, reason));
            }
        }
        close
    }
}
