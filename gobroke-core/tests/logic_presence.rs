//! What logic is told of the clients that come and go.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails by a panic has done its work"
)]

mod common;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use common::{Lean, Peer, Random, start, until, within};
use gobroke_core::{
    Admission, Broke, Client, ClientId, CloseReason, Dispatched, Logic, LogicContext, LogicResult,
    Message, Targets, Worker, async_trait, testing::TestEndpoint,
};

fn nowhere() -> TestEndpoint {
    TestEndpoint::new(Targets::default())
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

/// What a module was told of each client, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashMap<ClientId, Vec<String>>>>);

impl Seen {
    fn note(&self, client: ClientId, what: impl Into<String>) {
        self.0
            .lock()
            .unwrap()
            .entry(client)
            .or_default()
            .push(what.into());
    }
}

#[async_trait]
impl Dispatched for Seen {
    async fn handle(&self, message: Message, _: &LogicContext) -> LogicResult {
        self.note(message.client().unwrap(), text(&message));
        Ok(())
    }

    async fn joined(&self, client: &Client, _: &LogicContext) -> LogicResult {
        // However long it takes: the client's first message waits for it.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.note(client.id(), "joined");
        Ok(())
    }

    async fn left(&self, client: &Client, _: &CloseReason, _: &LogicContext) -> LogicResult {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.note(client.id(), "left");
        Ok(())
    }
}

/// The same for a worker.
struct Watchful(Seen);

#[async_trait]
impl Worker for Watchful {
    async fn handle(&mut self, message: Message, _: &LogicContext) -> LogicResult {
        tokio::task::yield_now().await;
        self.0.note(message.client().unwrap(), text(&message));
        Ok(())
    }

    async fn joined(&mut self, client: &Client, _: &LogicContext) -> LogicResult {
        tokio::task::yield_now().await;
        self.0.note(client.id(), "joined");
        Ok(())
    }

    async fn left(&mut self, client: &Client, _: &CloseReason, _: &LogicContext) -> LogicResult {
        self.0.note(client.id(), "left");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn joined_comes_before_a_clients_first_message_and_left_after_its_last() {
    const CLIENTS: usize = 300;
    let endpoint = nowhere();
    let (dispatched, worker) = (Seen::default(), Seen::default());
    // Every one of several workers is told; each has a list of its own.
    let several: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let made = several.clone();
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(dispatched.clone().into_dispatched("dispatched"))
            .logic(Watchful(worker.clone()).into_worker("worker"))
            .logic(
                Logic::worker_factory("several", move || {
                    let seen = Seen::default();
                    made.lock().unwrap().push(seen.clone());
                    Watchful(seen)
                })
                .workers(3),
            ),
    )
    .await;
    let mut random = Random::seeded("greetings");
    let mut tasks = Vec::new();
    let all = ["dispatched", "worker", "several"];
    for _ in 0..CLIENTS {
        let endpoint = endpoint.clone();
        let mut random = random.fork();
        tasks.push(tokio::spawn(async move {
            let peer = Peer::connect(&endpoint, &Arc::new(Lean(0)), 64 << 10).await;
            let messages = (0..1 + random.below(5)).flat_map(|number| {
                let message = |to| Message::text(number.to_string()).to_logic(to);
                // Messages with a key go to any of the workers.
                all.map(message)
                    .into_iter()
                    .chain([message("several").with_tag("key", number)])
            });
            peer.sender.send(messages.collect()).await.unwrap();
            for _ in 0..random.below(100) {
                tokio::task::yield_now().await;
            }
            if random.below(2) == 0 {
                peer.client.disconnect(CloseReason::Normal);
            }
        }));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
    until("all have left", || {
        let stats = broke.stats();
        stats.disconnected as usize == CLIENTS
            && stats
                .logic
                .values()
                .all(|logic| logic.queued + logic.in_flight == 0)
    })
    .await;
    broke.stop().await;
    let several = several.lock().unwrap().clone();
    assert_eq!(several.len(), 3);
    let mut messages = 0;
    for (index, seen) in [dispatched, worker].iter().chain(&several).enumerate() {
        let seen = seen.0.lock().unwrap();
        assert_eq!(seen.len(), CLIENTS, "module {index}");
        for list in seen.values() {
            assert_eq!(list.first().unwrap(), "joined", "module {index}: {list:?}");
            assert_eq!(list.last().unwrap(), "left", "module {index}: {list:?}");
            let between = &list[1..list.len() - 1];
            assert!(
                between.iter().all(|what| what.parse::<u32>().is_ok()),
                "{list:?}"
            );
            messages += between.len();
            if index < 2 {
                assert!(between.is_sorted(), "module {index}: {list:?}");
            }
        }
    }
    assert!(messages > CLIENTS);
}

#[tokio::test]
async fn of_a_client_that_connects_anew_logic_hears_left_before_joined() {
    let endpoint = nowhere();
    let id = ClientId::new();
    let (dispatched, worker) = (Seen::default(), Seen::default());
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .on_connect(move |_| async move { Ok(Admission::identified(id)) })
            .logic(dispatched.clone().into_dispatched("dispatched"))
            .logic(Watchful(worker.clone()).into_worker("worker")),
    )
    .await;
    let mut clients = Vec::new();
    for number in 0..3 {
        let client = endpoint.connect().await.unwrap();
        for to in ["dispatched", "worker"] {
            client
                .send_message(Message::text(number.to_string()).to_logic(to))
                .await;
        }
        let told = |seen: &Seen| seen.0.lock().unwrap().get(&id).map_or(0, Vec::len);
        until("it is heard", || {
            told(&dispatched) == 3 * number + 2 && told(&worker) == 3 * number + 2
        })
        .await;
        clients.push(client);
    }
    // And where it is back before logic has heard the end of what was before.
    for _ in 0..10 {
        clients.push(endpoint.connect().await.unwrap());
    }
    broke.stop().await;
    for seen in [dispatched, worker] {
        let seen = &seen.0.lock().unwrap()[&id];
        let begin = ["joined", "0", "left", "joined", "1", "left", "joined", "2"];
        let end = ["left", "joined"].repeat(10);
        assert_eq!(*seen, [&begin[..], &end[..], &["left"]].concat());
    }
}
