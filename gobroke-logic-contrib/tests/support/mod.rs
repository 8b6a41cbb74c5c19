//! A router with core's in-memory endpoint, and people who talk to it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic"
)]

use gobroke_core::{
    Broke, BrokeBuilder, ClientId, Message,
    testing::{Received, TestClient, TestEndpoint},
};
use serde_json::Value;

pub(crate) struct Server {
    pub(crate) broke: Broke,
    endpoint: TestEndpoint,
}

impl Server {
    /// Starts it, with clients whose messages go to `logic` unless they name a target.
    pub(crate) async fn start(builder: BrokeBuilder, logic: &str) -> Self {
        // Nobody is pinged: a silent client is the test's subject.
        let endpoint =
            TestEndpoint::to_logic(logic).options(|options| options.ping_interval = None);
        let broke = builder
            .endpoint(endpoint.clone())
            .start()
            .await
            .expect("it starts");
        Self { broke, endpoint }
    }

    pub(crate) async fn connect(&self) -> Person {
        Person {
            client: self.endpoint.connect().await.expect("it is admitted"),
        }
    }

    pub(crate) async fn stop(self) {
        self.broke.stop().await;
    }
}

pub(crate) struct Person {
    client: TestClient,
}

impl Person {
    pub(crate) fn id(&self) -> ClientId {
        self.client.id()
    }

    pub(crate) async fn asks(&self, payload: Value) {
        self.sends(Message::json(&payload).unwrap()).await;
    }

    pub(crate) async fn sends(&self, message: Message) {
        self.client.send_message(message).await;
    }

    /// The payload of the next message, as JSON.
    pub(crate) async fn hears(&mut self) -> Value {
        self.receives().await.parse().unwrap()
    }

    pub(crate) async fn receives(&mut self) -> Message {
        loop {
            match self.frame().await {
                Received::Message(message) => return *message,
                Received::Welcome(_) => {}
                other => panic!("no message, but {other:?}"),
            }
        }
    }

    /// The code and the words of the next error frame.
    pub(crate) async fn is_told(&mut self) -> (String, String) {
        match self.frame().await {
            Received::Error { code, message } => (code, message),
            other => panic!("no error, but {other:?}"),
        }
    }

    /// The code and the words of the close, which comes next.
    pub(crate) async fn is_closed_with(&mut self) -> (u16, String) {
        loop {
            match self.frame().await {
                Received::Close { code, reason } => return (code, reason),
                Received::Welcome(_) => {}
                other => panic!("no close, but {other:?}"),
            }
        }
    }

    /// Closes the connection, and waits until that is done.
    pub(crate) async fn goes(mut self) {
        self.client.close().await;
        self.client.closed().await;
    }

    async fn frame(&mut self) -> Received {
        // The client waits 30 s; some tests are about longer silences.
        for _ in 0..10 {
            if let Some(frame) = self.client.frame().await {
                return frame;
            }
        }
        panic!("the connection ended, or nothing came");
    }
}
