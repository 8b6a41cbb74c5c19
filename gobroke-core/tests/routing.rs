//! Where messages go: clients, groups, everyone, logic, in any mix, once each and in order.

use std::time::Duration;

use gobroke_core::{
    Broke, CloseReason, Logic, Message, SendError, Source, Targets,
    testing::{Received, TestEndpoint},
};

async fn start(endpoint: &TestEndpoint, logic: Vec<Logic>) -> Broke {
    let mut builder = Broke::builder().instance("here").endpoint(endpoint.clone());
    for module in logic {
        builder = builder.logic(module);
    }
    builder.start().await.expect("it starts")
}

fn echo() -> Logic {
    Logic::dispatched("echo", |message, ctx| {
        ctx.reply(&message, message.clone())?;
        Ok(())
    })
}

#[tokio::test]
async fn a_client_hears_what_it_says_to_echo() {
    let endpoint = TestEndpoint::to_logic("echo");
    let broke = start(&endpoint, vec![echo()]).await;
    let mut client = endpoint.connect().await.expect("it is admitted");
    client.send("one").await;
    client
        .send_all(vec![Message::new("two"), Message::new("three")])
        .await;
    for expected in ["one", "two", "three"] {
        assert_eq!(client.next_text().await.as_deref(), Some(expected));
    }
    broke.stop().await;
    assert_eq!(client.closed().await, Some((1001, "going away".to_owned())));
}

#[tokio::test]
async fn what_is_sent_back_reaches_its_sender_as_the_same_message() {
    let endpoint = TestEndpoint::to_logic("asks");
    let (refused, mut was_refused) = tokio::sync::mpsc::unbounded_channel();
    // A client's message goes from one module to the other under the client's name, and back to the client from there.
    let asks = Logic::dispatched("asks", |mut message, ctx| {
        match message.payload().as_ref() {
            b"own" => {
                ctx.send(Message::new("from logic").to_logic("returns"))?;
            }
            b"from logic" => {
                assert_eq!(message.source(), &Source::Logic("returns".into()));
                ctx.broadcast(Message::new("came back"))?;
            }
            _ => {
                message.set_payload("changed");
                ctx.send_back(message.with_metadata("kept", 1))?;
            }
        }
        Ok(())
    });
    let returns = Logic::dispatched("returns", move |message, ctx| {
        if let Err(error) = ctx.send_back(message) {
            let _ = refused.send(error);
        }
        Ok(())
    });
    let broke = start(&endpoint, vec![asks, returns]).await;
    let mut client = endpoint.connect().await.expect("it is admitted");
    let asked = Message::new("changes");
    let id = asked.id();
    client.send_all(vec![asked]).await;
    let answer = client.next().await.expect("it is answered");
    assert_eq!(
        (answer.id(), answer.payload().as_ref()),
        (id, &b"changed"[..])
    );
    assert_eq!(answer.metadata().get("kept"), Some(&1.into()));
    client.send("own").await;
    assert_eq!(client.next_text().await.as_deref(), Some("came back"));
    broke
        .send(Message::new("nobody's").to_logic("returns"))
        .expect("it is sent");
    let error = was_refused.recv().await.expect("it is refused");
    assert!(matches!(error, SendError::NoSender), "{error}");
    broke.stop().await;
}

#[tokio::test]
async fn messages_of_one_read_go_each_to_its_own_logic_in_order() {
    let endpoint = TestEndpoint::new(Targets::default());
    let named = |name: &'static str| {
        Logic::dispatched(name, move |message, ctx| {
            let text = String::from_utf8_lossy(message.payload());
            ctx.reply(&message, Message::text(format!("{name} {text}")))?;
            // What the next message meets is not what this one looked up.
            ctx.send(Message::new("x").to_logic("aside"))?;
            Ok(())
        })
    };
    let aside = Logic::dispatched("aside", |_, _| Ok(()));
    let _broke = start(&endpoint, vec![named("a"), named("b"), aside]).await;
    let mut client = endpoint.connect().await.expect("it is admitted");
    let to = ["a", "b", "b", "a", "gone", "a"];
    let messages = (0..).zip(to);
    let messages = messages.map(|(number, to)| Message::new(number.to_string()).to_logic(to));
    client.send_all(messages.collect()).await;
    for expected in ["a 0", "b 1", "b 2", "a 3"] {
        assert_eq!(client.next_text().await.as_deref(), Some(expected));
    }
    let Some(Received::Error { code, .. }) = client.frame().await else {
        panic!("no logic is called gone");
    };
    assert_eq!(code, "unknown_logic");
    assert_eq!(client.next_text().await.as_deref(), Some("a 5"));
}

