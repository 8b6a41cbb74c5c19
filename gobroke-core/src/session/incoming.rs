//! [`Incoming`]: what came, from a read to the turns that hand it on.

use std::{fmt, future::poll_fn, sync::Arc};

use tokio::time::timeout;

use crate::{
    Batch, Client, CloseReason, ErrorFrame, Message, MessageId, SendError, Source,
    batch::Inbound,
    broke::router::Router,
    delivery::turn::{self, Left, Lent, Own, Turn},
    error::Closed,
    logic::{greeting::Greeting, run::caught},
    sync::atomic::{
        AtomicBool,
        Ordering::{Relaxed, Release, SeqCst},
    },
};

/// What the door keeps between two turns.
pub(super) struct Door {
    /// What the last turn left to be waited for.
    left: Left,
    /// For its turns; one that panicked took it along.
    own: Option<Own>,
    /// Logic that wants to see the client join before its first message.
    greeting: Option<Arc<Greeting>>,
}

/// The half of a [`Session`](crate::Session) that takes what came.
pub struct Incoming<'a> {
    pub(super) client: &'a Client,
    pub(super) router: &'a Arc<Router>,
    pub(super) door: &'a mut Door,
}

/// How a turn of the door ended.
enum Turned {
    /// The batch is empty.
    Done,
    /// Something that it feeds is above half; there is more in the batch.
    Wait,
    /// Middleware that may wait comes next.
    Middleware(Message),
}

/// What became of a message at the door.
enum Routed {
    Accepted,
    /// The client has been told why.
    Refused,
    /// It stays in the batch.
    NoRoom,
}

