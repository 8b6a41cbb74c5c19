//! Listings of clients, whatever form and size the parts have in which Redis keeps them.

#![allow(clippy::unwrap_used, reason = "a test's set-up may fail")]

mod support;

use std::collections::BTreeSet;

use gobroke_core::{Broke, ClientId, cluster::Cursor, testing::TestClient};
use gobroke_redis::RedisCluster;

use self::support::{Server, load::start, until};

const CLIENTS: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_any_size_have_each_client_once_in_whatever_form_redis_keeps_them() {
    // Without any part that is packed, those larger than a page take several commands.
    for packed in ["512", "0"] {
        let server = Server::start(&["--hash-max-listpack-entries", packed]).await;
        let over = || RedisCluster::new(server.url());
        let (one, two, three) = (
            start("one", over()).await,
            start("two", over()).await,
            start("three", over()).await,
        );
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let at = if number % 100 == 0 { &two } else { &three };
            let client = at.1.connect().await.unwrap();
            if number % 3 == 0 {
                assert!(at.0.join(client.id(), "room"));
            }
            clients.push(client);
        }
        let all: BTreeSet<ClientId> = clients.iter().map(TestClient::id).collect();
        let room: BTreeSet<ClientId> = clients.iter().step_by(3).map(TestClient::id).collect();
        until("all are written", async || {
            one.0.client_count().await.clients == CLIENTS
                && one.0.members("room").await.len() == room.len()
        })
        .await;
        let keys = server.cli(&["KEYS", "{gobroke}:clients:three#*"]).await;
        let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
        for key in keys {
            let length: usize = redis::from_redis_value(server.cli(&["HLEN", &key]).await).unwrap();
            assert!(
                length < CLIENTS / 10,
                "{length} of {CLIENTS} in {key}: they do not spread"
            );
        }
        for limit in [1, 10, 100, 10 * CLIENTS] {
            let listed = pages(&one.0, None, limit).await;
            assert_eq!(listed.len(), CLIENTS, "each once, {limit} a page");
            assert_eq!(BTreeSet::from_iter(listed), all, "{limit} a page");
            let listed = pages(&one.0, Some("room"), limit).await;
            assert_eq!(listed.len(), room.len(), "each once, {limit} a page");
            assert_eq!(BTreeSet::from_iter(listed), room, "{limit} a page");
        }
        assert_eq!(one.0.clients().await.len(), CLIENTS);
        for broke in [one.0, two.0, three.0] {
            broke.stop().await;
        }
    }
}

/// All pages, one after another.
async fn pages(broke: &Broke, group: Option<&str>, limit: usize) -> Vec<ClientId> {
    let mut listed = Vec::new();
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        assert!(listed.len() <= CLIENTS, "it does not end");
        let page = match group {
            Some(group) => broke.members_page(group, &from, limit).await,
            None => broke.clients_page(&from, limit).await,
        };
        assert!(!page.partial);
        // A part that is packed is given whole.
        let most = limit + CLIENTS / 10;
        assert!(
            page.clients.len() <= most,
            "{} of {limit}",
            page.clients.len()
        );
        listed.extend(page.clients.into_iter().map(|info| info.id));
        cursor = page.next;
    }
    listed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_cursor_makes_a_page_partial() {
    let server = Server::start(&[]).await;
    let one = start("one", RedisCluster::new(server.url())).await;
    let first = one.0.clients_page(&Cursor::default(), 10).await;
    let begins = first.next.unwrap();
    for bad in [
        "x",
        "[]",
        "[null,[[\"no instance\",0,0]]]",
        "[null,[[\"a#1.b\",0,-1]]]",
    ] {
        let cursor = Cursor::new(format!("{}{bad}", begins.as_str()));
        let page = one.0.clients_page(&cursor, 10).await;
        assert!(page.partial && page.clients.is_empty(), "{bad}");
    }
    one.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_right_while_it_is_cleaned_up_after_somebody() {
    let server = Server::start(&[]).await;
    let over = || RedisCluster::new(server.url());
    let (one, two) = (start("one", over()).await, start("two", over()).await);
    let mut clients = Vec::new();
    for at in [&one, &one, &one, &two, &two] {
        clients.push(at.1.connect().await.unwrap());
    }
    until("all are written", async || {
        one.0.client_count().await.clients == 5 && two.0.client_count().await.clients == 5
    })
    .await;
    // Somebody else is at it, and will be for long. Who was stopped for a while may ask before it knows.
    let unswept = async |name: &str| {
        let (key, id) = ("{gobroke}:unswept", id(&server, name).await);
        server.cli(&["HSET", key, &id, "99999999999999"]).await;
    };
    unswept("one").await;
    assert_eq!(one.0.client_count().await.clients, 5, "its own once");
    unswept("two").await;
    assert_eq!(
        one.0.client_count().await.clients,
        3,
        "those of who has left not"
    );
    one.0.stop().await;
    two.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_again_was_not_missing_meanwhile() {
    let server = Server::start(&[]).await;
    let one = start("one", RedisCluster::new(server.url())).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(one.1.connect().await.unwrap());
    }
    let id = id(&server, "one").await;
    let written = async || {
        let keys = server.cli(&["KEYS", "{gobroke}:clients:*"]).await;
        let mut written = 0;
        for key in redis::from_redis_value::<Vec<String>>(keys).unwrap() {
            let length = server.cli(&["HLEN", &key]).await;
            written += redis::from_redis_value::<usize>(length).unwrap();
        }
        written
    };
    until("all are written", async || written().await == CLIENTS).await;
    server.cli(&["CONFIG", "RESETSTAT"]).await;
    server.cli(&["HSET", "{gobroke}:batches", &id, "0"]).await;
    // The first of a record's batches writes no client, and each other at most 128.
    let batches = CLIENTS.div_ceil(128) + 1;
    until("it is written again", async || {
        calls(&server, "hset").await > 2 * batches as u64
    })
    .await;
    until("all are there", async || written().await == CLIENTS).await;
    // One says that it has written everything.
    until("it is done", async || calls(&server, "hdel").await > 0).await;
    let taken = calls(&server, "hdel").await;
    assert_eq!(taken, 1, "no client was taken away");
    one.0.stop().await;
}

/// An instance as its keys name it.
async fn id(server: &Server, name: &str) -> String {
    let incarnation = server.cli(&["HGET", "{gobroke}:instances", name]).await;
    let incarnation: String = redis::from_redis_value(incarnation).unwrap();
    format!("{name}#{incarnation}")
}

/// How often the server has run a command.
async fn calls(server: &Server, command: &str) -> u64 {
    let info = server.cli(&["INFO", "commandstats"]).await;
    let info: String = redis::from_redis_value(info).unwrap();
    let line = format!("cmdstat_{command}:calls=");
    let rest = info.lines().find_map(|known| known.strip_prefix(&line));
    rest.and_then(|rest| rest.split(',').next())
        .map_or(0, |calls| calls.parse().unwrap())
}
