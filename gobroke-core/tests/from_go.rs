//! What the README of the Go original describes, item by item: the tests that `docs/from_go.md` points to.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use gobroke_core::{
    Admission, Broke, BrokeBuilder, ClientInfo, CloseReason, ConnectRequest, FailureKind, Logic,
    LogicContext, LogicResult, Message, SendError, Source, State, Target, Worker, async_trait,
    cluster::MemoryCluster,
    testing::{Received, TestClient, TestEndpoint},
};
use tokio::sync::{mpsc, oneshot};

fn echo(name: &str) -> Logic {
    Logic::dispatched(name, |message, ctx| {
        ctx.reply(&message, message.clone())?;
        Ok(())
    })
}

async fn start(builder: BrokeBuilder) -> Broke {
    builder.start().await.expect("it starts")
}

async fn connect(endpoint: &TestEndpoint) -> TestClient {
    endpoint.connect().await.expect("it is admitted")
}

/// What an instance knows of a client of any instance.
async fn known(broke: &Broke, client: &TestClient) -> ClientInfo {
    let found = broke.client(client.id()).await;
    found.expect("it can be asked").expect("it is known")
}

/// The next error that the client is told.
async fn error(client: &mut TestClient) -> (String, String) {
    loop {
        match client.frame().await.expect("a frame comes") {
            Received::Error { code, message } => return (code, message),
            Received::Welcome(_) => {}
            other => panic!("not an error: {other:?}"),
        }
    }
}

#[test]
fn a_message_knows_its_source_and_its_targets() {
    let client = gobroke_core::ClientId::new();
    let message = Message::new("hello")
        .to_client(client)
        .to_group("lobby")
        .to_logic("chat");
    assert_eq!(
        message.targets().as_slice(),
        [
            Target::Client(client),
            Target::Group("lobby".into()),
            Target::Logic("chat".into())
        ]
    );
    assert_eq!(message.payload().as_ref(), b"hello");
    assert_eq!(message.source(), &Source::Server);
    assert_eq!(message.state(), State::Accepted);
}

#[tokio::test]
async fn logic_sees_who_sent_a_message() {
    let (told, mut seen) = mpsc::unbounded_channel();
    let endpoint = TestEndpoint::to_logic("first");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(Logic::dispatched("first", |_, ctx| {
                ctx.send(Message::new("from logic").to_logic("second"))?;
                Ok(())
            }))
            .logic(Logic::dispatched("second", move |message, _| {
                told.send(message.source().clone())?;
                Ok(())
            })),
    )
    .await;
    let client = connect(&endpoint).await;
    client.send("x").await;
    assert_eq!(seen.recv().await, Some(Source::Logic("first".into())));
    let id = client.id();
    client
        .send_message(Message::new("y").to_logic("second"))
        .await;
    assert_eq!(seen.recv().await, Some(Source::Client(id)));
    broke.stop().await;
}

#[tokio::test]
async fn metadata_travels_to_clients_and_tags_do_not() {
    let endpoint = TestEndpoint::to_logic("none");
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut client = connect(&endpoint).await;
    let message = Message::new("x")
        .with_metadata("trace", 7)
        .with_tag("internal", true);
    broke.send(message.to_all()).expect("it is sent");
    let came = client.next().await.expect("a message comes");
    assert_eq!(came.metadata()["trace"], 7);
    assert!(came.tags().is_empty());
    broke.stop().await;
}

#[tokio::test]
async fn who_sent_a_rejected_message_is_told_why() {
    let later = Arc::new(AtomicUsize::new(0));
    let endpoint = TestEndpoint::to_logic("echo");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .receive_middleware(|message: &mut Message| {
                if message.payload().len() > 4 {
                    message.reject("too large");
                }
                if message.payload().as_ref() == b"never mind" {
                    message.accept();
                }
            })
            .receive_middleware({
                let later = later.clone();
                move |_: &mut Message| {
                    later.fetch_add(1, Relaxed);
                }
            })
            .logic(echo("echo")),
    )
    .await;
    let mut client = connect(&endpoint).await;
    client.send("much too long").await;
    let expected = ("rejected".to_owned(), "too large".to_owned());
    assert_eq!(error(&mut client).await, expected);
    assert_eq!(later.load(Relaxed), 0, "the chain ended there");
    client.send("never mind").await;
    assert_eq!(client.next_text().await.as_deref(), Some("never mind"));
    assert_eq!((later.load(Relaxed), broke.stats().rejected), (1, 1));
    broke.stop().await;
}

