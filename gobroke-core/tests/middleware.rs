//! Middleware: in order, once, and able to change, tag and reject.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use gobroke_core::{
    Broke, BrokeBuilder, Logic, Message, SendError,
    testing::{Received, TestEndpoint},
};

fn builder(endpoint: &TestEndpoint) -> BrokeBuilder {
    Broke::builder()
        .drain(Duration::ZERO)
        .endpoint(endpoint.clone())
}

fn append(text: &'static str) -> impl Fn(&mut Message) + Send + Sync + 'static {
    move |message| {
        let payload = [message.payload(), text.as_bytes()].concat();
        message.set_payload(payload);
    }
}

fn echo() -> Logic {
    Logic::dispatched("echo", |message, ctx| {
        ctx.reply(&message, message.clone())?;
        Ok(())
    })
}

#[tokio::test]
async fn it_runs_in_the_order_of_attachment_plain_and_async_mixed() {
    let endpoint = TestEndpoint::to_logic("echo");
    let _broke = builder(&endpoint)
        .receive_middleware(append("1"))
        .receive_middleware_async(async |mut message: Message| {
            tokio::task::yield_now().await;
            append("2")(&mut message);
            message
        })
        .receive_middleware(append("3"))
        .send_middleware(append("4"))
        .send_middleware(append("5"))
        .logic(echo())
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    client
        .send_all(vec![Message::new("a"), Message::new("b")])
        .await;
    assert_eq!(client.next_text().await.as_deref(), Some("a12345"));
    assert_eq!(client.next_text().await.as_deref(), Some("b12345"));
}

#[tokio::test]
async fn what_it_rejects_goes_no_further_and_the_sender_is_told_why() {
    let endpoint = TestEndpoint::to_logic("echo");
    let behind = Arc::new(AtomicU32::new(0));
    let seen = behind.clone();
    let broke = builder(&endpoint)
        .receive_middleware(|message: &mut Message| {
            if message.payload().len() > 3 {
                message.reject("too large");
            }
        })
        .receive_middleware(move |_: &mut Message| {
            seen.fetch_add(1, Relaxed);
        })
        .send_middleware(|message: &mut Message| {
            if message.payload().as_ref() == b"no" {
                message.reject("not that");
            }
        })
        .logic(echo())
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    client
        .send_all(vec![Message::new("long"), Message::new("ok")])
        .await;
    assert!(matches!(client.frame().await, Some(Received::Welcome(_))));
    match client.frame().await {
        Some(Received::Error { code, message }) => {
            assert_eq!((&*code, &*message), ("rejected", "too large"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.next_text().await.as_deref(), Some("ok"));
    assert_eq!(behind.load(Relaxed), 1);
    let sent = broke.send(Message::new("no").to_all());
    assert!(matches!(sent, Err(SendError::Rejected { reason }) if reason == "not that"));
    assert_eq!(broke.stats().rejected, 2);
}

#[tokio::test]
async fn tags_and_extensions_reach_logic() {
    #[derive(PartialEq, Debug)]
    struct Verified(u32);
    let endpoint = TestEndpoint::to_logic("check");
    let _broke = builder(&endpoint)
        .receive_middleware(|message: &mut Message| {
            message.add_tag("priority", "high");
            message.set_extension(Verified(7));
        })
        .logic(Logic::worker("check", |message, ctx| {
            let text = format!(
                "{:?} {:?}",
                message.tag("priority"),
                message.extension::<Verified>()
            );
            ctx.reply(&message, Message::text(text))?;
            Ok(())
        }))
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    client.send("x").await;
    assert_eq!(
        client.next_text().await.as_deref(),
        Some("Some(String(\"high\")) Some(Verified(7))")
    );
}

#[tokio::test]
async fn it_does_not_run_again_for_a_message_that_had_to_wait_for_room() {
    let endpoint = TestEndpoint::to_logic("echo");
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let echo = Logic::worker("echo", |message, ctx| {
        ctx.reply(&message, message.clone())?;
        Ok(())
    });
    let _broke = builder(&endpoint)
        .receive_middleware(move |_: &mut Message| {
            counted.fetch_add(1, Relaxed);
        })
        .logic(echo.queue(2, 1 << 20))
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    client
        .send_all(
            (0..50)
                .map(|number| Message::new(number.to_string()))
                .collect(),
        )
        .await;
    for number in 0..50 {
        assert_eq!(client.next_text().await, Some(number.to_string()));
    }
    assert_eq!(runs.load(Relaxed), 50);
}

/// A mirror that meets what it sends itself.
#[tokio::test]
async fn a_step_that_sends_a_message_to_logic_again_is_stopped_after_32_hops() {
    let refused = Arc::new(OnceLock::new());
    let broke: Arc<OnceLock<Broke>> = Arc::default();
    let (mirror, told) = (broke.clone(), refused.clone());
    let started = Broke::builder()
        .send_middleware(move |message| {
            let again = mirror.get().map(|broke| broke.send(message.clone()));
            if let Some(Err(SendError::TooManyHops { hops })) = again {
                let _ = told.set(hops);
            }
        })
        .logic(Logic::dispatched("sink", |_, _| Ok(())))
        .start()
        .await
        .expect("it starts");
    let started = broke.get_or_init(|| started);
    started
        .send(Message::new("x").to_logic("sink"))
        .expect("the first is sent");
    assert_eq!(refused.get(), Some(&33));
    started.stop().await;
}