#[tokio::test]
async fn a_mix_of_targets_reaches_each_client_once() {
    let endpoint = TestEndpoint::to_logic("none");
    let broke = start(&endpoint, vec![]).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(endpoint.connect().await.expect("it is admitted"));
    }
    assert!(broke.join(clients[1].id(), "room"));
    assert!(broke.join(clients[2].id(), "room"));
    assert!(!broke.join(clients[2].id(), "room"), "it is in it already");
    let receipt = broke
        .send(
            Message::new("mix")
                .to_group("room")
                .to_client(clients[1].id())
                .to_client(clients[0].id()),
        )
        .expect("it is sent");
    assert_eq!(receipt.clients, 4, "target by target");
    broke
        .send(
            Message::new("all")
                .to_all()
                .to_group("room")
                .except(clients[2].id()),
        )
        .expect("it is sent");
    broke
        .send(Message::new("end").to_all())
        .expect("it is sent");
    let expected: [&[&str]; 4] = [
        &["mix", "all", "end"],
        &["mix", "all", "end"],
        &["mix", "end"],
        &["all", "end"],
    ];
    for (client, expected) in clients.iter_mut().zip(expected) {
        for expected in expected {
            assert_eq!(client.next_text().await.as_deref(), Some(*expected));
        }
    }
    broke.stop().await;
}

#[tokio::test]
async fn unknown_targets_are_told() {
    let endpoint = TestEndpoint::to_logic("nobody");
    let broke = start(
        &endpoint,
        vec![Logic::passive("tick", async |ctx| {
            ctx.cancelled().await;
            Ok(())
        })],
    )
    .await;
    assert!(matches!(
        broke.send(Message::new("x")),
        Err(SendError::NoTarget)
    ));
    assert!(matches!(
        broke.send(Message::new("x").to_logic("nobody")),
        Err(SendError::UnknownLogic(_))
    ));
    assert!(matches!(
        broke.send(Message::new("x").to_logic("tick")),
        Err(SendError::PassiveLogic(_))
    ));
    let mut client = endpoint.connect().await.expect("it is admitted");
    let gone = endpoint.connect().await.expect("it is admitted").id();
    broke.disconnect(gone, CloseReason::Kicked("out".into()));
    let receipt = broke
        .send(Message::new("x").to_client(gone))
        .expect("it is counted");
    assert_eq!((receipt.clients, receipt.unknown), (0, 1));
    client.send("x").await;
    assert!(matches!(
        client.frame().await,
        Some(gobroke_core::testing::Received::Welcome(_))
    ));
    match client.frame().await {
        Some(gobroke_core::testing::Received::Error { code, .. }) => {
            assert_eq!(code, "unknown_logic");
        }
        other => panic!("{other:?}"),
    }
    broke.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passive_logic_may_send_to_any_other_at_once_in_whatever_order_they_are_added() {
    for _ in 0..5 {
        let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let mut builder = Broke::builder().logic(Logic::passive("first", async |ctx| {
            ctx.send(Message::new("now").to_logic("last"))?;
            ctx.cancelled().await;
            Ok(())
        }));
        for other in 0..100 {
            builder = builder.logic(Logic::dispatched(format!("other {other}"), |_, _| Ok(())));
        }
        let last = Logic::worker("last", move |_, _| Ok(heard.send(())?));
        let broke = builder.logic(last).start().await.expect("it starts");
        let heard = tokio::time::timeout(Duration::from_secs(10), hears.recv());
        assert_eq!(heard.await, Ok(Some(())));
        broke.stop().await;
    }
}
