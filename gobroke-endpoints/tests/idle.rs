//! What connections cost that say nothing.

#![cfg(feature = "ws")]

mod common;

use std::{alloc::System, io::Read, process::Stdio};

use cap::Cap;
use common::{address, echo, soon, websocket::WebSocket};
use gobroke_endpoints::{RawCodec, WebSocketEndpoint};
use tokio::process::Command;

/// Counts what is allocated, by all threads.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Says, to the program that it starts, where to connect.
const CONNECT: &str = "GOBROKE_TEST_CONNECT";
const TEST: &str = "an_idle_websocket_holds_two_kilobytes";

const IDLE: usize = 400;

#[tokio::test]
async fn an_idle_websocket_holds_two_kilobytes() {
    if let Ok(address) = std::env::var(CONNECT) {
        return hold(&address).await;
    }
    let endpoint = WebSocketEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"));
    let broke = echo(endpoint).start().await.expect("it starts");
    let first = WebSocket::open(address(&broke)).await;
    let before = HEAP.allocated();
    // In a program of their own, or the clients' halves would be counted too.
    let mut clients = Command::new(std::env::current_exe().expect("this program"))
        .args([TEST, "--exact"])
        .env(CONNECT, address(&broke).to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    soon(async {
        while broke.local_client_count() <= IDLE || (HEAP.allocated() - before) / IDLE >= 2048 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    drop(clients.stdin.take());
    assert!(soon(clients.wait()).await.expect("it ends").success());
    drop(first);
    soon(broke.stop()).await;
}

/// Opens connections, and holds them until told to stop.
async fn hold(address: &str) {
    let address = address.parse().expect("an address");
    let mut held = Vec::new();
    for _ in 0..IDLE {
        held.push(WebSocket::open(address).await);
    }
    let mut told = Vec::new();
    std::io::stdin()
        .read_to_end(&mut told)
        .expect("the end of it");
    drop(held);
}
