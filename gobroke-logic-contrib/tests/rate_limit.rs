//! What the rate limit promises.

#![cfg(feature = "rate_limit")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::time::Duration;

use gobroke_core::{Broke, Logic, Message};
use gobroke_logic_contrib::RateLimit;
use tokio::time::advance;

use self::support::Server;

async fn server(limit: RateLimit) -> Server {
    let answer = Logic::dispatched("answer", |message, ctx| {
        Ok(ctx.reply(&message, message.clone()).map(drop)?)
    });
    Server::start(
        Broke::builder()
            .receive_middleware(limit.into_middleware())
            .logic(answer),
        "answer",
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn who_says_too_much_is_told_and_may_go_on_later() {
    let server = server(RateLimit::per_client().messages(10, 2)).await;
    let mut ann = server.connect().await;
    for text in ["one", "two", "three"] {
        ann.sends(Message::text(text).to_logic("answer")).await;
    }
    assert_eq!(ann.receives().await.payload().as_ref(), b"one");
    assert_eq!(ann.receives().await.payload().as_ref(), b"two");
    assert_eq!(
        ann.is_told().await,
        (
            "rejected".to_owned(),
            "more than 10 messages a second; slow down".to_owned()
        )
    );
    advance(Duration::from_millis(100)).await;
    ann.sends(Message::text("four").to_logic("answer")).await;
    assert_eq!(ann.receives().await.payload().as_ref(), b"four");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_says_too_much_is_disconnected_where_that_is_wanted() {
    let server = server(RateLimit::per_client().bytes(10, 4).disconnect()).await;
    let (mut ann, mut bob) = (server.connect().await, server.connect().await);
    ann.sends(Message::text("four").to_logic("answer")).await;
    assert_eq!(ann.receives().await.payload().as_ref(), b"four");
    ann.sends(Message::text("more").to_logic("answer")).await;
    let reason = "more than 10 bytes a second; slow down";
    assert_eq!(
        ann.is_told().await,
        ("rejected".to_owned(), reason.to_owned())
    );
    assert_eq!(ann.is_closed_with().await, (1008, reason.to_owned()));
    bob.sends(Message::text("mine").to_logic("answer")).await;
    assert_eq!(bob.receives().await.payload().as_ref(), b"mine");
    server.stop().await;
}
