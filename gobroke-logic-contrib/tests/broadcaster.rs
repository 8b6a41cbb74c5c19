//! What the broadcaster promises.

#![cfg(feature = "broadcaster")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use gobroke_core::{Broke, Format, Logic, Message};
use gobroke_logic_contrib::Broadcaster;

use self::support::Server;

async fn server(broadcaster: Broadcaster) -> Server {
    // A message straight back, to know that nothing else was on its way.
    let mark = Logic::dispatched("mark", |message, ctx| {
        Ok(ctx.reply(&message, Message::text("mark")).map(drop)?)
    });
    Server::start(Broke::builder().logic(broadcaster).logic(mark), "chat").await
}

#[tokio::test]
async fn all_get_what_one_says_and_the_sender_too() {
    for broadcaster in [Broadcaster::dispatched("chat"), Broadcaster::worker("chat")] {
        let server = server(broadcaster).await;
        let (mut ann, mut bob) = (server.connect().await, server.connect().await);
        ann.sends(Message::text("one").to_logic("chat")).await;
        ann.sends(Message::new(vec![2]).to_logic("chat")).await;
        for person in [&mut ann, &mut bob] {
            let message = person.receives().await;
            assert_eq!(
                (message.payload().as_ref(), message.format()),
                (&b"one"[..], Format::Text)
            );
            let message = person.receives().await;
            assert_eq!(
                (message.payload().as_ref(), message.format()),
                (&[2][..], Format::Binary)
            );
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_group_hears_it_and_nobody_else_and_the_sender_only_if_wanted() {
    let server = server(
        Broadcaster::dispatched("chat")
            .to_group("lobby")
            .except_sender(),
    )
    .await;
    let (mut ann, mut bob, mut cid) = (
        server.connect().await,
        server.connect().await,
        server.connect().await,
    );
    for person in [&ann, &bob] {
        assert!(
            server
                .broke
                .local_client(person.id())
                .unwrap()
                .join("lobby")
        );
    }
    ann.sends(Message::text("hi").to_logic("chat")).await;
    assert_eq!(bob.receives().await.payload().as_ref(), b"hi");
    for person in [&mut ann, &mut cid] {
        person.sends(Message::text("").to_logic("mark")).await;
        assert_eq!(person.receives().await.payload().as_ref(), b"mark");
    }
    server.stop().await;
}
