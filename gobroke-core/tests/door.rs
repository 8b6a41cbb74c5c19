//! What the door does where there is no room: it waits, exactly as long as it must, and lets nothing through twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use gobroke_core::{
    Broke, BrokeBuilder, Logic, LogicContext, LogicResult, Message, Worker, async_trait,
    testing::{Received, TestEndpoint},
};

fn builder(endpoint: &TestEndpoint) -> BrokeBuilder {
    Broke::builder()
        .drain(Duration::ZERO)
        .endpoint(endpoint.clone())
}

#[tokio::test]
async fn a_message_that_found_its_lane_full_of_others_goes_on_when_there_is_room() {
    let endpoint = TestEndpoint::to_logic("none");
    let broke = builder(&endpoint)
        .lanes(1)
        .lane_bytes(10_000)
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    let id = client.id();
    assert!(matches!(client.frame().await, Some(Received::Welcome(_))));
    client
        .send_message(Message::new(vec![0; 2000]).to_client(id))
        .await;
    // On one thread: this fills the lane before the door's task and the lane's come to run.
    broke
        .send(Message::new(vec![0; 9000]).to_client(id))
        .expect("it fits");
    assert_eq!(
        client.next().await.map(|message| message.payload().len()),
        Some(9000)
    );
    assert_eq!(
        client.next().await.map(|message| message.payload().len()),
        Some(2000)
    );
}

#[tokio::test]
async fn a_message_too_large_for_what_is_left_of_a_queue_goes_on_when_there_is_enough() {
    let endpoint = TestEndpoint::to_logic("echo");
    let echo = Logic::worker("echo", |message, ctx| {
        ctx.reply(&message, message.clone())?;
        Ok(())
    });
    let _broke = builder(&endpoint)
        .logic(echo.queue(1024, 10_000))
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    client
        .send_all(vec![
            Message::new(vec![0; 4000]),
            Message::new(vec![0; 7000]),
        ])
        .await;
    assert_eq!(
        client.next().await.map(|message| message.payload().len()),
        Some(4000)
    );
    assert_eq!(
        client.next().await.map(|message| message.payload().len()),
        Some(7000)
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_handlers_wait_than_are_allowed_in_flight() {
    let endpoint = TestEndpoint::to_logic("wait");
    let wait = Logic::dispatched_async("wait", async |_, _| std::future::pending().await);
    let broke = builder(&endpoint)
        .logic(wait.in_flight(4))
        .start()
        .await
        .expect("it starts");
    let mut clients = Vec::new();
    for _ in 0..50 {
        let client = endpoint.connect().await.expect("it is admitted");
        client.send("x").await;
        clients.push(client);
    }
    let mut busy = 0;
    for client in &mut clients[4..] {
        while let Some(frame) = client.frame().await {
            if matches!(&frame, Received::Error { code, .. } if code == "busy") {
                busy += 1;
                break;
            }
        }
    }
    assert_eq!((busy, broke.stats().logic["wait"].in_flight), (46, 4));
}

#[tokio::test]
async fn a_rejected_message_is_not_counted_as_received() {
    let endpoint = TestEndpoint::to_logic("none");
    let reject = |message: &mut Message| message.reject("no");
    let broke = builder(&endpoint)
        .receive_middleware(reject)
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    client.send("x").await;
    assert!(matches!(client.frame().await, Some(Received::Welcome(_))));
    assert!(
        matches!(client.frame().await, Some(Received::Error { code, .. }) if code == "rejected")
    );
    assert_eq!((broke.stats().received, broke.stats().rejected), (0, 1));
}

#[tokio::test]
async fn middleware_that_panics_costs_its_message_and_nothing_else() {
    let endpoint = TestEndpoint::to_logic("echo");
    let broke = builder(&endpoint)
        .receive_middleware(|message: &mut Message| assert_ne!(message.payload().as_ref(), b"now"))
        .receive_middleware_async(async |message: Message| {
            assert_ne!(message.payload().as_ref(), b"later");
            message
        })
        .logic(Logic::dispatched("echo", |message, ctx| {
            ctx.reply(&message, message.clone())?;
            Ok(())
        }))
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    client
        .send_all(["now", "later", "fine"].map(Message::new).into())
        .await;
    assert_eq!(client.next_text().await.as_deref(), Some("fine"));
    assert_eq!((broke.stats().panics, broke.stats().received), (2, 1));
}

struct Panics;

#[async_trait]
impl Worker for Panics {
    async fn handle(&mut self, _: Message, _: &LogicContext) -> LogicResult {
        panic!("as it should");
    }
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_panics_is_asked_again() {
    let made = Arc::new(AtomicU32::new(0));
    let factory = {
        let made = made.clone();
        move || {
            assert_ne!(
                made.fetch_add(1, Relaxed),
                1,
                "the second time there is no database"
            );
            Panics
        }
    };
    let failures = Arc::new(AtomicU32::new(0));
    let told = failures.clone();
    let broke = Broke::builder()
        .logic(Logic::worker_factory("panics", factory))
        .on_error(move |_| {
            told.fetch_add(1, Relaxed);
        })
        .start()
        .await
        .expect("it starts");
    for _ in 0..3 {
        broke
            .send(Message::new("x").to_logic("panics"))
            .expect("there is room");
    }
    broke.stop().await;
    // Three messages, and the factory once.
    assert_eq!(failures.load(Relaxed), 4);
    assert_eq!(made.load(Relaxed), 5);
}
