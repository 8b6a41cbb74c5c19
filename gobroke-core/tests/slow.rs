//! Receivers that do not keep up: each policy keeps what it says, memory stays bounded, others notice nothing.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails by a panic has done its work"
)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use common::{Ears, Frame, Lean, Peer, start, until, within};
use gobroke_core::{
    Broke, Client, CloseReason, Encoder, ErrorFrame, Message, Name, Overflow, Targets,
    testing::TestEndpoint,
};

fn nowhere() -> TestEndpoint {
    TestEndpoint::new(Targets::default())
}

fn numbered(number: u32, length: usize) -> Message {
    let mut payload = vec![0; length];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    Message::new(payload)
}

async fn idle(broke: &Broke) {
    until("the lanes are idle", || broke.stats().lane_bytes == 0).await;
}

/// Sends one message and waits until it is passed, so that each is a pass of its own.
async fn send(broke: &Broke, message: Message) {
    broke.send(message).unwrap();
    idle(broke).await;
}

/// All that comes: the numbers of the messages, and what else there is.
async fn rest(ears: &mut Ears) -> (Vec<u32>, Vec<Frame>) {
    let (mut numbers, mut others) = (Vec::new(), Vec::new());
    while let Some(frame) = ears.next().await {
        match frame {
            Frame::Message(payload) => {
                numbers.push(u32::from_be_bytes(payload[..4].try_into().unwrap()));
            }
            Frame::Welcome => {}
            other => others.push(other),
        }
    }
    (numbers, others)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_stops_reading_is_closed_and_the_other_999_notice_nothing() {
    const OTHERS: usize = 999;
    const BURSTS: usize = 40;
    const BURST: usize = 15;
    let endpoint = nowhere().options(|options| {
        options.outbox_messages = 256;
        options.outbox_bytes = 64 << 10;
        // The slow one reads its end when all else is over, however long that takes.
        options.write_stall = Duration::from_secs(3600);
    });
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let lean = Arc::new(Lean(0));
    let mut slow = Peer::connect(&endpoint, &lean, 1000).await;
    let heard = Arc::new(AtomicUsize::new(0));
    let mut reading = Vec::new();
    let mut senders = Vec::new();
    for _ in 0..OTHERS {
        let Peer {
            sender, mut ears, ..
        } = Peer::connect(&endpoint, &lean, 64 << 10).await;
        senders.push(sender);
        let heard = heard.clone();
        reading.push(tokio::spawn(async move {
            let mut next = 0u32;
            loop {
                match ears.next().await {
                    Some(Frame::Message(payload)) => {
                        assert_eq!(payload[..4], next.to_be_bytes());
                        next += 1;
                        heard.fetch_add(1, Relaxed);
                    }
                    Some(Frame::Welcome) => {}
                    Some(Frame::Close(1001)) => return next,
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    let mut most = 0;
    for burst in 0..BURSTS {
        for number in 0..BURST {
            let message = numbered((burst * BURST + number) as u32, 200).to_all();
            broke.send(message).unwrap();
        }
        let due = OTHERS * BURST * (burst + 1);
        until("the others hear it", || heard.load(Relaxed) == due).await;
        most = most.max(broke.stats().outbox_bytes);
    }
    // What waits for the one, and the runs around it: whole allocations.
    assert!(most < 160 << 10, "{most} bytes were held");
    assert!(most > 40 << 10, "{most} bytes were held");
    let stats = broke.stats();
    assert_eq!(stats.slow_consumers, 1);
    assert!(
        stats.outbox_bytes < 16 << 10,
        "{} are still held",
        stats.outbox_bytes
    );
    assert!(slow.client.is_closed());
    let (numbers, others) = rest(&mut slow.ears).await;
    assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>());
    assert_eq!(others, [Frame::Close(4000)]);
    // What it did not get is what is counted; what came when it was gone already is neither.
    assert!(stats.dropped as usize <= BURSTS * BURST - numbers.len());
    assert!(stats.dropped >= 256 - 10);
    broke.stop().await;
    for reading in reading {
        assert_eq!(within(reading).await.unwrap() as usize, BURSTS * BURST);
    }
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_keeps_the_newest_and_what_is_begun() {
    let endpoint = nowhere().options(|options| {
        options.write_stall = Duration::from_secs(3600);
        options.overflow = Overflow::DropOldest;
        options.outbox_messages = 10;
    });
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut peer = Peer::connect(&endpoint, &Arc::new(Lean(0)), 150).await;
    for number in 0..100 {
        send(&broke, numbered(number, 40).to_client(peer.id)).await;
        if number == 50 {
            // A control frame, in the midst of what is dropped.
            let before = broke.stats().delivered;
            // What moves counts as a sign of life, so the clock looks once before the silence begins.
            tokio::time::sleep(Duration::from_secs(1)).await;
            tokio::time::advance(Duration::from_secs(26)).await;
            until("the ping waits", || broke.stats().delivered > before).await;
        }
    }
    let held = peer.client.outbox();
    assert!(held.messages <= 11, "{held:?}");
    broke.disconnect(peer.id, CloseReason::Normal);
    let (numbers, others) = rest(&mut peer.ears).await;
    let begun = numbers.iter().take_while(|&&number| number < 50).count() as u32;
    // Three frames are on the wire, and one is begun.
    assert_eq!(begun, 4);
    let kept = 100 - (numbers.len() as u32 - begun);
    let expected: Vec<u32> = (0..begun).chain(kept..100).collect();
    assert_eq!(numbers, expected);
    assert!((8..=10).contains(&(100 - kept)), "{kept}");
    assert_eq!(others, [Frame::Ping, Frame::Close(1000)]);
    let stats = broke.stats();
    assert_eq!(stats.dropped as usize, 100 - numbers.len());
    assert_eq!(stats.slow_consumers, 0);
    broke.stop().await;
}

#[tokio::test]
async fn an_outbox_that_may_hold_nothing_is_always_full() {
    let endpoint = nowhere().options(|options| {
        options.overflow = Overflow::DropNewest;
        options.outbox_messages = 0;
    });
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut peer = Peer::connect(&endpoint, &Arc::new(Lean(0)), 150).await;
    // Its task has written this, and seen that nothing waits.
    assert!(matches!(peer.ears.next().await, Some(Frame::Welcome)));
    send(&broke, numbered(0, 40).to_client(peer.id)).await;
    assert_eq!(broke.stats().dropped, 1);
    broke.stop().await;
}

#[tokio::test]
async fn drop_newest_keeps_the_first_and_goes_on_when_there_is_room() {
    let endpoint = nowhere().options(|options| {
        options.overflow = Overflow::DropNewest;
        options.outbox_messages = 10;
    });
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut peer = Peer::connect(&endpoint, &Arc::new(Lean(0)), 150).await;
    for number in 0..100 {
        send(&broke, numbered(number, 40).to_client(peer.id)).await;
    }
    // A control frame is not dropped, however full it is.
    let unknown = Message::new("?").to_logic("nobody");
    peer.sender.send(vec![unknown]).await.unwrap();
    let mut first = Vec::new();
    loop {
        match peer.ears.next().await.unwrap() {
            Frame::Welcome => {}
            Frame::Message(payload) => {
                first.push(u32::from_be_bytes(payload[..4].try_into().unwrap()));
            }
            Frame::Error(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(first, (0..first.len() as u32).collect::<Vec<_>>());
    assert!((10..=14).contains(&first.len()), "{first:?}");
    send(&broke, numbered(1000, 40).to_client(peer.id)).await;
    broke.disconnect(peer.id, CloseReason::Normal);
    assert_eq!(
        rest(&mut peer.ears).await,
        (vec![1000], vec![Frame::Close(1000)])
    );
    assert_eq!(broke.stats().dropped as usize, 100 - first.len());
    broke.stop().await;
}

#[tokio::test]
async fn a_message_brings_its_own_policy() {
    let endpoint = nowhere().options(|options| options.outbox_messages = 10);
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let lean = Arc::new(Lean(0));
    let full = async || {
        let peer = Peer::connect(&endpoint, &lean, 150).await;
        while peer.client.outbox().messages < 10 {
            send(&broke, numbered(1, 40).to_client(peer.id)).await;
        }
        peer
    };
    let with = |number, overflow| numbered(number, 40).with_overflow(overflow);

    let mut newest = full().await;
    send(&broke, with(2, Overflow::DropNewest).to_client(newest.id)).await;
    assert!(!newest.client.is_closed());
    newest.client.disconnect(CloseReason::Normal);
    let (numbers, others) = rest(&mut newest.ears).await;
    assert!(!numbers.contains(&2));
    assert_eq!(others, [Frame::Close(1000)]);

    let mut oldest = full().await;
    send(&broke, with(3, Overflow::DropOldest).to_client(oldest.id)).await;
    assert!(!oldest.client.is_closed());
    oldest.client.disconnect(CloseReason::Normal);
    let (numbers, others) = rest(&mut oldest.ears).await;
    assert_eq!(numbers.last(), Some(&3));
    assert_eq!(others, [Frame::Close(1000)]);
    assert_eq!(broke.stats().dropped, 2);

    // The same for a room with all three in it, each with its own outbox, and one who reads.
    let mut slow = [full().await, full().await];
    let mut fast = Peer::connect(&endpoint, &lean, 64 << 10).await;
    for peer in slow.iter().chain([&fast]) {
        peer.client.join("room");
    }
    send(&broke, with(4, Overflow::DropNewest).to_group("room")).await;
    assert!(slow.iter().all(|peer| !peer.client.is_closed()));
    send(&broke, numbered(5, 40).to_group("room")).await;
    for peer in &mut slow {
        assert!(peer.client.is_closed());
        let (numbers, others) = rest(&mut peer.ears).await;
        assert!(!numbers.contains(&4) && !numbers.contains(&5));
        assert_eq!(others, [Frame::Close(4000)]);
    }
    assert_eq!(broke.stats().slow_consumers, 2);
    fast.client.disconnect(CloseReason::Normal);
    assert_eq!(rest(&mut fast.ears).await.0, [4, 5]);
    broke.stop().await;
}

#[tokio::test]
async fn a_policy_of_the_endpoint_is_overridden_too() {
    let endpoint = nowhere().options(|options| {
        options.outbox_messages = 10;
        options.overflow = Overflow::DropOldest;
    });
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut peer = Peer::connect(&endpoint, &Arc::new(Lean(0)), 150).await;
    for number in 0..30 {
        send(&broke, numbered(number, 40).to_client(peer.id)).await;
    }
    let must = numbered(30, 40).with_overflow(Overflow::Disconnect);
    send(&broke, must.to_client(peer.id)).await;
    let (numbers, others) = rest(&mut peer.ears).await;
    assert!(!numbers.contains(&30));
    assert_eq!(others, [Frame::Close(4000)]);
    assert_eq!(broke.stats().dropped as usize, 31 - numbers.len());
    broke.stop().await;
}

#[tokio::test]
async fn one_run_above_the_bound_makes_no_slow_reader() {
    let endpoint = nowhere().options(|options| {
        options.outbox_messages = 4;
        options.outbox_bytes = 1000;
    });
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut peer = Peer::connect(&endpoint, &Arc::new(Lean(0)), 100).await;
    // All are queued before the lane's task runs: one pass, one run of 10 kB.
    for number in 0..100 {
        broke
            .send(numbered(number, 100).to_client(peer.id))
            .unwrap();
    }
    broke.disconnect(peer.id, CloseReason::Normal);
    let (numbers, others) = rest(&mut peer.ears).await;
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert_eq!(others, [Frame::Close(1000)]);
    broke.stop().await;
}

/// Three rooms that do not read, one behind the other: each time the bound is passed, those who hold the oldest run
/// go, together, and nobody else does. A message begun keeps its run; that holds up nothing.
#[tokio::test]
async fn above_the_bound_of_all_outboxes_those_with_the_oldest_run_go_together() {
    const BOUND: usize = 1 << 20;
    let endpoint = nowhere().options(|options| {
        options.outbox_messages = 1 << 20;
        options.outbox_bytes = 1 << 30;
    });
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .outbox_memory(BOUND),
    )
    .await;
    let lean = Arc::new(Lean(0));
    let mut rooms = Vec::new();
    for room in 0..4 {
        let mut peers = Vec::new();
        for _ in 0..5 {
            let peer = Peer::connect(&endpoint, &lean, 3000).await;
            peer.client.join(format!("room-{room}"));
            peers.push(peer);
        }
        rooms.push(peers);
    }
    idle(&broke).await;
    let mut number = 0;
    for room in 0..4 {
        // 700 kB for each room, of which the next one's do not fit beside it.
        for _ in 0..70 {
            send(
                &broke,
                numbered(number, 10_000).to_group(format!("room-{room}")),
            )
            .await;
            number += 1;
            let held = broke.stats().outbox_bytes;
            assert!(held <= BOUND, "{held} bytes are held in room {room}");
        }
        for (other, peers) in rooms.iter().enumerate() {
            let closed = peers.iter().filter(|peer| peer.client.is_closed()).count();
            assert_eq!(
                closed,
                if other < room { 5 } else { 0 },
                "room {other} of {room}"
            );
        }
        assert_eq!(broke.stats().slow_consumers, 5 * room as u64);
    }
    for (room, peers) in rooms.iter_mut().enumerate() {
        for peer in peers {
            if room == 3 {
                peer.client.disconnect(CloseReason::Normal);
            }
            let (numbers, others) = rest(&mut peer.ears).await;
            let first = 70 * room as u32;
            assert_eq!(
                numbers,
                (first..first + numbers.len() as u32).collect::<Vec<_>>()
            );
            let (count, code) = if room == 3 { (70, 1000) } else { (1, 4000) };
            assert_eq!((numbers.len(), others), (count, vec![Frame::Close(code)]));
        }
    }
    until("nothing is held", || broke.stats().outbox_bytes == 0).await;
    broke.stop().await;
}

/// Writes only messages whose payload is not empty.
struct Choosy(Lean);

impl Encoder for Choosy {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        if !message.payload().is_empty() {
            self.0.message(message, out);
        }
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        self.0.close(reason, out);
    }

    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        self.0.welcome(client, instance, out);
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        self.0.error(error, out);
    }
}

#[tokio::test]
async fn a_message_that_the_encoder_passes_over_holds_up_nothing() {
    for overflow in [
        Overflow::Disconnect,
        Overflow::DropOldest,
        Overflow::DropNewest,
    ] {
        let endpoint = nowhere().options(|options| {
            options.overflow = overflow;
            options.outbox_messages = 10;
        });
        let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
        let mut peer = Peer::connect_with(&endpoint, Arc::new(Choosy(Lean(0))), 0, 100).await;
        peer.client.join("room");
        for number in 0..if overflow == Overflow::Disconnect {
            5
        } else {
            30
        } {
            send(&broke, Message::new("").to_group("room")).await;
            send(&broke, numbered(number, 40).to_group("room")).await;
            send(&broke, Message::new("").to_client(peer.id)).await;
            for _ in 0..2 {
                broke.send(Message::new("").to_group("room")).unwrap();
            }
            idle(&broke).await;
        }
        // What waits last is nothing; it is read until then.
        while peer.client.outbox().bytes > 0 {
            assert!(matches!(
                peer.ears.next().await,
                Some(Frame::Welcome | Frame::Message(_))
            ));
            tokio::task::yield_now().await;
        }
        send(&broke, numbered(99, 40).to_group("room")).await;
        broke.disconnect(peer.id, CloseReason::Normal);
        let (numbers, others) = rest(&mut peer.ears).await;
        assert_eq!(numbers.last(), Some(&99));
        assert_eq!(others, [Frame::Close(1000)], "{overflow:?}");
        broke.stop().await;
    }
}

/// Each client holds a run of its own, of 200 small messages, and has begun one of them: when it goes, so does the run.
#[tokio::test]
async fn what_is_left_of_a_message_begun_keeps_no_large_run() {
    const BOUND: usize = 1 << 20;
    let endpoint = nowhere();
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .outbox_memory(BOUND),
    )
    .await;
    let mut peers = Vec::new();
    for _ in 0..20 {
        let peer = Peer::connect(&endpoint, &Arc::new(Lean(0)), 1500).await;
        for number in 0..200 {
            broke
                .send(numbered(number, 1000).to_client(peer.id))
                .unwrap();
        }
        idle(&broke).await;
        peers.push(peer);
    }
    let open = peers.iter().filter(|peer| !peer.client.is_closed()).count();
    // Runs of 200 kB, in allocations of up to 256 KiB.
    assert!((3..=5).contains(&open), "{open} are left");
    assert!(
        peers[20 - open..]
            .iter()
            .all(|peer| !peer.client.is_closed())
    );
    assert_eq!(broke.stats().slow_consumers as usize, 20 - open);
    assert_eq!(
        rest(&mut peers[0].ears).await,
        (vec![0, 1], vec![Frame::Close(4000)])
    );
    drop(peers);
    broke.stop().await;
}
