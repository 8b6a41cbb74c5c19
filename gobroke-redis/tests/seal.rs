//! With a secret, whoever can write to Redis can neither forge what instances carry to each other, nor repeat it.
#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use futures_util::StreamExt;
use gobroke_core::{
    Broke, Message, Targets,
    testing::{TestClient, TestEndpoint},
};
use gobroke_redis::RedisCluster;

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
        first.broke.client(client.id()).await.is_some()
    })
    .await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forged_or_repeated_reaches_nobody() {
    let server = Server::start(&[]).await;
    let one = start(&server, "one", Some(SECRET)).await;
    let two = start(&server, "two", Some(SECRET)).await;
    let mut client = client_of(&two, &one).await;
    // Somebody who listens in.
    let spy = redis::Client::open(server.url()).unwrap();
    let mut spy = spy.get_async_pubsub().await.unwrap();
    spy.psubscribe("{gobroke}:to:two#*").await.unwrap();
    let id = client.id();
    let send = |text: &'static str| one.broke.send(Message::new(text).to_client(id));
    send("once").unwrap();
    assert_eq!(client.next_text().await.as_deref(), Some("once"));
    let mut heard = spy.on_message();
    let (channel, packet) = loop {
        let message = heard.next().await.unwrap();
        let packet = message.get_payload_bytes().to_vec();
        if packet.windows(4).any(|bytes| bytes == b"once") {
            break (message.get_channel_name().to_owned(), packet);
        }
    };
    let publish = async |packet: &[u8]| {
        let writer = redis::Client::open(server.url()).unwrap();
        let mut writer = writer.get_multiplexed_async_connection().await.unwrap();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&channel).arg(packet);
        let reached: i64 = publish.query_async(&mut writer).await.unwrap();
        assert_eq!(reached, 2, "the instance and the spy");
    };
    let doubled = two.broke.stats().cluster.unwrap().doubled;
    publish(&packet).await;
    until("the repeated message is dropped", async || {
        two.broke.stats().cluster.unwrap().doubled > doubled
    })
    .await;
    let mut changed = packet.clone();
    let at = changed
        .windows(4)
        .position(|bytes| bytes == b"once")
        .unwrap();
    changed[at..at + 4].copy_from_slice(b"evil");
    publish(&changed).await;
    // As an instance without a secret would write it.
    let mut open = vec![packet[0], 1];
    open.extend_from_slice(&changed[34..]);
    publish(&open).await;
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