#[tokio::test]
async fn a_tag_of_middleware_is_read_by_logic() {
    let endpoint = TestEndpoint::to_logic("chat");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .receive_middleware(|message: &mut Message| message.add_tag("priority", "high"))
            .logic(Logic::dispatched("chat", |message, ctx| {
                let priority = message.tag("priority").and_then(|tag| tag.as_str());
                assert_eq!(message.tag("none"), None);
                ctx.reply(&message, Message::text(priority.unwrap_or("none")))?;
                Ok(())
            })),
    )
    .await;
    let mut client = connect(&endpoint).await;
    client.send("x").await;
    assert_eq!(client.next_text().await.as_deref(), Some("high"));
    broke.stop().await;
}

#[tokio::test]
async fn send_middleware_sees_what_logic_sends_once() {
    let endpoint = TestEndpoint::to_logic("echo");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .send_middleware(|message: &mut Message| {
                let seal = [message.payload(), "!".as_bytes()].concat();
                message.set_payload(seal);
                if message.payload().starts_with(b"secret") {
                    message.reject("not for everyone");
                }
            })
            .logic(echo("echo")),
    )
    .await;
    let mut client = connect(&endpoint).await;
    client.send("hello").await;
    assert_eq!(client.next_text().await.as_deref(), Some("hello!"));
    assert!(matches!(
        broke.send(Message::new("secret").to_all()),
        Err(SendError::Rejected { reason }) if reason == "not for everyone"
    ));
    broke.stop().await;
}

#[tokio::test]
async fn a_dispatched_module_broadcasts_what_it_receives() {
    let endpoint = TestEndpoint::to_logic("broadcaster");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(Logic::dispatched("broadcaster", |message, ctx| {
                ctx.broadcast(message)?;
                Ok(())
            })),
    )
    .await;
    let (mut ann, mut bob) = (connect(&endpoint).await, connect(&endpoint).await);
    ann.send("hello").await;
    assert_eq!(ann.next_text().await.as_deref(), Some("hello"));
    assert_eq!(bob.next_text().await.as_deref(), Some("hello"));
    broke.stop().await;
}

/// A worker with state: no lock, since it handles one message at a time.
#[derive(Default)]
struct Counter {
    seen: u64,
}

#[async_trait]
impl Worker for Counter {
    async fn handle(&mut self, message: Message, ctx: &LogicContext) -> LogicResult {
        self.seen += 1;
        ctx.reply(&message, Message::text(self.seen.to_string()))?;
        Ok(())
    }
}

#[tokio::test]
async fn a_worker_handles_one_message_after_another() {
    let endpoint = TestEndpoint::to_logic("count");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(Counter::default().into_worker("count")),
    )
    .await;
    let mut client = connect(&endpoint).await;
    client
        .send_all((0..100).map(|_| Message::new("x")).collect())
        .await;
    for expected in 1..=100 {
        assert_eq!(client.next_text().await, Some(expected.to_string()));
    }
    broke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_passive_module_runs_by_itself_and_takes_no_messages() {
    let endpoint = TestEndpoint::to_logic("none");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(Logic::passive("clock", async |ctx| {
                let mut interval = tokio::time::interval(Duration::from_secs(10));
                while !ctx.is_cancelled() {
                    tokio::select! {
                        _ = interval.tick() => ctx.broadcast(Message::text("tick"))?,
                        () = ctx.cancelled() => break,
                    };
                }
                Ok(())
            })),
    )
    .await;
    let mut client = connect(&endpoint).await;
    assert_eq!(client.next_text().await.as_deref(), Some("tick"));
    assert_eq!(client.next_text().await.as_deref(), Some("tick"));
    assert!(matches!(
        broke.send(Message::new("x").to_logic("clock")),
        Err(SendError::PassiveLogic(name)) if name == "clock"
    ));
    broke.stop().await;
}

#[tokio::test]
async fn the_context_is_a_modules_hold_on_the_router() {
    let (ended, was_cancelled) = oneshot::channel();
    let mut ended = Some(ended);
    let endpoint = TestEndpoint::to_logic("none");
    let broke = start(
        Broke::builder()
            .instance("here")
            .endpoint(endpoint.clone())
            .logic(Logic::passive("watch", move |ctx: LogicContext| {
                let ended = ended.take();
                async move {
                    assert_eq!(
                        (ctx.name().as_str(), ctx.instance().as_str()),
                        ("watch", "here")
                    );
                    assert!(ctx.clients().await.is_empty());
                    ctx.cancelled().await;
                    assert!(ctx.is_cancelled());
                    ended.map(|ended| ended.send(()));
                    Ok(())
                }
            })),
    )
    .await;
    broke.stop().await;
    was_cancelled.await.expect("it ran to its end");
    assert_eq!(broke.stats().logic_panics, 0);
}

