//! Two instances over one Redis, on this machine: how much they carry to each other, how soon, and what the directory
//! costs. It starts a redis-server of its own.
//!
//! ```text
//! cargo bench -p gobroke-redis
//! ```

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails ends with a panic"
)]

#[path = "../tests/support/server.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod server;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use gobroke_core::{
    Broke, Message, Targets,
    testing::{TestClient, TestEndpoint},
};
use gobroke_redis::RedisCluster;
use server::Server;

const PAYLOAD: usize = 128;
const CLIENTS: usize = 100_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::start(&["--slowlog-log-slower-than", "5000"]).await;
        one_by_one(&server).await;
        messages(&server).await;
        local(&server).await;
    });
}

struct Instance {
    broke: Broke,
    endpoint: TestEndpoint,
}

async fn start(server: &Server, name: &str) -> Instance {
    start_with(server, name, 256 << 20).await
}

async fn start_with(server: &Server, name: &str, capacity: usize) -> Instance {
    let endpoint = TestEndpoint::new(Targets::default())
        .options(|options| {
            options.ping_interval = None;
            options.outbox_bytes = 1 << 30;
            options.outbox_messages = usize::MAX;
        })
        .capacity(capacity);
    let broke = Broke::builder()
        .instance(name)
        .endpoint(endpoint.clone())
        .cluster(RedisCluster::new(server.url()))
        .start()
        .await
        .unwrap();
    Instance { broke, endpoint }
}

async fn two(server: &Server) -> (Instance, Instance, TestClient) {
    let (one, two) = (start(server, "one").await, start(server, "two").await);
    let client = two.endpoint.connect().await.unwrap();
    while one.broke.client(client.id()).await.is_none() || one.broke.instances().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (one, two, client)
}

/// The way of the Go original, to compare with: each message is a JSON object, and its PUBLISH is awaited.
async fn one_by_one(server: &Server) {
    const COUNT: u64 = 50_000;
    let client = redis::Client::open(server.url()).unwrap();
    let mut subscriber = client.get_async_pubsub().await.unwrap();
    subscriber.subscribe("original").await.unwrap();
    let mut publisher = client.get_multiplexed_async_connection().await.unwrap();
    let begun = Instant::now();
    tokio::spawn(async move {
        let payload = "x".repeat(PAYLOAD);
        for number in 0..COUNT {
            let message = serde_json::json!({
                "id": number.to_string(),
                "fromClient": "one",
                "toClient": ["two"],
                "message": payload,
                "metadata": {},
            });
            let mut publish = redis::cmd("PUBLISH");
            publish.arg("original").arg(message.to_string());
            let receivers: i64 = publish.query_async(&mut publisher).await.unwrap();
            assert_eq!(receivers, 1);
        }
    });
    let mut messages = subscriber.on_message();
    for _ in 0..COUNT {
        let message = messages.next().await.unwrap();
        let message: serde_json::Value =
            serde_json::from_slice(message.get_payload_bytes()).unwrap();
        assert_eq!(message["message"].as_str().unwrap().len(), PAYLOAD);
    }
    let rate = COUNT as f64 / begun.elapsed().as_secs_f64();
    println!("JSON and an awaited PUBLISH for each, {PAYLOAD} bytes: {rate:.0} messages/s");
}

