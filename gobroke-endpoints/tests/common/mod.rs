//! What the tests of all endpoints begin with: a router that echoes, and clients that write bytes by hand.

#![allow(dead_code, reason = "each test program uses its part of it")]

pub(crate) mod websocket;

use std::{net::SocketAddr, time::Duration};

use gobroke_core::{Broke, BrokeBuilder, Endpoint, Logic};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long anything may take. A test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What comes of a future that must not take long.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it takes too long")
}

/// A router with one endpoint and a logic module `echo` that answers each message with itself.
pub(crate) fn echo(endpoint: impl Endpoint) -> BrokeBuilder {
    Broke::builder()
        .instance("test")
        .endpoint(endpoint)
        .logic(Logic::dispatched("echo", |message, ctx| {
            ctx.reply(&message, message.clone())?;
            Ok(())
        }))
}

/// Stops the router, which waits a while for clients that stay.
pub(crate) async fn stop<C>(broke: Broke, clients: C) {
    drop(clients);
    soon(broke.stop()).await;
}

/// Where the one endpoint listens.
pub(crate) fn address(broke: &Broke) -> SocketAddr {
    broke.addresses().first().expect("it listens").1
}

/// How often something was counted as bad input.
pub(crate) fn bad_input(broke: &Broke, what: &str) -> u64 {
    broke.stats().bad_input.get(what).copied().unwrap_or(0)
}

/// A client that writes bytes and reads frames behind lengths.
#[derive(Debug)]
pub(crate) struct TcpClient(pub(crate) TcpStream);

impl TcpClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(
            soon(TcpStream::connect(address))
                .await
                .expect("a connection"),
        )
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.0.write_all(bytes.as_ref()))
            .await
            .expect("it writes");
    }

    pub(crate) async fn send(&mut self, payload: impl AsRef<[u8]>) {
        let payload = payload.as_ref();
        let length = u32::try_from(payload.len()).expect("a length");
        self.write([&length.to_be_bytes(), payload].concat()).await;
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        soon(async {
            let length = self.0.read_u32().await.ok()?;
            let mut payload = vec![0; length as usize];
            self.0
                .read_exact(&mut payload)
                .await
                .expect("a whole frame");
            Some(payload)
        })
        .await
    }

    pub(crate) async fn next_json(&mut self) -> Value {
        serde_json::from_slice(&self.next().await.expect("a frame")).expect("JSON")
    }

    /// All that comes until the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        soon(self.0.read_to_end(&mut rest))
            .await
            .expect("an end, not a reset");
        rest
    }
}
