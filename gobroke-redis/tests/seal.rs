//! With a secret, whoever can write to Redis can neither forge what instances carry to each other, nor repeat it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's set-up may fail"
)]

mod support;

use std::time::Duration;

use futures_util::StreamExt;
use gobroke_core::{
    Broke, Message, Targets,
    testing::{TestClient, TestEndpoint},
};
use gobroke_redis::RedisCluster;
use redis::aio::{MultiplexedConnection, PubSubStream};
use tokio::time::timeout;

use self::support::{Server, until};

const SECRET: &str = "sixteen bytes or more";

struct Started {
    broke: Broke,
    cluster: RedisCluster,
    endpoint: TestEndpoint,
}

async fn start(server: &Server, name: &str, secret: Option<&str>) -> Started {
    let cluster = RedisCluster::new(server.url());
    let cluster = match secret {
        Some(secret) => cluster.secret(secret),
        None => cluster,
    };
    let endpoint = TestEndpoint::new(Targets::default());
    let broke = Broke::builder()
        .instance(name)
        .endpoint(endpoint.clone())
        .cluster(cluster.clone())
        .start()
        .await
        .unwrap();
    Started {
        broke,
        cluster,
        endpoint,
    }
}

/// A client of the second instance that the first one knows.
async fn client_of(second: &Started, first: &Started) -> TestClient {
    let client = second.endpoint.connect().await.unwrap();
    until("the client is known", async || {
        matches!(first.broke.client(client.id()).await, Ok(Some(_)))
    })
    .await;
    client
}

/// Somebody who can read and write in Redis.
struct Intruder {
    listening: PubSubStream,
    writing: MultiplexedConnection,
}

impl Intruder {
    async fn start(server: &Server, channels: &str) -> Self {
        let redis = redis::Client::open(server.url()).unwrap();
        let mut listening = redis.get_async_pubsub().await.unwrap();
        listening.psubscribe(channels).await.unwrap();
        Self {
            listening: listening.split().1,
            writing: redis.get_multiplexed_async_connection().await.unwrap(),
        }
    }

    /// The next packet that has this in it, and its channel.
    async fn record(&mut self, part: &[u8]) -> (String, Vec<u8>) {
        loop {
            let message = timeout(Duration::from_secs(10), self.listening.next()).await;
            let message = message.expect("nothing is published").unwrap();
            let packet = message.get_payload_bytes();
            if packet.windows(part.len()).any(|bytes| bytes == part) {
                return (message.get_channel_name().to_owned(), packet.to_vec());
            }
        }
    }

