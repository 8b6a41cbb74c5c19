//! Messages from one instance to the other, beside the way of the Go original.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use gobroke_core::{Message, testing::TestClient};
use tokio::sync::Semaphore;

use crate::{PAYLOAD, ROUNDS, original, rounds::Rounds, server::Server, two};

/// Both in turn, so that neither has the better hour.
pub(crate) async fn measure(server: &Server) {
    let (one, two, mut client) = two(server).await;
    let sender = Arc::new(one.endpoint.connect().await.unwrap());
    let (mut awaited, mut ours, mut times) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let (theirs, rate);
        theirs = original::rate(&server.url(), PAYLOAD, 50_000).await;
        (client, rate) = as_fast_as_it_goes(&sender, client).await;
        awaited.add(theirs / 1e3);
        ours.add(rate / 1e3);
        times.add(rate / theirs);
    }
    println!(
        "{PAYLOAD} bytes, {ROUNDS} rounds in turn; thousands of messages a second, median and spread"
    );
    println!(
        "  JSON and an awaited PUBLISH for each: {}",
        awaited.show(1)
    );
    println!(
        "  from a client of one instance to a client of the other: {}",
        ours.show(0)
    );
    println!("  times as many: {}", times.show(1));
    let (mut p50, mut p99) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let latencies;
        (client, latencies) = at_20_000_a_second(&sender, client).await;
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize] as f64 / 1e6;
        p50.add(at(0.5));
        p99.add(at(0.99));
    }
    println!(
        "at 20,000/s, in ms: p50 {}, p99 {}",
        p50.show(2),
        p99.show(2)
    );
    one.broke.stop().await;
    two.broke.stop().await;
}

/// Nothing but ours, to be looked at with `perf`.
pub(crate) async fn profile(server: &Server) {
    let (one, _two, mut client) = two(server).await;
    let sender = Arc::new(one.endpoint.connect().await.unwrap());
    for _ in 0..ROUNDS {
        let rate;
        (client, rate) = as_fast_as_it_goes(&sender, client).await;
        println!("{rate:.0} messages/s");
    }
}

/// From a client of one instance to a client of the other.
async fn as_fast_as_it_goes(from: &Arc<TestClient>, mut client: TestClient) -> (TestClient, f64) {
    const COUNT: u64 = 1_000_000;
    // Bounded by what is under way, as by clients that wait for answers.
    const UNDER_WAY: u64 = 10_000;
    // What one read gives.
    const AT_ONCE: u64 = 64;
    let room = Arc::new(Semaphore::new(UNDER_WAY as usize));
    let to = client.id();
    let begun = Instant::now();
    let sender = tokio::spawn({
        let (from, room) = (from.clone(), room.clone());
        async move {
            let payload = Bytes::from(vec![b'x'; PAYLOAD]);
            for _ in 0..COUNT / AT_ONCE {
                room.acquire_many(AT_ONCE as u32).await.unwrap().forget();
                let message = |_| Message::new(payload.clone()).to_client(to);
                from.send_all((0..AT_ONCE).map(message).collect()).await;
            }
        }
    });
    let reader = tokio::spawn(async move {
        for number in 1..=COUNT {
            client.next().await.unwrap();
            if number % AT_ONCE == 0 {
                room.add_permits(AT_ONCE as usize);
            }
        }
        (client, begun.elapsed())
    });
    sender.await.unwrap();
    let (client, took) = reader.await.unwrap();
    (client, COUNT as f64 / took.as_secs_f64())
}

/// The times that messages took, in ns, in order.
async fn at_20_000_a_second(from: &TestClient, mut client: TestClient) -> (TestClient, Vec<u64>) {
    let to = client.id();
    let count: u64 = 100_000;
    let begun = Instant::now();
    let reader = tokio::spawn(async move {
        let mut times = Vec::new();
        for _ in 0..count {
            let text = client.next_text().await.unwrap();
            let at: u64 = text.trim_start().parse().unwrap();
            times.push(begun.elapsed().as_nanos() as u64 - at);
        }
        times.sort_unstable();
        (client, times)
    });
    let mut sent = 0;
    while sent < count {
        let due = (begun.elapsed().as_secs_f64() * 20_000.0) as u64;
        while sent < due.min(count) {
            let text = format!("{:>PAYLOAD$}", begun.elapsed().as_nanos());
            from.send_message(Message::new(text).to_client(to)).await;
            sent += 1;
        }
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
    reader.await.unwrap()
}
