//! No deadlock, no recursion, no loss without word: whatever floods what, it ends in back-pressure at the door, in
//! `busy`, or in `Full`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails by a panic has done its work"
)]

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use common::{Frame, Lean, Peer, start, until, within};
use gobroke_core::{
    Broke, Logic, Message, SendError, Target, Targets,
    testing::{Received, TestClient, TestEndpoint},
};
use tokio::{sync::Semaphore, time::Instant};

fn nowhere() -> TestEndpoint {
    TestEndpoint::new(Targets::default())
}

async fn payloads(client: &mut TestClient) -> Vec<String> {
    let mut payloads = Vec::new();
    while let Some(text) = client.next_text().await {
        payloads.push(text);
    }
    payloads
}

async fn next_error(client: &mut TestClient) -> Option<String> {
    loop {
        if let Received::Error { code, .. } = client.frame().await? {
            return Some(code);
        }
    }
}

/// Which of the two falls behind, and is closed as a slow consumer, is a matter of luck; that nothing is lost without
/// being counted, and that each gets all that it got in order, is not.
#[tokio::test(start_paused = true)]
async fn two_clients_that_flood_each_other_and_read_slowly_lose_nothing_uncounted() {
    const EACH: usize = 5_000;
    let endpoint = nowhere();
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let lean = Arc::new(Lean(0));
    let one = Peer::connect(&endpoint, &lean, 2048).await;
    let other = Peer::connect(&endpoint, &lean, 2048).await;
    let (mut writing, mut reading) = (Vec::new(), Vec::new());
    let ids = [one.id, other.id];
    for (index, peer) in [one, other].into_iter().enumerate() {
        let to = ids[1 - index];
        let Peer {
            sender, mut ears, ..
        } = peer;
        writing.push(tokio::spawn(async move {
            for number in 0..EACH / 10 {
                let batch = (0..10).map(|at| {
                    let mut payload = vec![0; 512];
                    payload[..4].copy_from_slice(&((number * 10 + at) as u32).to_be_bytes());
                    Message::new(payload).to_client(to)
                });
                if sender.send(batch.collect()).await.is_err() {
                    break;
                }
            }
            sender
        }));
        reading.push(tokio::spawn(async move {
            let (mut heard, mut unknown) = (0u32, 0);
            loop {
                match ears.next().await {
                    Some(Frame::Message(payload)) => {
                        assert_eq!(payload[..4], heard.to_be_bytes());
                        heard += 1;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Some(Frame::Error(code)) => {
                        assert_eq!(code, "unknown_client");
                        unknown += 1;
                    }
                    Some(Frame::Welcome) => {}
                    Some(Frame::Close(code)) => return (heard, unknown, code),
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    let mut senders = Vec::new();
    for writing in writing {
        senders.push(within(writing).await.unwrap());
    }
    let doors_are_done = || {
        senders
            .iter()
            .all(|sender| sender.capacity() == sender.max_capacity())
    };
    until("the doors took all", doors_are_done).await;
    broke.stop().await;
    let (mut heard, mut unknown, mut slow) = (0, 0, 0);
    for reading in reading {
        let (one_heard, one_unknown, code) = within(reading).await.unwrap();
        heard += u64::from(one_heard);
        unknown += one_unknown;
        assert!(code == 4000 || code == 1001, "{code}");
        slow += u64::from(code == 4000);
    }
    let stats = broke.stats();
    assert!(heard > 0);
    assert_eq!(
        stats.received,
        heard + unknown + stats.dropped + stats.unknown
    );
    assert_eq!((stats.slow_consumers, stats.full), (slow, 0));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_fills_its_own_queue_gets_the_message_back_and_goes_on() {
    let endpoint = TestEndpoint::to_logic("self");
    let worker = Logic::worker("self", |message, ctx| {
        if message.payload().as_ref() != b"go" {
            ctx.reply(&message, message.clone())?;
            return Ok(());
        }
        let mut accepted = 0;
        let full = loop {
            let again = message.clone().with_payload(format!("{accepted}"));
            match ctx.send(again) {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(&full, SendError::Full { queue, .. } if *queue == "logic self"));
        // What comes back is the message as it was, however often it is tried.
        let mut back = full.into_message().ok_or("it comes back")?;
        for _ in 0..100 {
            assert_eq!(back.payload().as_ref(), format!("{accepted}").as_bytes());
            assert_eq!(back.targets().as_slice(), &[Target::Logic("self".into())]);
            back = match ctx.send(back) {
                Err(SendError::Full { message, .. }) => *message,
                other => return Err(format!("{other:?}").into()),
            };
        }
        ctx.reply(&message, Message::text(format!("full at {accepted}")))?;
        Ok(())
    })
    .queue(16, 1 << 20);
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = failures.clone();
    let builder = Broke::builder().endpoint(endpoint.clone()).logic(worker);
    let broke =
        start(builder.on_error(move |failure| told.lock().unwrap().push(failure.to_string())))
            .await;
    let mut client = endpoint.connect().await.unwrap();
    client.send("go").await;
    // The one that is handled counts as well.
    assert_eq!(client.next_text().await.as_deref(), Some("full at 15"));
    for number in 0..15 {
        assert_eq!(client.next_text().await, Some(number.to_string()));
    }
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new());
    broke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_workers_in_a_circle_end_in_full_and_go_on() {
    let endpoint = TestEndpoint::to_logic("ping");
    let full = Arc::new(AtomicUsize::new(0));
    let module = |name: &'static str, to: &'static str| {
        let full = full.clone();
        Logic::worker(name, move |message, ctx| {
            if message.payload().as_ref() == b"still there?" {
                ctx.reply(&message, Message::new("yes"))?;
                return Ok(());
            }
            for _ in 0..3 {
                let mut more = Message::new("more");
                more.targets_mut().add(Target::Logic(to.into()));
                match ctx.send(more) {
                    Ok(_) | Err(SendError::TooManyHops { .. }) => {}
                    Err(SendError::Full { .. }) => {
                        full.fetch_add(1, Relaxed);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
        .queue(64, 1 << 20)
    };
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(module("ping", "pong"))
            .logic(module("pong", "ping")),
    )
    .await;
    let mut client = endpoint.connect().await.unwrap();
    client.send("begin").await;
    let still = Message::new("still there?");
    let mut asked = 0;
    while full.load(Relaxed) == 0 || asked < 3 {
        client.send_message(still.clone()).await;
        assert_eq!(client.next_text().await.as_deref(), Some("yes"));
        asked += 1;
    }
    assert!(broke.stats().full > 0);
    broke.stop().await;
}

#[tokio::test]
async fn modules_that_answer_each_other_for_ever_are_stopped_after_32_hops_without_recursion() {
    let endpoint = TestEndpoint::to_logic("left");
    let depths = Arc::new(Mutex::new(Vec::new()));
    let module = |name: &'static str, to: &'static str| {
        let depths = depths.clone();
        Logic::dispatched(name, move |message, ctx| {
            let here = 0u8;
            depths
                .lock()
                .unwrap()
                .push(std::ptr::from_ref(&here) as usize);
            let client = message.client().ok_or("a client's")?;
            let again = Message::new("again");
            // A fresh message, so that what counts is the handler that sends it.
            let again = match message.payload().first() {
                Some(b'f') => message.clone().with_payload("f").to_logic(to),
                _ => again.to_logic(to),
            };
            let mut again = again;
            *again.targets_mut() = Target::Logic(to.into()).into();
            match ctx.send(again) {
                Ok(_) => Ok(()),
                Err(SendError::TooManyHops { hops }) => {
                    ctx.send(Message::text(format!("refused at {hops}")).to_client(client))?;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        })
    };
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(module("left", "right"))
            .logic(module("right", "left")),
    )
    .await;
    let mut client = endpoint.connect().await.unwrap();
    client.send("f").await;
    assert_eq!(client.next_text().await.as_deref(), Some("refused at 33"));
    let depths = depths.lock().unwrap().clone();
    assert_eq!(depths.len(), 33);
    // The first ran at the door; all others on the same stretch of the same thread's stack.
    let (low, high) = (
        depths[1..].iter().min().unwrap(),
        depths[1..].iter().max().unwrap(),
    );
    assert!(high - low < 16 << 10, "the stack grew by {}", high - low);
    broke.stop().await;
}

#[tokio::test]
async fn hops_count_for_a_handlers_fresh_messages_too() {
    let endpoint = TestEndpoint::to_logic("loop");
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let module = Logic::dispatched_async("loop", move |_, ctx| {
        let (count, tell) = (count.clone(), tell.clone());
        async move {
            count.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
            if let Err(error) = ctx.send(Message::new("fresh").to_logic("loop")) {
                tell.send(error.to_string())?;
            }
            Ok(())
        }
    });
    let broke = start(Broke::builder().endpoint(endpoint.clone()).logic(module)).await;
    let client = endpoint.connect().await.unwrap();
    client.send("x").await;
    let error = within(told.recv()).await.unwrap();
    assert!(error.contains("33 logic modules"), "{error}");
    assert_eq!(handled.load(Relaxed), 33);
    broke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn at_its_bound_a_dispatched_module_holds_the_doors_and_then_they_answer_busy() {
    let endpoint = TestEndpoint::to_logic("slow");
    let (release, most) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let waits = release.clone();
    let now = Arc::new(AtomicUsize::new(0));
    let (current, peak) = (now.clone(), most.clone());
    let module = Logic::dispatched_async("slow", move |message, ctx| {
        let (waits, current, peak) = (waits.clone(), current.clone(), peak.clone());
        async move {
            peak.fetch_max(current.fetch_add(1, Relaxed) + 1, Relaxed);
            waits.acquire().await?.forget();
            current.fetch_sub(1, Relaxed);
            ctx.reply(&message, message.clone())?;
            Ok(())
        }
    })
    .in_flight(4);
    let broke = start(Broke::builder().endpoint(endpoint.clone()).logic(module)).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(endpoint.connect().await.unwrap());
    }
    let begin = Instant::now();
    // Ten doors with a message each: the bound is the module's, not a door's.
    for client in &clients {
        client.send("one").await;
    }
    let waiting = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            // Those that are in flight hear nothing yet.
            let heard = tokio::time::timeout(Duration::from_secs(11), next_error(&mut client));
            (heard.await, client)
        })
    });
    let (mut busy, mut held) = (0, Vec::new());
    for waiting in waiting.collect::<Vec<_>>() {
        match waiting.await.unwrap() {
            (Ok(code), _) => {
                assert_eq!(code.as_deref(), Some("busy"));
                busy += 1;
            }
            (Err(_), client) => held.push(client),
        }
    }
    assert_eq!((busy, held.len()), (6, 4));
    assert_eq!(broke.stats().busy, 6);
    assert!(begin.elapsed() >= Duration::from_secs(10));
    assert_eq!(most.load(Relaxed), 4, "never above the bound");
    release.add_permits(4);
    for client in &mut held {
        assert_eq!(client.next_text().await.as_deref(), Some("one"));
    }
    broke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_door_waits_for_logic_no_pong_is_missed() {
    let endpoint = TestEndpoint::to_logic("slow");
    let release = Arc::new(Semaphore::new(0));
    let waits = release.clone();
    let module = Logic::dispatched_async("slow", move |message, ctx| {
        let waits = waits.clone();
        async move {
            waits.acquire().await?.forget();
            ctx.reply(&message, message.clone())?;
            Ok(())
        }
    })
    .in_flight(1);
    let broke = start(Broke::builder().endpoint(endpoint.clone()).logic(module)).await;
    let mut client = endpoint.connect().await.unwrap();
    let begin = Instant::now();
    client
        .send_all((0..11).map(|n: u32| Message::new(n.to_string())).collect())
        .await;
    for _ in 0..10 {
        assert_eq!(next_error(&mut client).await.as_deref(), Some("busy"));
    }
    // 100 s at the door, in which nothing was read from it: far beyond 25 and 10.
    assert!(begin.elapsed() >= Duration::from_secs(100));
    release.add_permits(1);
    assert_eq!(client.next_text().await.as_deref(), Some("0"));
    // Once the door does not wait any more, a missed pong counts again.
    let begin = Instant::now();
    assert_eq!(client.closed().await.map(|close| close.0), Some(4001));
    let took = begin.elapsed().as_secs_f64();
    assert!((34.0..37.0).contains(&took), "{took}");
    broke.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_broadcasts_ten_times_for_each_message_meets_no_full() {
    const CLIENTS: usize = 8;
    const EACH: usize = 100;
    let endpoint = nowhere().options(|options| {
        options.outbox_messages = 1 << 20;
        options.outbox_bytes = 1 << 30;
    });
    let shout = Logic::dispatched("shout", |message, ctx| {
        for _ in 0..10 {
            ctx.broadcast(message.clone())?;
        }
        Ok(())
    });
    let failures = Arc::new(AtomicUsize::new(0));
    let told = failures.clone();
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(shout)
            .lane_bytes(64 << 10)
            .on_error(move |_| {
                told.fetch_add(1, Relaxed);
            }),
    )
    .await;
    let lean = Arc::new(Lean(0));
    let mut tasks = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..CLIENTS {
        peers.push(Peer::connect(&endpoint, &lean, 64 << 10).await);
    }
    for peer in peers {
        tasks.push(tokio::spawn(async move {
            let Peer {
                sender, mut ears, ..
            } = peer;
            let sending = tokio::spawn(async move {
                for _ in 0..EACH {
                    let message = Message::new(vec![1; 512]).to_logic("shout");
                    sender.send(vec![message; 2]).await.unwrap();
                }
                sender
            });
            let mut heard = 0;
            while heard < CLIENTS * EACH * 2 * 10 {
                match ears.next().await {
                    Some(Frame::Message(_)) => heard += 1,
                    Some(Frame::Welcome) => {}
                    other => panic!("{other:?} after {heard}"),
                }
            }
            drop(sending.await.unwrap());
        }));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
    assert_eq!((failures.load(Relaxed), broke.stats().full), (0, 0));
    broke.stop().await;
}

fn echo() -> Logic {
    Logic::dispatched("echo", |message, ctx| {
        ctx.reply(&message, message.clone())?;
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn an_echo_client_that_writes_10_mb_and_reads_slowly_gets_it_all_back() {
    const COUNT: usize = 1_000;
    let endpoint = nowhere();
    let broke = start(Broke::builder().endpoint(endpoint.clone()).logic(echo())).await;
    let Peer {
        sender, mut ears, ..
    } = Peer::connect(&endpoint, &Arc::new(Lean(0)), 32 << 10).await;
    let writing = tokio::spawn(async move {
        for number in 0..COUNT {
            let mut payload = vec![0; 10 << 10];
            payload[..4].copy_from_slice(&(number as u32).to_be_bytes());
            let message = Message::new(payload).to_logic("echo");
            sender.send(vec![message]).await.unwrap();
        }
        sender
    });
    let begin = Instant::now();
    let mut number = 0u32;
    while (number as usize) < COUNT {
        match ears.next().await {
            Some(Frame::Message(payload)) => {
                assert_eq!(
                    (payload.len(), &payload[..4]),
                    (10 << 10, &number.to_be_bytes()[..])
                );
                number += 1;
                // It answers no ping meanwhile: its pong would be behind what it still writes.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Some(Frame::Welcome | Frame::Ping) => {}
            other => panic!("{other:?} after {number}"),
        }
    }
    assert!(begin.elapsed() > Duration::from_secs(100));
    drop(writing.await.unwrap());
    broke.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_echo_client_that_never_reads_is_cut_after_the_write_stall() {
    let endpoint = nowhere();
    let broke = start(Broke::builder().endpoint(endpoint.clone()).logic(echo())).await;
    let Peer {
        sender,
        ears,
        client,
        ..
    } = Peer::connect(&endpoint, &Arc::new(Lean(0)), 32 << 10).await;
    let begin = Instant::now();
    let mut sent = 0;
    while let Ok(()) = sender
        .send(vec![Message::new(vec![0; 10 << 10]).to_logic("echo")])
        .await
    {
        sent += 1;
        assert!(sent < 1_000, "the door does not hold it back");
        assert!(client.outbox().bytes <= (1 << 20) / 2 + (32 << 10));
    }
    let took = begin.elapsed().as_secs_f64();
    assert!((10.0..11.0).contains(&took), "{took}");
    let stats = broke.stats();
    assert_eq!(
        (stats.clients, stats.slow_consumers, stats.outbox_bytes),
        (0, 1, 0)
    );
    drop(ears);
    broke.stop().await;
}

/// All that fits is queued before anything of it can be passed: this test does not wait in between.
#[tokio::test]
async fn full_never_means_half() {
    let endpoint = nowhere();
    let handled = Arc::new(Mutex::new(Vec::new()));
    let (one, two) = (handled.clone(), handled.clone());
    let note = move |list: &Mutex<Vec<String>>, name: &str, message: &Message| {
        let text = String::from_utf8_lossy(message.payload()).into_owned();
        list.lock()
            .unwrap()
            .push(format!("{name} {}", text.trim_end_matches('.')));
    };
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .lanes(4)
            .lane_bytes(4096)
            .logic(Logic::worker("roomy", move |message, _| {
                note(&one, "roomy", &message);
                Ok(())
            }))
            .logic(
                Logic::worker("tight", move |message, _| {
                    note(&two, "tight", &message);
                    Ok(())
                })
                .queue(1, 1 << 20),
            ),
    )
    .await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = endpoint.connect().await.unwrap();
        assert!(matches!(client.frame().await, Some(Received::Welcome(_))));
        broke.join(client.id(), "room");
        clients.push(client);
    }
    until("the lanes are idle", || broke.stats().lane_bytes == 0).await;
    let full = |message: Message, queue: &str| match broke.send(message) {
        Err(SendError::Full { queue: which, .. }) => assert_eq!(which, *queue),
        other => panic!("{other:?}"),
    };
    let filler = || Message::text(format!("{:.<200}", "fill")).to_client(clients[2].id());
    let mut filled = 0;
    while broke.send(filler()).is_ok() {
        filled += 1;
    }
    assert!(filled > 5);
    let before = broke.stats();
    let text = || Message::text(format!("{:.<200}", "half"));
    full(text().to_all(), "lane");
    full(text().to_group("room"), "lane");
    full(
        text().to_client(clients[0].id()).to_client(clients[2].id()),
        "lane",
    );
    full(text().to_all().to_logic("roomy"), "lane");
    full(text().to_logic("roomy").to_client(clients[2].id()), "lane");
    full(text().to_all().except(clients[0].id()), "lane");
    broke
        .send(Message::text("first").to_logic("tight"))
        .unwrap();
    full(text().to_logic("roomy").to_logic("tight"), "logic tight");
    full(
        text().to_logic("tight").to_client(clients[0].id()),
        "logic tight",
    );
    let after = broke.stats();
    assert_eq!(after.lane_bytes, before.lane_bytes);
    assert_eq!(after.logic["roomy"].queued, 0);
    assert_eq!(after.logic["tight"].queued, 1);
    assert_eq!(after.full, before.full + 8);
    until("the lanes are idle", || broke.stats().lane_bytes == 0).await;
    broke
        .send(
            Message::text("end")
                .to_all()
                .to_logic("roomy")
                .to_logic("tight"),
        )
        .unwrap();
    broke.stop().await;
    for (index, client) in clients.iter_mut().enumerate() {
        let heard = payloads(client).await;
        assert_eq!(heard.len(), if index == 2 { filled + 1 } else { 1 });
        assert_eq!(heard.last().unwrap(), "end");
    }
    let handled = handled.lock().unwrap().clone();
    assert_eq!(
        handled.iter().filter(|text| text.contains("half")).count(),
        0
    );
    assert_eq!(handled.len(), 3, "{handled:?}");
}

/// One thread: a door that tried again and again instead of waiting would keep the lane's task from ever running.
#[tokio::test]
async fn a_door_that_finds_a_lane_full_lets_others_run_meanwhile() {
    let endpoint = nowhere();
    let broke = start(Broke::builder().endpoint(endpoint.clone()).lane_bytes(2048)).await;
    let (one, mut other) = (
        endpoint.connect().await.unwrap(),
        endpoint.connect().await.unwrap(),
    );
    other.frame().await;
    // The client's task is woken first, and then finds the lane full.
    one.send_message(Message::text("direct").to_client(other.id()))
        .await;
    while broke
        .send(Message::new(vec![0; 100]).to_client(other.id()))
        .is_ok()
    {}
    loop {
        let message = other.next().await.expect("it comes");
        if message.payload().as_ref() == b"direct" {
            break;
        }
    }
    broke.stop().await;
}

#[tokio::test]
async fn a_message_above_half_of_a_queues_bound_waits_for_its_turn_like_any_other() {
    let endpoint = TestEndpoint::to_logic("work");
    let work = Logic::worker_async("work", async |message: Message, ctx| {
        tokio::task::yield_now().await;
        ctx.reply(&message, Message::text(message.payload().len().to_string()))?;
        Ok(())
    })
    .queue(100, 2000);
    let broke = start(Broke::builder().endpoint(endpoint.clone()).logic(work)).await;
    let mut client = endpoint.connect().await.unwrap();
    // The first leaves the queue below half, the second does not fit behind it.
    client
        .send_all(vec![
            Message::new(vec![0; 700]),
            Message::new(vec![0; 1500]),
        ])
        .await;
    assert_eq!(client.next_text().await.as_deref(), Some("700"));
    assert_eq!(client.next_text().await.as_deref(), Some("1500"));
    broke.stop().await;
}