    async fn publish(&mut self, channel: &str, packet: &[u8]) {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(packet);
        let reached: i64 = publish.query_async(&mut self.writing).await.unwrap();
        assert!(reached > 1, "an instance, and who listens in");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forged_or_repeated_reaches_nobody() {
    let server = Server::start(&[]).await;
    let one = start(&server, "one", Some(SECRET)).await;
    let two = start(&server, "two", Some(SECRET)).await;
    let mut client = client_of(&two, &one).await;
    let mut intruder = Intruder::start(&server, "{gobroke}:to:two#*").await;
    let id = client.id();
    let send = |text: &'static str| one.broke.send(Message::new(text).to_client(id));
    send("once").unwrap();
    assert_eq!(client.next_text().await.as_deref(), Some("once"));
    let (channel, packet) = intruder.record(b"once").await;
    let replayed = two.cluster.stats().replayed;
    intruder.publish(&channel, &packet).await;
    until("the repeated message is dropped", async || {
        two.cluster.stats().replayed > replayed
    })
    .await;
    let mut changed = packet.clone();
    let at = changed
        .windows(4)
        .position(|bytes| bytes == b"once")
        .unwrap();
    changed[at..at + 4].copy_from_slice(b"evil");
    intruder.publish(&channel, &changed).await;
    // As an instance without a secret would write it.
    let mut open = vec![packet[0], 1];
    let origin = usize::from(u16::from_be_bytes([packet[42], packet[43]]));
    open.extend_from_slice(&changed[44 + origin..]);
    intruder.publish(&channel, &open).await;
    until("both are refused and counted", async || {
        two.cluster.stats().unreadable == 2
    })
    .await;
    send("twice").unwrap();
    assert_eq!(client.next_text().await.as_deref(), Some("twice"));
    one.broke.stop().await;
    two.broke.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_instances_say_to_each_other_is_heard_once() {
    let server = Server::start(&[]).await;
    let one = start(&server, "one", Some(SECRET)).await;
    let mut intruder = Intruder::start(&server, "{gobroke}:[at]*").await;
    let two = start(&server, "two", Some(SECRET)).await;
    // The newcomer's question to all, marks in both directions, and a note: a group has members on the second one.
    let mut recorded = Vec::new();
    for _ in 0..3 {
        recorded.push(intruder.record(b"#").await);
    }
    assert!(
        recorded
            .iter()
            .any(|(channel, _)| channel.ends_with(":all"))
    );
    let client = two.endpoint.connect().await.unwrap();
    assert!(two.broke.join(client.id(), "group"));
    recorded.push(intruder.record(b"group").await);
    until("both have settled", async || {
        let kept = |started: &Started| started.broke.stats().cluster.unwrap().kept_bytes;
        kept(&one) + kept(&two) == 0
    })
    .await;
    let replayed = || [&one, &two].map(|started| started.cluster.stats().replayed);
    for (channel, packet) in recorded {
        let before = replayed();
        intruder.publish(&channel, &packet).await;
        // To all: whoever published it passes over it.
        until("it is dropped and counted", async || {
            replayed().iter().sum::<u64>() == before.iter().sum::<u64>() + 1
        })
        .await;
    }
    one.broke.stop().await;
    two.broke.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_old_is_told_a_newcomer() {
    let server = Server::start(&[]).await;
    let one = start(&server, "one", Some(SECRET)).await;
    let two = start(&server, "two", Some(SECRET)).await;
    let mut intruder = Intruder::start(&server, "{gobroke}:all").await;
    until("they know each other", async || {
        !one.broke.instances().is_empty() && !two.broke.instances().is_empty()
    })
    .await;
    let mut recorded = Vec::new();
    for (sender, text) in [
        (&one, "of one that is gone"),
        (&two, "of one that is there"),
    ] {
        sender.broke.send(Message::new(text).to_all()).unwrap();
        recorded.push(intruder.record(text.as_bytes()).await);
    }
    one.broke.stop().await;
    let three = start(&server, "three", Some(SECRET)).await;
    let mut client = client_of(&three, &two).await;
    for (channel, packet) in recorded {
        let replayed = three.cluster.stats().replayed;
        intruder.publish(&channel, &packet).await;
        until("it is dropped and counted", async || {
            three.cluster.stats().replayed > replayed
        })
        .await;
    }
    let held = three.broke.stats().cluster.unwrap().held_bytes;
    assert_eq!(held, 0, "nothing waits to be told later");
    two.broke.send(Message::new("new").to_all()).unwrap();
    assert_eq!(client.next_text().await.as_deref(), Some("new"));
    two.broke.stop().await;
    three.broke.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_without_the_secret_are_not_heard() {
    let server = Server::start(&[]).await;
    let with = start(&server, "with", Some(SECRET)).await;
    for (name, secret) in [("without", None), ("wrong", Some("another sixteen bytes"))] {
        let other = start(&server, name, secret).await;
        let mut client = client_of(&with, &other).await;
        let refused = with.cluster.stats().unreadable;
        other
            .broke
            .send(Message::new("let me in").to_client(client.id()))
            .unwrap();
        until("it is refused and counted", async || {
            with.cluster.stats().unreadable > refused
        })
        .await;
        with.broke
            .send(Message::new("nobody else").to_client(client.id()))
            .unwrap();
        assert_eq!(client.next_text().await.as_deref(), Some("nobody else"));
    }
}

#[tokio::test]
async fn a_secret_that_can_be_guessed_is_refused() {
    let server = Server::start(&[]).await;
    let started = Broke::builder()
        .instance("one")
        .cluster(RedisCluster::new(server.url()).secret("short"))
        .start()
        .await;
    let error = started.err().map(|error| format!("{error:?}"));
    assert!(
        error
            .as_ref()
            .is_some_and(|error| error.contains("5 bytes")),
        "{error:?}"
    );
}
