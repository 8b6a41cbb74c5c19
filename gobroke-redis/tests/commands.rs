//! Which commands Redis gets: none for what stays with one instance.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::{collections::BTreeMap, time::Duration};

use gobroke_core::Message;
use gobroke_redis::RedisCluster;
use tokio::time::{Instant, sleep};

use self::support::{Server, load::start, until};

const MESSAGES: u32 = 1_000_000;
/// How many of them are under way at a time.
const WINDOW: u32 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_local_messages_cost_no_command_but_heartbeats_and_batches() {
    let server = Server::start(&[]).await;
    let lease = Duration::from_secs(5);
    let over = || RedisCluster::new(server.url()).lease(lease);
    let one = start("one", over()).await;
    let two = start("two", over()).await;
    let mut ann = one.1.connect().await.unwrap();
    until("she is known", async || {
        matches!(two.0.client(ann.id()).await, Ok(Some(_)))
    })
    .await;
    let (before, begun) = (calls(&server).await, Instant::now());
    for number in 0..MESSAGES / WINDOW {
        for _ in 0..WINDOW {
            let message = Message::new(number.to_string()).to_client(ann.id());
            one.0.send(message).unwrap();
        }
        for _ in 0..WINDOW {
            assert_eq!(ann.next_text().await, Some(number.to_string()));
        }
    }
    let (after, took) = (calls(&server).await, begun.elapsed());
    let more: BTreeMap<_, _> = after
        .into_iter()
        .map(|(command, calls)| {
            let earlier = before.get(&command).copied().unwrap_or_default();
            (command, calls - earlier)
        })
        .filter(|(_, calls)| *calls > 0)
        .collect();
    println!("{MESSAGES} messages in {took:?}: {more:?}");
    // Two instances' heartbeats, each fifth of a lease and a little sooner where one is due; in a script five commands
    // of their own. A batch a second where anything changed, and probes of three channels each 5 s.
    let beats = 2 * (took.as_millis() / (lease.as_millis() / 10)) as u64 + 4;
    for (command, calls) in more {
        let most = match command.as_str() {
            "evalsha" => beats,
            "publish" => 3 * beats,
            "info" => 1,
            _ => 8 * beats,
        };
        assert!(calls <= most, "{command}: {calls} of {most} at the most");
    }
    one.0.stop().await;
    two.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_written_once() {
    let server = Server::start(&[]).await;
    let one = start("one", RedisCluster::new(server.url())).await;
    let two = start("two", RedisCluster::new(server.url())).await;
    let ann = one.1.connect().await.unwrap();
    until("she is known", async || {
        matches!(two.0.client(ann.id()).await, Ok(Some(_)))
    })
    .await;
    // Each batch about clients reads what there is of them first.
    let read = async || calls(&server).await.get("hmget").copied();
    let before = read().await;
    assert!(before.is_some());
    // Twice as long as until last messages are written, which is once a second.
    sleep(Duration::from_millis(2_200)).await;
    assert_eq!(read().await, before);
    one.0.stop().await;
    two.0.stop().await;
}

/// How often each command was run, in scripts and outside.
async fn calls(server: &Server) -> BTreeMap<String, u64> {
    let stats = server.cli(&["INFO", "commandstats"]).await;
    let stats: String = redis::from_redis_value(stats).unwrap();
    let calls = stats.lines().filter_map(|line| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((command.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    calls.collect()
}