#[tokio::test]
async fn logic_comes_and_goes_while_the_router_runs() {
    let endpoint = TestEndpoint::to_logic("echo");
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut client = connect(&endpoint).await;
    client.send("nobody there").await;
    assert_eq!(error(&mut client).await.0, "unknown_logic");

    broke.add_logic(echo("echo")).expect("the name is free");
    assert!(broke.add_logic(echo("echo")).is_err(), "it is taken");
    client.send("hello").await;
    assert_eq!(client.next_text().await.as_deref(), Some("hello"));

    assert!(broke.remove_logic("echo").await);
    assert!(!broke.remove_logic("echo").await);
    client.send("gone again").await;
    assert_eq!(error(&mut client).await.0, "unknown_logic");
    broke.stop().await;
}

#[tokio::test]
async fn clients_are_registered_found_listed_and_removed() {
    let endpoint = TestEndpoint::to_logic("none");
    let broke = start(
        Broke::builder()
            .instance("instance-1")
            .endpoint(endpoint.clone())
            .on_connect(async |request: ConnectRequest| {
                let name = request.header("name").unwrap_or("nobody").to_owned();
                Ok(Admission::anonymous().with_metadata("name", name))
            }),
    )
    .await;
    let mut request = ConnectRequest::default();
    request.headers.push(("name".into(), "Ann".into()));
    let mut ann = endpoint.connect_as(request).await.expect("it is admitted");
    let bob = connect(&endpoint).await;

    let info = known(&broke, &ann).await;
    assert_eq!(info.metadata["name"], "Ann");
    assert_eq!((&*info.instance, &*info.endpoint), ("instance-1", "test"));
    assert_eq!(broke.clients().await.len(), 2, "of all instances");
    assert_eq!(broke.local_clients().len(), 2, "of this one");
    assert!(broke.local_client(bob.id()).is_some());

    assert!(broke.disconnect(ann.id(), CloseReason::Kicked("enough".into())));
    assert_eq!(ann.closed().await, Some((4002, "enough".to_owned())));
    assert!(matches!(broke.client(ann.id()).await, Ok(None)));
    assert_eq!(broke.local_clients().len(), 1);
    broke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_message_time_moves_with_each_message() {
    let endpoint = TestEndpoint::to_logic("echo");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(echo("echo")),
    )
    .await;
    let mut client = connect(&endpoint).await;
    let seen = broke.local_client(client.id()).expect("it is connected");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(seen.idle() >= Duration::from_secs(19), "{:?}", seen.idle());
    client.send("x").await;
    client.next().await.expect("the echo comes");
    assert!(seen.idle() <= Duration::from_secs(1), "{:?}", seen.idle());
    assert!(seen.last_message() >= seen.connected_at());
    let info = known(&broke, &client).await;
    assert_eq!(info.last_message_at(), seen.last_message());
    broke.stop().await;
}

#[tokio::test]
async fn a_full_queue_hands_the_message_back() {
    let busy = Logic::worker_async("busy", async |_, _| std::future::pending().await);
    let broke = start(
        Broke::builder()
            .drain(Duration::ZERO)
            .logic(busy.queue(2, 1 << 20)),
    )
    .await;
    let message = || Message::new("x").to_logic("busy");
    broke.send(message()).expect("the worker has it");
    broke.send(message()).expect("it waits");
    let third = message();
    let id = third.id();
    let refused = broke.send(third).expect_err("there is no room");
    assert_eq!(refused.into_message().map(|message| message.id()), Some(id));
    assert_eq!(broke.stats().full, 1);
    broke.stop().await;
}

#[tokio::test]
async fn a_stop_closes_clients_and_ends_all_tasks() {
    let endpoint = TestEndpoint::to_logic("echo");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(echo("echo")),
    )
    .await;
    let mut client = connect(&endpoint).await;
    client.send("last words").await;
    assert_eq!(client.next_text().await.as_deref(), Some("last words"));
    broke.stop().await;
    assert_eq!(client.closed().await, Some((1001, "going away".to_owned())));
    assert!(matches!(
        broke.send(Message::new("x").to_all()),
        Err(SendError::Stopped)
    ));
    assert!(endpoint.connect().await.is_err(), "nobody is let in");
}

