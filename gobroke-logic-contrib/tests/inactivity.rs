//! What the inactivity monitor promises.

#![cfg(feature = "inactivity")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::time::Duration;

use gobroke_core::{Broke, Logic, Message};
use gobroke_logic_contrib::InactivityMonitor;
use tokio::time::{Instant, advance};

use self::support::Server;

const TIMEOUT: Duration = Duration::from_secs(60);
/// How late the monitor may be.
const LATE: Duration = Duration::from_millis(6500);

async fn server(monitor: InactivityMonitor) -> Server {
    Server::start(
        Broke::builder()
            .logic(monitor)
            .logic(Logic::dispatched("hear", |_, _| Ok(()))),
        "hear",
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_is_disconnected_and_who_talks_stays() {
    let server = server(InactivityMonitor::passive("inactivity", TIMEOUT)).await;
    let (mut ann, mut bob) = (server.connect().await, server.connect().await);
    let start = Instant::now();
    for _ in 0..2 {
        advance(TIMEOUT / 3).await;
        bob.sends(Message::text("here").to_logic("hear")).await;
    }
    assert_eq!(ann.is_closed_with().await, (4001, "idle".to_owned()));
    assert!(
        (TIMEOUT..=TIMEOUT + LATE).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(bob.is_closed_with().await, (4001, "idle".to_owned()));
    assert!(start.elapsed() >= TIMEOUT * 5 / 3, "{:?}", start.elapsed());
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_warning_comes_before_once_for_each_silence() {
    let warning = Message::text("still there?");
    let server =
        server(InactivityMonitor::passive("inactivity", TIMEOUT).warning(TIMEOUT / 2, warning))
            .await;
    let mut ann = server.connect().await;
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(ann.receives().await.payload().as_ref(), b"still there?");
        assert!(
            (TIMEOUT / 2..=TIMEOUT / 2 + LATE).contains(&start.elapsed()),
            "{:?}",
            start.elapsed()
        );
        ann.sends(Message::text("yes").to_logic("hear")).await;
    }
    assert_eq!(ann.receives().await.payload().as_ref(), b"still there?");
    // Nothing but the end is behind it.
    assert_eq!(ann.is_closed_with().await, (4001, "idle".to_owned()));
    server.stop().await;
}