impl Incoming<'_> {
    /// Hands what one read gave to the router: middleware, logic, lanes. What it caused is written when it returns, or
    /// is left to the lanes' tasks.
    ///
    /// It waits while what it feeds is above half (lanes, queues of logic, the client's own outbox), so that the
    /// socket's window closes on the sender. It waits for logic 10 s at most (the endpoint's `door_timeout`), then the
    /// client is told `busy`.
    ///
    /// Cancel-safe: it takes from the batch message by message, and what it has not begun stays there.
    ///
    /// # Errors
    /// [`Closed`] once the client is closed: read no more, and let [`Outgoing`](crate::Outgoing) finish.
    pub async fn receive(&mut self, batch: &mut Batch) -> Result<(), Closed> {
        self.came(batch);
        while !batch.is_empty() {
            self.ready(batch).await?;
            match self.turn(batch) {
                Turned::Done => break,
                Turned::Wait => {}
                Turned::Middleware(message) => {
                    let id = message.id();
                    match caught(self.router.middleware.receive(message)).await {
                        Some(message) => batch.put_back(message),
                        None => {
                            self.router.stats.panics.add(1);
                            self.answer("rejected", "internal error", Some(id));
                        }
                    }
                }
            }
        }
        tokio::task::consume_budget().await;
        if self.client.is_closed() {
            return Err(Closed);
        }
        Ok(())
    }

    /// The same, where nothing has to be waited for: mostly, and then it spares the future. Says whether the batch is
    /// empty; what is left is for [`receive`](Self::receive). It takes nothing of the task's budget: who calls it for one
    /// read after the other waits for each of them by something that does, or lets others run at times.
    ///
    /// # Errors
    /// [`Closed`] once the client is closed.
    pub fn receive_now(&mut self, batch: &mut Batch) -> Result<bool, Closed> {
        if self.client.is_closed() {
            return Err(Closed);
        }
        if self.waits() {
            return Ok(false);
        }
        self.came(batch);
        match self.turn(batch) {
            Turned::Middleware(message) => batch.put_back_as_it_is(message),
            Turned::Done | Turned::Wait => {}
        }
        match self.client.is_closed() {
            true => Err(Closed),
            false => Ok(batch.is_empty()),
        }
    }

    /// Whether the next turn may not begin at once.
    fn waits(&self) -> bool {
        let client = &self.client.0;
        self.router.draining.load(Relaxed)
            || client.outbox.is_pressed()
            || self.door.left.is_pressing(&self.router.lanes)
            || self.door.greeting.is_some()
    }

    /// Notes when something came, and messages among it.
    fn came(&self, batch: &Batch) {
        self.heard();
        if !batch.is_empty() {
            let client = &self.client.0;
            client.spoke.store(client.heard.load(Relaxed), Relaxed);
            client.last_message.store(batch.began(), Relaxed);
        }
    }

    /// Notes that something came, if only a pong: the ping clock starts anew. `receive` does so by itself.
    pub fn heard(&self) {
        self.client
            .0
            .heard
            .store(self.router.clock.last_tick(), Relaxed);
    }

    /// Closes the client; see [`Session::close`](crate::Session::close).
    pub fn close(&self, reason: CloseReason) {
        self.router.close(&self.client.0, reason);
    }

    /// Waits until the client is closed at once, with what waited for it dropped (a write stall): for endpoints that
    /// are writing what [`Outgoing::next`](crate::Outgoing::next) gave. Cancel-safe.
    pub async fn gone(&self) {
        poll_fn(|cx| self.client.0.outbox.poll_gone(cx)).await;
    }

    /// Waits, holding nothing, until the next turn may begin.
    async fn ready(&mut self, batch: &mut Batch) -> Result<(), Closed> {
        if self.router.draining.load(Relaxed) {
            // What was not begun before the drain is not accepted; the session is closed by it.
            std::future::pending::<()>().await;
        }
        if self.client.is_closed() {
            return Err(Closed);
        }
        let client = &self.client.0;
        poll_fn(|cx| client.outbox.poll_eased(cx)).await;
        let lanes = &self.router.lanes;
        if self.door.left.is_pressing(lanes) || self.door.greeting.is_some() {
            client.heartbeat.at_door.store(true, Relaxed);
            let patience = client.endpoint.options.door_timeout;
            let waited = timeout(patience, self.door.logic_eased()).await;
            self.door.left.eased(lanes).await;
            client.heartbeat.at_door.store(false, Relaxed);
            if waited.is_err() {
                self.busy(batch);
            }
        }
        if self.client.is_closed() {
            return Err(Closed);
        }
        Ok(())
    }

    /// Answers the message that waited too long.
    fn busy(&mut self, batch: &mut Batch) {
        let Some(Inbound::Message(Some(message))) = batch.get_mut(0) else {
            return;
        };
        let id = message.id();
        batch.drop_first(1);
        self.router.stats.busy.add(1);
        self.answer(
            "busy",
            "the server has too much to do; try again later",
            Some(id),
        );
    }

    /// One turn: as much of the batch as there is room for.
    fn turn(&mut self, batch: &mut Batch) -> Turned {
        let Some(_under_way) = UnderWay::begin(self.router, self.client) else {
            // The drain began meanwhile; `ready` keeps what is left.
            return Turned::Wait;
        };
        let own = &mut self.door.own;
        own.get_or_insert_with(|| Own::new(self.client.0.clone()));
        let turn = Turn::of(own);
        let turned = self.take(batch);
        self.door.left = turn.end_of(&mut self.door.own);
        turned
    }

    fn take(&mut self, batch: &mut Batch) -> Turned {
        let (mut received, mut done) = (0, 0);
        let mut met = None;
        let turned = loop {
            match batch.get_mut(done) {
                None => break Turned::Done,
                Some(Inbound::Frame(frame)) => {
                    self.router
                        .send_frame(&self.client.0, std::mem::take(frame));
                }
                Some(Inbound::Error { code, message, id }) => self.answer(code, message, *id),
                Some(Inbound::Message(place)) => {
                    if !self.filter(place) {
                        let message = place.take();
                        done += 1;
                        break message.map_or(Turned::Wait, Turned::Middleware);
                    }
                    match self.route(place, &mut met) {
                        Routed::Accepted => received += 1,
                        Routed::Refused => {}
                        Routed::NoRoom => break Turned::Wait,
                    }
                }
            }
            done += 1;
            if done < batch.len() && turn::is_pressed() {
                break Turned::Wait;
            }
        };
        batch.drop_first(done);
        self.router.stats.received.add(received);
        turned
    }

    /// Runs the middleware, unless the message has been through it; says whether it did, or has to wait for it.
    fn filter(&self, place: &mut Option<Message>) -> bool {
        let Some(message) = place else { return true };
        if message.take_came_back() {
            return true;
        }
        message.set_source(Source::Client(self.client.id()));
        if self.router.middleware.receive_waits {
            return false;
        }
        self.router.filter(message);
        true
    }

    /// Routes a message, or leaves it in its place where there is no room. `met` is what the read's messages met before.
    fn route(&self, place: &mut Option<Message>, met: &mut Option<Lent>) -> Routed {
        let Some(message) = place else {
            return Routed::Refused;
        };
        let id = Some(message.id());
        if message.is_rejected() {
            self.router.stats.rejected.add(1);
            self.answer(
                "rejected",
                message.reject_reason().unwrap_or("rejected"),
                id,
            );
            if let Some(reason) = message.close_asked() {
                self.close(reason.clone());
            }
            return Routed::Refused;
        }
        match self.router.receive(place, met) {
            Ok(receipt) if receipt.unknown > 0 => {
                let text = "a client that the message is for is not connected";
                self.answer("unknown_client", text, id);
                Routed::Accepted
            }
            Ok(_) => Routed::Accepted,
            Err(SendError::Full { mut message, .. }) => {
                message.come_back();
                *place = Some(*message);
                Routed::NoRoom
            }
            Err(error) => {
                let code = match &error {
                    SendError::UnknownLogic(_) => "unknown_logic",
                    SendError::PassiveLogic(_) => "passive_logic",
                    SendError::NoTarget => "no_target",
                    SendError::Stopped => "stopping",
                    _ => "not_sent",
                };
                tracing::debug!(client = %self.client.id(), %error, "a message went nowhere");
                self.answer(code, &error.to_string(), id);
                Routed::Refused
            }
        }
    }

    /// Tells the client what was wrong, in order with its messages.
    fn answer(&self, code: &str, message: &str, id: Option<MessageId>) {
        let error = ErrorFrame { code, message, id };
        let client = &self.client.0;
        if let Some(frame) = client.encode(&self.router.stats, |encoder, out| {
            encoder.error(&error, out);
        }) {
            self.router.send_frame(client, frame);
        }
    }
}

/// A turn of a door, for which the drain waits.
struct UnderWay<'a>(&'a AtomicBool);

impl<'a> UnderWay<'a> {
    fn begin(router: &Router, client: &'a Client) -> Option<Self> {
        let under_way = Self(&client.0.in_turn);
        // Either the drain sees the turn, or the turn sees the drain.
        under_way.0.store(true, SeqCst);
        (!router.draining.load(SeqCst)).then_some(under_way)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}

impl Door {
    /// One through which nothing has come yet.
    pub(super) fn new(greeting: Option<Arc<Greeting>>) -> Self {
        Self {
            left: Left::any(),
            own: None,
            greeting,
        }
    }

    /// Waits until the logic that the last turn fed has room, and has greeted the client. Cancel-safe.
    async fn logic_eased(&mut self) {
        self.left.logic_eased().await;
        if let Some(greeting) = &self.greeting {
            greeting.done().await;
            self.greeting = None;
        }
    }
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("client", self.client)
            .finish_non_exhaustive()
    }
}