#[tokio::test]
async fn a_message_goes_straight_to_clients_past_logic() {
    let handled = Arc::new(AtomicUsize::new(0));
    let endpoint = TestEndpoint::to_logic("count");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(Logic::dispatched("count", {
                let handled = handled.clone();
                move |_, _| {
                    handled.fetch_add(1, Relaxed);
                    Ok(())
                }
            })),
    )
    .await;
    let (mut ann, mut bob) = (connect(&endpoint).await, connect(&endpoint).await);
    let receipt = broke
        .send(Message::new("from the program").to_client(ann.id()))
        .expect("it is sent");
    assert_eq!((receipt.clients, receipt.logic), (1, 0));
    assert_eq!(ann.next_text().await.as_deref(), Some("from the program"));
    ann.send_message(Message::new("psst").to_client(bob.id()))
        .await;
    assert_eq!(bob.next_text().await.as_deref(), Some("psst"));
    assert_eq!(handled.load(Relaxed), 0);
    broke.stop().await;
}

#[tokio::test]
async fn a_message_passes_so_many_modules_and_no_more() {
    let (told, mut failures) = mpsc::unbounded_channel();
    let pass_on = |name: &str, to: &'static str| {
        Logic::dispatched(name, move |message, ctx| {
            ctx.send(Message::new(message.payload().clone()).to_logic(to))?;
            Ok(())
        })
    };
    let broke = start(
        Broke::builder()
            .logic(pass_on("ping", "pong"))
            .logic(pass_on("pong", "ping"))
            .on_error(move |failure| {
                // The receiver lives as long as the test.
                let _ = told.send(failure.to_string());
            }),
    )
    .await;
    broke
        .send(Message::new("x").to_logic("ping"))
        .expect("it is sent");
    let failure = failures.recv().await.expect("it ends");
    assert!(failure.contains("more than 32"), "{failure}");
    broke.stop().await;
}

#[tokio::test]
async fn errors_and_panics_of_logic_reach_the_hook() {
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let endpoint = TestEndpoint::to_logic("fragile");
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(Logic::dispatched("fragile", |message, ctx| {
                let number: i64 = message.parse()?;
                assert!(number >= 0, "negative");
                ctx.reply(&message, message.clone())?;
                Ok(())
            }))
            .on_error({
                let failures = failures.clone();
                move |failure| {
                    let kind = match &failure.kind {
                        FailureKind::Error(_) => "error",
                        FailureKind::Panic(_) => "panic",
                        _ => "other",
                    };
                    if let Ok(mut failures) = failures.lock() {
                        failures.push(format!("{} {kind}", failure.logic));
                    }
                }
            }),
    )
    .await;
    let mut client = connect(&endpoint).await;
    for payload in ["no number", "-1", "1"] {
        client.send(payload).await;
    }
    assert_eq!(client.next_text().await.as_deref(), Some("1"));
    let failures = failures.lock().expect("nobody panicked with it").clone();
    assert_eq!(failures, ["fragile error", "fragile panic"]);
    let stats = broke.stats();
    assert_eq!((stats.logic_errors, stats.logic_panics), (1, 1));
    broke.stop().await;
}

/// Two instances of one program.
async fn pair(cluster: &MemoryCluster) -> [(Broke, TestEndpoint); 2] {
    let mut started = Vec::new();
    for name in ["instance-1", "instance-2"] {
        let endpoint = TestEndpoint::to_logic("chat");
        let builder = Broke::builder()
            .instance(name)
            .endpoint(endpoint.clone())
            .cluster(cluster.clone())
            .logic(Logic::dispatched("chat", |message, ctx| {
                ctx.broadcast(message)?;
                Ok(())
            }));
        started.push((start(builder).await, endpoint));
    }
    let pair = started.try_into();
    pair.unwrap_or_else(|_| panic!("they are two"))
}

/// Waits, for ten seconds at most, until the other instance knows it.
async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to be");
}

