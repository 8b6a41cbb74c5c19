//! The directory, with an instance that has many clients.

use std::time::{Duration, Instant};

use gobroke_core::{Broke, Message, testing::TestClient};

use crate::{Instance, ROUNDS, number, rounds::Rounds, server::Server, start, start_with};

const CLIENTS: usize = 100_000;
const COUNTS: u32 = 100;

/// As an instance sees it that has none of the clients.
pub(crate) async fn measure(server: &Server) {
    let other = start(server, "other").await.broke;
    let [
        mut registered,
        mut listed,
        mut first,
        mut counted,
        mut asked,
        mut again,
        mut stopped,
    ] = [(); 7].map(|()| Rounds::default());
    let mut bytes = 0;
    let mut known = 0;
    for round in 0..ROUNDS {
        let memory = used_memory(server).await;
        let begun = Instant::now();
        let (crowded, clients) = crowd(server).await;
        until_counted(&other, CLIENTS).await;
        registered.add(begun.elapsed().as_secs_f64());
        bytes = (used_memory(server).await - memory) / CLIENTS as u64;

        let begun = Instant::now();
        assert_eq!(other.clients().await.len(), CLIENTS);
        listed.add(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        assert_eq!(other.client_count().await.clients, CLIENTS);
        first.add(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        for _ in 0..COUNTS {
            assert_eq!(other.client_count().await.clients, CLIENTS);
        }
        counted.add(begun.elapsed().as_secs_f64() * 1e3 / f64::from(COUNTS));
        let begun = Instant::now();
        for client in clients.iter().take(1000) {
            other.client(client.id()).await.unwrap().unwrap();
        }
        asked.add(begun.elapsed().as_secs_f64());
        known = known.max(send_to_each(&other, &clients).await);

        // At another point between heartbeats each time.
        tokio::time::sleep(Duration::from_millis(700) * round as u32).await;
        server.cli(&["FLUSHALL"]).await;
        let begun = Instant::now();
        until_counted(&other, CLIENTS).await;
        again.add(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        crowded.broke.stop().await;
        stopped.add(begun.elapsed().as_secs_f64());
        drop(clients);
        until_counted_less(&other).await;
    }
    println!("{CLIENTS} clients of another instance, {ROUNDS} rounds, median and spread");
    println!("  connected and registered, in s: {}", registered.show(2));
    println!("  clients(), in ms: {}", listed.show(0));
    println!(
        "  client_count(), in ms: the first {}, each of {COUNTS} {}",
        first.show(2),
        counted.show(2)
    );
    println!("  client(), in ms: {}", asked.show(3));
    println!(
        "  all known again after a loss of all data, its discovery included, in s: {}",
        again.show(2)
    );
    println!("  stopped, in s: {}", stopped.show(2));
    println!("  bytes in Redis for each: {bytes}");
    println!("  remembered by who has sent to each of them: {known}");
    let slow: Vec<Vec<redis::Value>> =
        redis::from_redis_value(server.cli(&["SLOWLOG", "GET", "100"]).await).unwrap();
    println!("  commands over 5 ms, FLUSHALL among them: {}", slow.len());
    for entry in slow {
        let command: Vec<Vec<u8>> = redis::from_redis_value(entry[3].clone()).unwrap();
        let words = command
            .iter()
            .take(3)
            .map(|word| String::from_utf8_lossy(word));
        println!(
            "    {:?} µs: {}",
            entry[2],
            words.collect::<Vec<_>>().join(" ")
        );
    }
    other.stop().await;
}

/// Nothing but lists, to be looked at with `perf`.
pub(crate) async fn profile(server: &Server) {
    let other = start(server, "other").await.broke;
    let (_crowded, _clients) = crowd(server).await;
    until_counted(&other, CLIENTS).await;
    server.cli(&["CONFIG", "RESETSTAT"]).await;
    for _ in 0..4 * ROUNDS {
        let begun = Instant::now();
        assert_eq!(other.clients().await.len(), CLIENTS);
        let listed = begun.elapsed();
        let begun = Instant::now();
        assert_eq!(other.client_count().await.clients, CLIENTS);
        println!("clients() {listed:?}, client_count() {:?}", begun.elapsed());
    }
    let info: String =
        redis::from_redis_value(server.cli(&["INFO", "commandstats"]).await).unwrap();
    println!("{info}");
}

/// Starts an instance with all the clients.
async fn crowd(server: &Server) -> (Instance, Vec<TestClient>) {
    let crowded = start_with(server, "crowded", 64 << 10).await;
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        clients.push(crowded.endpoint.connect().await.unwrap());
    }
    (crowded, clients)
}

/// Sends to every client, and gives back of how many it is remembered where they are.
async fn send_to_each(other: &Broke, clients: &[TestClient]) -> usize {
    for client in clients {
        while other
            .send(Message::new("x").to_client(client.id()))
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    }
    let stats = || other.stats().cluster.unwrap();
    let begun = stats();
    while stats().sent < CLIENTS as u64 && stats().queue_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begun.unknown == 0, "all are there");
    stats().known_clients
}

async fn until_counted(broke: &Broke, count: usize) {
    while broke.client_count().await.clients < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_counted_less(broke: &Broke) {
    while broke.client_count().await.clients > 0 || !broke.instances().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn used_memory(server: &Server) -> u64 {
    number(server, "memory", "used_memory:").await
}
