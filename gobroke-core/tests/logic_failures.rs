//! Logic that fails, panics, never returns: what it costs, who is told, and how it comes back.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails by a panic has done its work"
)]

mod common;

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use common::{start, until, within};
use gobroke_core::{
    Broke, Dispatched, FailureKind, Logic, LogicContext, LogicFailure, LogicResult, Message,
    Passive, Targets, Worker, async_trait,
    testing::{Received, TestClient, TestEndpoint},
};
use tokio::time::Instant;

fn nowhere() -> TestEndpoint {
    TestEndpoint::new(Targets::default())
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

async fn ask(client: &mut TestClient, logic: &str, text: &str) -> Option<String> {
    client
        .send_message(Message::text(text).to_logic(logic))
        .await;
    client.next_text().await
}

/// Answers what it is asked, fails and panics where it is told to, and counts what it has handled.
#[derive(Default)]
struct Obedient {
    handled: u64,
}

fn obey(handled: u64, message: &Message, ctx: &LogicContext) -> LogicResult {
    match &*text(message) {
        "fail" => Err("as told".into()),
        "panic" => panic!("as told"),
        _ => {
            ctx.reply(message, Message::text(handled.to_string()))?;
            Ok(())
        }
    }
}

#[async_trait]
impl Worker for Obedient {
    async fn handle(&mut self, message: Message, ctx: &LogicContext) -> LogicResult {
        self.handled += 1;
        tokio::task::yield_now().await;
        obey(self.handled, &message, ctx)
    }
}

#[derive(Default)]
struct Shared(AtomicU64);

#[async_trait]
impl Dispatched for Shared {
    async fn handle(&self, message: Message, ctx: &LogicContext) -> LogicResult {
        let handled = self.0.fetch_add(1, Relaxed) + 1;
        obey(handled, &message, ctx)
    }
}

/// One module of each kind that takes messages, and whether a panic costs it its state.
fn every_kind() -> Vec<(&'static str, Logic, bool)> {
    let (plain, waiting) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (mut in_worker, mut in_async) = (0, 0);
    vec![
        (
            "dispatched",
            Logic::dispatched("dispatched", move |message, ctx| {
                obey(plain.fetch_add(1, Relaxed) + 1, &message, ctx)
            }),
            false,
        ),
        (
            "dispatched_async",
            Logic::dispatched_async("dispatched_async", move |message, ctx| {
                let handled = waiting.fetch_add(1, Relaxed) + 1;
                async move {
                    tokio::task::yield_now().await;
                    obey(handled, &message, &ctx)
                }
            }),
            false,
        ),
        (
            "Dispatched",
            Shared::default().into_dispatched("Dispatched"),
            false,
        ),
        (
            "worker",
            Logic::worker("worker", move |message, ctx| {
                in_worker += 1;
                obey(in_worker, &message, ctx)
            }),
            false,
        ),
        (
            "worker_async",
            Logic::worker_async("worker_async", move |message, ctx| {
                in_async += 1;
                let handled = in_async;
                async move {
                    tokio::task::yield_now().await;
                    obey(handled, &message, &ctx)
                }
            }),
            false,
        ),
        ("Worker", Obedient::default().into_worker("Worker"), false),
        (
            "worker_factory",
            Logic::worker_factory("worker_factory", Obedient::default),
            true,
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_kind_goes_on_after_an_error_and_a_panic_which_are_counted_and_told() {
    let endpoint = nowhere();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (list, hook_panics) = (told.clone(), Arc::new(AtomicBool::new(false)));
    let panics = hook_panics.clone();
    let mut builder =
        Broke::builder()
            .endpoint(endpoint.clone())
            .on_error(move |failure: &LogicFailure| {
                assert!(!panics.load(Relaxed), "the hook was told to panic");
                let kind = match &failure.kind {
                    FailureKind::Error(error) => format!("error {error}"),
                    FailureKind::Panic(message) => format!("panic {message}"),
                    other => format!("{other:?}"),
                };
                list.lock().unwrap().push((failure.logic.to_string(), kind));
            });
    let mut kinds = Vec::new();
    for (name, logic, fresh) in every_kind() {
        builder = builder.logic(logic);
        kinds.push((name, fresh));
    }
    let broke = start(builder).await;
    let mut client = endpoint.connect().await.unwrap();
    for &(name, fresh) in &kinds {
        assert_eq!(
            ask(&mut client, name, "hello").await.as_deref(),
            Some("1"),
            "{name}"
        );
        for what in ["fail", "panic"] {
            client
                .send_message(Message::text(what).to_logic(name))
                .await;
        }
        let expected = if fresh { "1" } else { "4" };
        assert_eq!(
            ask(&mut client, name, "hello").await.as_deref(),
            Some(expected),
            "{name}"
        );
        let list = std::mem::take(&mut *told.lock().unwrap());
        let named = |kind: &str| (name.to_owned(), kind.to_owned());
        assert_eq!(list, [named("error as told"), named("panic as told")]);
        assert_eq!(broke.stats().logic[name].failures, 2, "{name}");
    }
    let count = kinds.len() as u64;
    let stats = broke.stats();
    assert_eq!((stats.logic_errors, stats.logic_panics), (count, count));
    // A hook that panics costs nothing but itself.
    hook_panics.store(true, Relaxed);
    for &(name, _) in &kinds {
        client
            .send_message(Message::text("fail").to_logic(name))
            .await;
        assert!(ask(&mut client, name, "hello").await.is_some(), "{name}");
    }
    assert_eq!(broke.stats().panics, count);
    broke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_factory_makes_a_fresh_worker_at_once_and_then_with_a_back_off() {
    let endpoint = nowhere();
    let made = Arc::new(Mutex::new(Vec::new()));
    let times = made.clone();
    let logic = Logic::worker_factory("work", move || {
        times.lock().unwrap().push(Instant::now());
        Obedient::default()
    });
    let broke = start(Broke::builder().endpoint(endpoint.clone()).logic(logic)).await;
    let mut client = endpoint.connect().await.unwrap();
    let mut messages: Vec<_> = (0..10)
        .map(|_| Message::text("panic").to_logic("work"))
        .collect();
    // Its queue stays: what is behind the panics is handled when it is back.
    messages.push(Message::text("hello").to_logic("work"));
    client.send_all(messages).await;
    assert_eq!(client.next_text().await.as_deref(), Some("1"));
    let times = std::mem::take(&mut *made.lock().unwrap());
    let waits: Vec<u64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis() as u64)
        .collect();
    let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
    assert_eq!(waits.len(), expected.len());
    for (wait, expected) in waits.iter().zip(expected) {
        assert!((expected..expected + 20).contains(wait), "{waits:?}");
    }
    // One that has handled something comes back at once again.
    assert_eq!(
        ask(&mut client, "work", "hello").await.as_deref(),
        Some("2")
    );
    let begin = Instant::now();
    client
        .send_message(Message::text("panic").to_logic("work"))
        .await;
    assert_eq!(
        ask(&mut client, "work", "hello").await.as_deref(),
        Some("1")
    );
    assert!(begin.elapsed() < Duration::from_millis(50));
    broke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_never_returns_is_dropped_when_its_module_is_removed_and_the_drain_is_over() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let endpoint = nowhere();
    let dropped = Arc::new(AtomicUsize::new(0));
    let (one, two, three) = (dropped.clone(), dropped.clone(), dropped.clone());
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .drain(Duration::from_secs(5))
            .logic(Logic::dispatched_async("dispatched", move |_, _| {
                let dropped = Dropped(one.clone());
                async move {
                    let _dropped = dropped;
                    pending().await
                }
            }))
            .logic(Logic::worker_async("worker", move |_, _| {
                let dropped = Dropped(two.clone());
                async move {
                    let _dropped = dropped;
                    pending().await
                }
            }))
            .logic(Logic::passive("passive", move |_| {
                let dropped = Dropped(three.clone());
                async move {
                    let _dropped = dropped;
                    pending().await
                }
            })),
    )
    .await;
    let mut client = endpoint.connect().await.unwrap();
    for to in ["dispatched", "worker", "worker"] {
        client.send_message(Message::text("x").to_logic(to)).await;
    }
    until("they are at it", || {
        let stats = broke.stats();
        stats.logic["dispatched"].in_flight == 1 && stats.logic["worker"].queued == 2
    })
    .await;
    for (count, name) in ["dispatched", "worker", "passive"].into_iter().enumerate() {
        let begin = Instant::now();
        assert!(broke.remove_logic(name).await);
        let took = begin.elapsed().as_secs_f64();
        assert!((5.0..5.1).contains(&took), "{name}: {took}");
        assert_eq!(dropped.load(Relaxed), count + 1, "{name}");
    }
    assert!(!broke.remove_logic("worker").await);
    // The router goes on.
    broke
        .add_logic(Obedient::default().into_worker("worker"))
        .unwrap();
    assert_eq!(
        ask(&mut client, "worker", "hello").await.as_deref(),
        Some("1")
    );
    broke.stop().await;
}

/// Runs until it is cancelled, or fails first.
struct Clockwork(Arc<Mutex<Vec<&'static str>>>);

#[async_trait]
impl Passive for Clockwork {
    async fn run(&mut self, ctx: &LogicContext) -> LogicResult {
        self.0.lock().unwrap().push("begins");
        ctx.broadcast(Message::text("tick"))?;
        ctx.room().await;
        ctx.cancelled().await;
        // It may still say something when it ends.
        let said = ctx.broadcast(Message::text("tock")).is_ok();
        self.0
            .lock()
            .unwrap()
            .push(if said { "ends" } else { "is mute" });
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn passive_logic_runs_until_it_is_cancelled_and_its_failures_are_told() {
    let endpoint = nowhere();
    let log = Arc::new(Mutex::new(Vec::new()));
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = failures.clone();
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .on_error(move |failure| told.lock().unwrap().push(failure.to_string())),
    )
    .await;
    let mut client = endpoint.connect().await.unwrap();
    broke
        .add_logic(Clockwork(log.clone()).into_passive("clock"))
        .unwrap();
    broke
        .add_logic(Logic::passive("fails", async |_| Err("no luck".into())))
        .unwrap();
    broke
        .add_logic(Logic::passive("panics", async |_| panic!("no luck either")))
        .unwrap();
    assert_eq!(client.next_text().await.as_deref(), Some("tick"));
    until("both have failed", || failures.lock().unwrap().len() == 2).await;
    let mut failures = std::mem::take(&mut *failures.lock().unwrap());
    failures.sort();
    assert!(
        failures[0].contains("\"fails\" failed: no luck"),
        "{failures:?}"
    );
    assert!(
        failures[1].contains("\"panics\" panicked: no luck either"),
        "{failures:?}"
    );
    assert_eq!(ask_error(&mut client, "clock").await, "passive_logic");
    let begin = Instant::now();
    assert!(within(broke.remove_logic("clock")).await);
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "it is told at once"
    );
    assert_eq!(*log.lock().unwrap(), ["begins", "ends"]);
    assert_eq!(client.next_text().await.as_deref(), Some("tock"));
    // The drain tells passive logic first, and delivers its last words.
    broke
        .add_logic(Clockwork(log.clone()).into_passive("clock"))
        .unwrap();
    assert_eq!(client.next_text().await.as_deref(), Some("tick"));
    broke.stop().await;
    assert_eq!(client.next_text().await.as_deref(), Some("tock"));
}

async fn ask_error(client: &mut TestClient, logic: &str) -> String {
    client
        .send_message(Message::text("x").to_logic(logic))
        .await;
    loop {
        if let Received::Error { code, .. } = client.frame().await.unwrap() {
            return code;
        }
    }
}