#[tokio::test]
async fn clients_are_found_and_reached_on_every_instance() {
    let [(one, first), (two, second)] = pair(&MemoryCluster::new()).await;
    let (mut ann, mut bob) = (connect(&first).await, connect(&second).await);
    assert_eq!(one.instances(), ["instance-2"]);
    eventually(async || one.clients().await.len() == 2).await;
    assert!(!one.clients().await.partial, "they are all");
    assert_eq!(one.local_clients().len(), 1, "local only");
    let info = known(&one, &bob).await;
    assert_eq!(info.instance, "instance-2");
    one.send(Message::text("to bob").to_client(bob.id()))
        .expect("it is sent");
    assert_eq!(bob.next_text().await.as_deref(), Some("to bob"));
    two.send(Message::text("to ann").to_client(ann.id()))
        .expect("it is sent");
    assert_eq!(ann.next_text().await.as_deref(), Some("to ann"));
    assert!(one.disconnect(bob.id(), CloseReason::Kicked("enough".into())));
    assert_eq!(bob.closed().await, Some((4002, "enough".to_owned())));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn metadata_and_last_message_are_the_same_on_every_instance() {
    let [(one, first), (two, second)] = pair(&MemoryCluster::new()).await;
    let (ann, _bob) = (connect(&first).await, connect(&second).await);
    let here = one.local_client(ann.id()).expect("she is connected");
    here.set_metadata("name", "Ann");
    // Times are in milliseconds: until one has passed, a message is as old as its connection.
    eventually(async || {
        ann.send("hello").await;
        here.last_message() > here.connected_at()
    })
    .await;
    eventually(async || {
        let there = two.client(ann.id()).await.ok().flatten();
        there.is_some_and(|there| {
            there.metadata.get("name").is_some_and(|name| name == "Ann")
                && there.last_message_at() == here.last_message()
        })
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_one_instance_sends_the_other_does_not_send_back() {
    let [(one, first), (two, second)] = pair(&MemoryCluster::new()).await;
    let (mut ann, mut bob) = (connect(&first).await, connect(&second).await);
    ann.send("hello").await;
    ann.send("bye").await;
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.next_text().await.as_deref(), Some("hello"));
        assert_eq!(client.next_text().await.as_deref(), Some("bye"));
    }
    let count = |broke: &Broke| broke.stats().cluster.expect("it is in a cluster");
    assert_eq!((count(&one).sent, count(&two).received), (2, 2));
    assert_eq!((count(&two).sent, count(&one).received), (0, 0));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn an_instance_that_died_takes_its_clients_with_it() {
    let cluster = MemoryCluster::new().lease(Duration::from_millis(200));
    let [(one, first), (two, second)] = pair(&cluster).await;
    let (_ann, bob) = (connect(&first).await, connect(&second).await);
    eventually(async || one.clients().await.len() == 2).await;
    cluster.kill("instance-2");
    eventually(async || one.clients().await.len() == 1).await;
    assert!(matches!(one.client(bob.id()).await, Ok(None)));
    assert!(one.instances().is_empty());
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn without_the_cluster_local_traffic_goes_on() {
    let cluster = MemoryCluster::new();
    let [(one, first), (two, _second)] = pair(&cluster).await;
    let (mut ann, mut bob) = (connect(&first).await, connect(&first).await);
    assert!(one.is_ready());
    cluster.away("instance-1", true);
    eventually(async || !one.is_ready()).await;
    ann.send("hello").await;
    assert_eq!(ann.next_text().await.as_deref(), Some("hello"));
    assert_eq!(bob.next_text().await.as_deref(), Some("hello"));
    let listed = one.clients().await;
    assert!(listed.partial && listed.len() == 2, "what is here");
    cluster.away("instance-1", false);
    eventually(async || one.is_ready()).await;
    assert!(!one.clients().await.partial);
    one.stop().await;
    two.stop().await;
}

/// The guide promises a test for every row; each one that it names is looked for where it says.
#[test]
fn every_row_of_the_guide_names_a_test_that_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = include_str!("../src/docs/from_go.md");
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| Go ");
    let mut named = 0;
    for row in guide.lines().filter(is_row) {
        let tests: Vec<_> = row
            .split('`')
            .filter_map(|code| code.split_once(".rs::"))
            .collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for (file, name) in tests {
            // In this crate, or, in the workspace, in one beside it.
            let here = root.join(format!("{file}.rs"));
            let file = match here.exists() {
                true => here,
                false => root.with_file_name(format!("{file}.rs")),
            };
            let source = std::fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let function = format!("fn {name}(");
            assert!(
                source.contains(&function),
                "{}: no {function}",
                file.display()
            );
            named += 1;
        }
    }
    assert!(named > 30, "the table has moved: {named}");
}
