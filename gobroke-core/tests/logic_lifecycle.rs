//! Logic that comes and goes while the router runs, and what it reaches meanwhile.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails by a panic has done its work"
)]

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use common::{Frame, Lean, Peer, Random, start, until, within};
use gobroke_core::{
    AddLogicError, Broke, ClientId, CloseReason, Logic, LogicContext, Message, Reach, SendError,
    Targets,
    testing::{TestClient, TestEndpoint},
};

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

/// Answers with a word.
fn says(name: &'static str, word: &'static str) -> Logic {
    Logic::dispatched(name, move |message, ctx| {
        ctx.reply(&message, Message::text(word))?;
        Ok(())
    })
}

/// From the moment at which a module is taken away messages for it are refused; those accepted before are handled.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_module_that_is_removed_handles_every_message_that_was_accepted() {
    let endpoint = nowhere();
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut random = Random::seeded("removing");
    for round in 0..150 {
        let handled = Arc::new(AtomicUsize::new(0));
        let count = handled.clone();
        let done = move || count.fetch_add(1, Relaxed);
        let logic = match round % 4 {
            0 => Logic::dispatched("it", move |_, _| {
                done();
                Ok(())
            }),
            1 => Logic::worker("it", move |_, _| {
                done();
                Ok(())
            }),
            2 => Logic::dispatched_async("it", move |_, _| {
                let done = done.clone();
                async move {
                    tokio::task::yield_now().await;
                    done();
                    Ok(())
                }
            }),
            _ => Logic::worker_async("it", move |_, _| {
                let done = done.clone();
                async move {
                    tokio::task::yield_now().await;
                    done();
                    Ok(())
                }
            }),
        };
        broke.add_logic(logic).unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let senders: Vec<_> = (0..3)
            .map(|index| {
                let (broke, accepted) = (broke.clone(), accepted.clone());
                let send = move || loop {
                    match broke.send(Message::new("x").to_logic("it")) {
                        Ok(_) => {
                            accepted.fetch_add(1, Relaxed);
                        }
                        Err(SendError::Full { .. }) => std::thread::yield_now(),
                        Err(SendError::UnknownLogic(_)) => return,
                        Err(error) => panic!("{error}"),
                    }
                };
                // From a task, and from threads that know no runtime.
                match index {
                    0 => tokio::task::spawn_blocking(send),
                    _ => tokio::task::spawn_blocking(move || {
                        std::thread::spawn(send).join().unwrap();
                    }),
                }
            })
            .collect();
        let enough = random.below(300);
        until("some are accepted", || accepted.load(Relaxed) >= enough).await;
        assert!(within(broke.remove_logic("it")).await);
        let handled_then = handled.load(Relaxed);
        for sender in senders {
            within(sender).await.unwrap();
        }
        assert_eq!(handled_then, accepted.load(Relaxed), "round {round}");
        assert_eq!(handled.load(Relaxed), handled_then);
    }
    broke.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_clients_send_to_a_module_that_is_removed_is_handled_or_answered() {
    let endpoint = nowhere();
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    for round in 0..20 {
        let echo = |message: Message, ctx: &LogicContext| {
            ctx.reply(&message, message.clone())?;
            Ok(())
        };
        broke
            .add_logic(match round % 2 {
                0 => Logic::dispatched("it", echo),
                _ => Logic::worker("it", echo),
            })
            .unwrap();
        let Peer {
            sender, mut ears, ..
        } = Peer::connect(&endpoint, &Arc::new(Lean(0)), 64 << 10).await;
        let sending = tokio::spawn(async move {
            for number in 0..100u8 {
                let batch = (0..10).map(|_| Message::new(vec![number]).to_logic("it"));
                sender.send(batch.collect()).await.unwrap();
                tokio::task::yield_now().await;
            }
            sender
        });
        let (mut handled, mut refused) = (0, 0);
        let mut removing = None;
        while handled + refused < 1_000 {
            match within(ears.next()).await {
                Some(Frame::Message(_)) => {
                    handled += 1;
                    if handled == 100 {
                        let broke = broke.clone();
                        removing =
                            Some(tokio::spawn(async move { broke.remove_logic("it").await }));
                    }
                }
                Some(Frame::Error(code)) => {
                    assert_eq!(code, "unknown_logic");
                    refused += 1;
                }
                Some(Frame::Welcome) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(handled >= 100);
        assert!(within(removing.unwrap()).await.unwrap());
        drop(sending.await.unwrap());
    }
    broke.stop().await;
}

#[tokio::test]
async fn modules_come_and_go_and_a_name_is_taken_once() {
    let endpoint = nowhere();
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut client = endpoint.connect().await.unwrap();
    broke.add_logic(says("it", "first")).unwrap();
    let taken = AddLogicError::Duplicate("it".into());
    assert_eq!(broke.add_logic(says("it", "second")), Err(taken));
    assert_eq!(broke.logic(), ["it"]);
    assert_eq!(ask(&mut client, "it", "x").await.as_deref(), Some("first"));

    // The name is free as soon as the module is taken away, though it still has something to do.
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = Mutex::new(Some(released));
    broke
        .add_logic(Logic::dispatched_async("busy", move |message, ctx| {
            let released = released.lock().unwrap().take();
            async move {
                released.ok_or("once")?.await?;
                assert!(!ctx.is_cancelled());
                ctx.reply(&message, Message::text("old"))?;
                Ok(())
            }
        }))
        .unwrap();
    client
        .send_message(Message::text("x").to_logic("busy"))
        .await;
    until("it is at it", || broke.stats().logic["busy"].in_flight == 1).await;
    let removing = tokio::spawn({
        let broke = broke.clone();
        async move { broke.remove_logic("busy").await }
    });
    until("the name is free", || {
        !broke.logic().contains(&"busy".into())
    })
    .await;
    broke.add_logic(says("busy", "new")).unwrap();
    assert_eq!(ask(&mut client, "busy", "x").await.as_deref(), Some("new"));
    assert!(!removing.is_finished());
    release.send(()).unwrap();
    assert_eq!(client.next_text().await.as_deref(), Some("old"));
    assert!(within(removing).await.unwrap());
    assert_eq!(ask(&mut client, "busy", "x").await.as_deref(), Some("new"));

    // A module may take itself away, by a task of its own.
    broke
        .add_logic(Logic::dispatched("once", |message, ctx| {
            ctx.reply(&message, Message::text("bye"))?;
            let ctx = ctx.clone();
            tokio::spawn(async move { ctx.remove_logic("once").await });
            Ok(())
        }))
        .unwrap();
    assert_eq!(ask(&mut client, "once", "x").await.as_deref(), Some("bye"));
    until("it is gone", || !broke.logic().contains(&"once".into())).await;
    broke.stop().await;
    assert_eq!(
        broke.add_logic(says("late", "never")),
        Err(AddLogicError::Stopped)
    );
}

#[tokio::test]
async fn a_context_reaches_clients_groups_and_other_modules() {
    let endpoint = nowhere();
    let cancelled = Arc::new(AtomicBool::new(false));
    let seen = cancelled.clone();
    let front = Logic::dispatched("front", |message, ctx| {
        assert_eq!(ctx.name().as_str(), "front");
        let Some(client) = message.client() else {
            // The answer of another module; whom it is for stands in a tag.
            let client: ClientId = serde_json::from_value(message.tag("for").unwrap().clone())?;
            let mut answer = message;
            answer.targets_mut().clear();
            ctx.send(answer.to_client(client))?;
            return Ok(());
        };
        let reach: &Reach = ctx;
        let word = text(&message);
        let answer = match &*word {
            "join" => format!("{} {}", ctx.join(client, "room"), ctx.join(client, "room")),
            "leave" => format!(
                "{} {}",
                ctx.leave(client, "room"),
                ctx.leave(client, "room")
            ),
            "room" => format!("{} {:?}", ctx.group_size("room"), ctx.groups()),
            "count" => format!(
                "{} {}",
                ctx.local_clients().len(),
                reach.local_client_count()
            ),
            "go" => format!(
                "{}",
                ctx.disconnect(client, CloseReason::Kicked("out".into()))
            ),
            "others" => {
                ctx.broadcast(Message::text("hello, others").except(client))?;
                return Ok(());
            }
            "back" => {
                let question = Message::text("who?").with_tag("for", serde_json::to_value(client)?);
                ctx.send(question.to_logic("back"))?;
                return Ok(());
            }
            _ => return Err("what?".into()),
        };
        ctx.reply(&message, Message::text(answer))?;
        Ok(())
    });
    let back = Logic::worker_async("back", move |message: Message, ctx: LogicContext| {
        let seen = seen.clone();
        async move {
            // An answer to a module goes through its queue.
            let answer = Message::text(format!("{} asked {}", "front", text(&message)));
            let answer = answer.with_tag("for", message.tag("for").unwrap().clone());
            ctx.reply(&message, answer)?;
            let token = ctx.cancellation().clone();
            tokio::spawn(async move {
                token.cancelled().await;
                seen.store(true, Relaxed);
            });
            Ok(())
        }
    });
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(front)
            .logic(back),
    )
    .await;
    let mut client = endpoint.connect().await.unwrap();
    let mut other = endpoint.connect().await.unwrap();
    for (word, answer) in [
        ("join", "true false"),
        ("room", "1 [\"room\"]"),
        ("leave", "true false"),
        ("count", "2 2"),
        ("back", "front asked who?"),
    ] {
        assert_eq!(
            ask(&mut client, "front", word).await.as_deref(),
            Some(answer)
        );
    }
    client
        .send_message(Message::text("others").to_logic("front"))
        .await;
    assert_eq!(other.next_text().await.as_deref(), Some("hello, others"));
    assert_eq!(
        ask(&mut client, "front", "room").await.as_deref(),
        Some("0 []")
    );
    assert!(broke.remove_logic("back").await);
    until("its cancellation is seen", || cancelled.load(Relaxed)).await;
    // What it is told behind its own close is not for it.
    client
        .send_message(Message::text("go").to_logic("front"))
        .await;
    assert_eq!(client.closed().await, Some((4002, "out".to_owned())));
    broke.stop().await;
}

/// Without a cluster, a module that runs once runs here; what is for an instance that is not there waits, bounded, and is
/// refused beyond; and a dispatched module runs where its messages are.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn modules_that_run_once_or_elsewhere_do_so_without_a_cluster_too() {
    let endpoint = nowhere();
    let once = Logic::worker("once", |message, ctx| {
        let token = ctx.fencing_token().is_some_and(|token| token > 0);
        ctx.reply(&message, Message::text(format!("once {token}")))?;
        Ok(())
    });
    let elsewhere = || Logic::worker("elsewhere", |_, _| Ok(())).queue(4, 1 << 20);
    let builder = Broke::builder().instance("here").endpoint(endpoint.clone());
    let broke = start(
        builder
            .drain(std::time::Duration::from_millis(200))
            .logic(once.singleton())
            .logic(elsewhere().on_instance("there")),
    )
    .await;
    let mut ann = endpoint.connect().await.unwrap();
    assert_eq!(
        ask(&mut ann, "once", "?").await.as_deref(),
        Some("once true")
    );
    assert_eq!(broke.runs_on("once").as_deref(), Some("here"));
    assert_eq!(broke.runs_on("elsewhere"), None);
    for _ in 0..4 {
        broke.send(Message::new("x").to_logic("elsewhere")).unwrap();
    }
    let refused = broke.send(Message::new("x").to_logic("elsewhere"));
    assert!(
        matches!(refused, Err(SendError::Full { .. })),
        "{refused:?}"
    );
    let placed = says("says", "it").singleton();
    let refused = broke.add_logic(placed).unwrap_err();
    assert_eq!(refused, AddLogicError::Dispatched("says".into()));
    broke.remove_logic("elsewhere").await;
    broke.add_logic(elsewhere().on_instance("here")).unwrap();
    assert_eq!(broke.runs_on("elsewhere").as_deref(), Some("here"));
    broke.stop().await;
}
