//! Who says nothing is asked, and who does not answer is gone: in tokio's paused time.

use std::time::Duration;

use gobroke_core::{
    Broke, Logic,
    testing::{Received, TestClient, TestEndpoint},
};
use tokio::time::Instant;

/// What the shared clock may be late by, and the ticks that count as begun.
const SLACK: Duration = Duration::from_millis(1000);

async fn start() -> (Broke, TestClient) {
    let endpoint = TestEndpoint::to_logic("wait");
    let wait = Logic::dispatched_async("wait", async |_, _| std::future::pending().await);
    let broke = Broke::builder()
        .drain(Duration::ZERO)
        .endpoint(endpoint.clone())
        .logic(wait.in_flight(1))
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    assert!(matches!(client.frame().await, Some(Received::Welcome(_))));
    (broke, client)
}

fn is_about(what: Duration, expected: Duration) -> bool {
    what >= expected.saturating_sub(SLACK) && what <= expected + SLACK
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_after_25_s_and_closed_as_idle_10_s_later() {
    let (broke, mut client) = start().await;
    let began = Instant::now();
    assert!(matches!(client.frame().await, Some(Received::Ping)));
    assert!(
        is_about(began.elapsed(), Duration::from_secs(25)),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(client.closed().await, Some((4001, "idle".to_owned())));
    assert!(
        is_about(began.elapsed(), Duration::from_secs(35)),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(broke.stats().idle, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pong_keeps_a_client_that_says_nothing() {
    let (broke, mut client) = start().await;
    let began = Instant::now();
    for _ in 0..10 {
        assert!(matches!(client.frame().await, Some(Received::Ping)));
        client.pong().await;
    }
    assert!(
        began.elapsed() > Duration::from_secs(249),
        "{:?}",
        began.elapsed()
    );
    assert_eq!((broke.stats().idle, broke.stats().clients), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_pong_deadline_stands_still_while_the_door_waits_for_logic() {
    let (broke, mut client) = start().await;
    // The first is handled for ever; each of the others waits 10 s at the door, and then is answered `busy`.
    for _ in 0..6 {
        client.send("x").await;
    }
    let mut busy = 0;
    while busy < 5 {
        match client.frame().await {
            Some(Received::Error { code, .. }) => {
                assert_eq!(code, "busy");
                busy += 1;
            }
            Some(Received::Ping) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((broke.stats().idle, broke.stats().busy), (0, 5));
}