/// From a program on one instance to a client of the other.
async fn messages(server: &Server) {
    let (one, two, mut client) = two(server).await;
    let count: u64 = 2_000_000;
    let to = client.id();
    let received = Arc::new(AtomicU64::new(0));
    let reader = tokio::spawn({
        let received = received.clone();
        async move {
            let begun = Instant::now();
            while received.load(Relaxed) < count {
                client.next_text().await.unwrap();
                received.fetch_add(1, Relaxed);
            }
            (client, begun.elapsed())
        }
    });
    let payload = Bytes::from(vec![b'x'; PAYLOAD]);
    let mut sent = 0;
    while sent < count {
        // Bounded by what is under way, as a client's door would.
        if sent - received.load(Relaxed) > 10_000 {
            tokio::task::yield_now().await;
            continue;
        }
        for _ in 0..64.min(count - sent) {
            one.broke
                .send(Message::new(payload.clone()).to_client(to))
                .unwrap();
            sent += 1;
        }
    }
    let (mut client, took) = reader.await.unwrap();
    let rate = count as f64 / took.as_secs_f64();
    println!("one sender, {PAYLOAD} bytes: {rate:.0} messages/s");

    let count: u64 = 100_000;
    let begun = Instant::now();
    let reader = tokio::spawn(async move {
        let mut times = Vec::new();
        for _ in 0..count {
            let text = client.next_text().await.unwrap();
            let at: u64 = text.trim_start().parse().unwrap();
            times.push(begun.elapsed().as_nanos() as u64 - at);
        }
        times.sort_unstable();
        times
    });
    let mut sent = 0;
    while sent < count {
        let due = (begun.elapsed().as_secs_f64() * 20_000.0) as u64;
        while sent < due.min(count) {
            let text = format!("{:>PAYLOAD$}", begun.elapsed().as_nanos());
            one.broke.send(Message::new(text).to_client(to)).unwrap();
            sent += 1;
        }
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
    let times = reader.await.unwrap();
    let at = |part: f64| Duration::from_nanos(times[((times.len() - 1) as f64 * part) as usize]);
    println!("at 20,000/s: p50 {:?}, p99 {:?}", at(0.5), at(0.99));
    one.broke.stop().await;
    two.broke.stop().await;
}

/// Messages that stay on one instance, and the directory.
async fn local(server: &Server) {
    let (one, two, client) = two(server).await;
    drop(client);
    let mut here = one.endpoint.connect().await.unwrap();
    let count = 1_000_000;
    let before = calls(server).await;
    for _ in 0..count / 100 {
        for _ in 0..100 {
            one.broke
                .send(Message::new("x").to_client(here.id()))
                .unwrap();
        }
        for _ in 0..100 {
            here.next_text().await.unwrap();
        }
    }
    let after = calls(server).await;
    println!(
        "{count} local messages: {} commands, heartbeats and all",
        after - before
    );
    directory(server, CLIENTS, &two.broke).await;
    one.broke.stop().await;
    two.broke.stop().await;
}

/// An instance with many clients, as another one sees it.
async fn directory(server: &Server, count: usize, other: &Broke) {
    let crowded = start_with(server, "crowded", 64 << 10).await;
    let before = other.client_count().await;
    let memory = used_memory(server).await;
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(crowded.endpoint.connect().await.unwrap());
    }
    println!("{count} clients connected in {:?}", begun.elapsed());
    until_counted(other, before + count).await;
    println!("registered in {:?}, connecting included", begun.elapsed());
    println!(
        "{} bytes each in Redis",
        (used_memory(server).await - memory) / count as u64
    );

    let begun = Instant::now();
    let listed = other.clients().await;
    println!("clients(): {} in {:?}", listed.len(), begun.elapsed());
    let begun = Instant::now();
    let counted = other.client_count().await;
    println!("client_count(): {counted} in {:?}", begun.elapsed());
    let begun = Instant::now();
    for client in clients.iter().take(1000) {
        other.client(client.id()).await.unwrap();
    }
    println!(
        "client(), of another instance: {:?} each",
        begun.elapsed() / 1000
    );

    server.cli(&["FLUSHALL"]).await;
    let begun = Instant::now();
    until_counted(other, before + count).await;
    println!(
        "all known again {:?} after a loss of all data, its discovery by a heartbeat included",
        begun.elapsed()
    );
    println!(
        "commands over 5 ms: {:?}",
        server.cli(&["SLOWLOG", "GET", "3"]).await
    );
    let begun = Instant::now();
    crowded.broke.stop().await;
    println!("stopped in {:?}", begun.elapsed());
}

async fn until_counted(broke: &Broke, count: usize) {
    while broke.client_count().await < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many commands the server has run.
async fn calls(server: &Server) -> u64 {
    number(server, "stats", "total_commands_processed:").await
}

async fn used_memory(server: &Server) -> u64 {
    number(server, "memory", "used_memory:").await
}

async fn number(server: &Server, section: &str, name: &str) -> u64 {
    let info: String = redis::from_redis_value(server.cli(&["INFO", section]).await).unwrap();
    let number = info.lines().find_map(|line| line.strip_prefix(name));
    number.unwrap().trim().parse().unwrap()
}
