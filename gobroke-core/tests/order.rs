//! What one client sends, every receiver gets in that order: nothing lost, nothing doubled. Each of the four ways
//! carries a quarter of the 100,000 messages.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails by a panic has done its work"
)]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use common::{Frame, Lean, Peer, Random, within};
use gobroke_core::{
    Broke, ClientId, Logic, LogicContext, LogicResult, Message, Target, Targets, Worker,
    async_trait, testing::TestEndpoint,
};
use tokio::sync::oneshot;

const SENDERS: usize = 8;
const RECEIVERS: usize = 64;
const MESSAGES: usize = 25_000;
/// Messages of one sender and one stream are in order; several streams where messages have keys.
const KEYS: usize = 3;
const END: u32 = u32::MAX;

/// The way from a sender to its receivers.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    PastLogic,
    Dispatched,
    Worker,
    WorkersByKey,
}

/// Where each message of a sender goes, and who must get it, who may.
#[derive(Default)]
struct Plan {
    targets: Vec<Targets>,
    must: Vec<u64>,
    may: Vec<u64>,
}

/// The plans of all senders, once the clients are known.
type Plans = Arc<std::sync::OnceLock<Vec<Plan>>>;

fn payload(sender: usize, number: u32, random: &mut Random) -> Vec<u8> {
    let mut payload = vec![sender as u8];
    payload.extend_from_slice(&number.to_be_bytes());
    payload.resize(5 + random.below(120), 7);
    payload
}

fn parse(payload: &[u8]) -> (usize, u32) {
    let number = u32::from_be_bytes(payload[1..5].try_into().unwrap());
    (payload[0] as usize, number)
}

/// Static groups `s0..s7` have the clients whose index modulo 8 is theirs; the members of `d0..d3` come and go.
fn plan(sender: usize, count: usize, ids: &[ClientId], random: &mut Random) -> Plan {
    let mut plan = Plan::default();
    for _ in 0..count {
        let (mut targets, mut must, mut may) = (Targets::default(), 0u64, 0u64);
        let kind = random.below(100);
        if kind < 70 {
            for _ in 0..=random.below(3) {
                let to = random.below(RECEIVERS);
                targets.add(Target::Client(ids[to]));
                must |= 1 << to;
            }
        }
        if (60..85).contains(&kind) {
            let group = random.below(8);
            targets.add(Target::Group(format!("s{group}").into()));
            must |= 0x0101_0101_0101_0101 << group;
        }
        if (80..95).contains(&kind) {
            targets.add(Target::Group(format!("d{}", random.below(4)).into()));
            may = u64::MAX;
        }
        if kind >= 95 {
            targets.add(Target::All);
            must = u64::MAX;
        }
        for _ in 0..random.below(3) {
            let out = [sender, random.below(RECEIVERS)][random.below(2)];
            targets.exclude(ids[out]);
            must &= !(1 << out);
            may &= !(1 << out);
        }
        plan.targets.push(targets);
        plan.must.push(must);
        plan.may.push(may);
    }
    plan
}

fn pass_on(plans: &Plans, mut message: Message, ctx: &LogicContext) -> LogicResult {
    let (sender, number) = parse(message.payload());
    *message.targets_mut() = match number {
        END => Target::Client(message.client().unwrap()).into(),
        number => plans.get().unwrap()[sender].targets[number as usize].clone(),
    };
    ctx.send(message)?;
    Ok(())
}

struct PassOn(Plans);

#[async_trait]
impl Worker for PassOn {
    async fn handle(&mut self, message: Message, ctx: &LogicContext) -> LogicResult {
        if parse(message.payload()).1.is_multiple_of(50) {
            tokio::task::yield_now().await;
        }
        pass_on(&self.0, message, ctx)
    }
}

fn logic(path: Path, plans: &Plans) -> Logic {
    let plans = plans.clone();
    match path {
        Path::PastLogic | Path::Dispatched => {
            Logic::dispatched("pass", move |message, ctx| pass_on(&plans, message, ctx))
        }
        Path::Worker => Logic::worker("pass", move |message, ctx| pass_on(&plans, message, ctx)),
        Path::WorkersByKey => {
            Logic::worker_factory("pass", move || PassOn(plans.clone())).workers(4)
        }
    }
}

/// Sends what is planned, in batches as reads would give them, and then the end, to itself.
async fn send(peer: PeerHalf, path: Path, plans: Plans, index: usize, mut random: Random) {
    let targets = &plans.get().unwrap()[index].targets;
    let aim = |message: Message, number: u32, targets: Targets| match path {
        Path::PastLogic => {
            let mut message = message;
            *message.targets_mut() = targets;
            message
        }
        Path::WorkersByKey => message
            .to_logic("pass")
            .with_tag("key", format!("{index}-{}", number as usize % KEYS)),
        _ => message.to_logic("pass"),
    };
    let mut number = 0;
    while number < targets.len() {
        let batch = (1 + random.below(32)).min(targets.len() - number);
        let messages = (number..number + batch).map(|number| {
            let message = Message::new(payload(index, number as u32, &mut random));
            aim(message, number as u32, targets[number].clone())
        });
        peer.sender.send(messages.collect()).await.unwrap();
        number += batch;
    }
    // One end for each stream.
    for key in 0..KEYS as u32 {
        let end = Message::new(payload(index, END, &mut random));
        let end = aim(end, key, Target::Client(peer.id).into());
        peer.sender.send(vec![end]).await.unwrap();
    }
    within(peer.ended).await.unwrap();
}

struct PeerHalf {
    id: ClientId,
    sender: tokio::sync::mpsc::Sender<Vec<Message>>,
    ended: oneshot::Receiver<()>,
}

/// Reads until the connection ends; gives all that came, in order, and the close code.
async fn hear(
    mut ears: common::Ears,
    slow: bool,
    ended: oneshot::Sender<()>,
) -> (Vec<(usize, u32)>, Option<u16>) {
    let (mut heard, mut close, mut ends, mut ended) = (Vec::new(), None, 0, Some(ended));
    assert_eq!(ears.next().await, Some(Frame::Welcome));
    while let Some(frame) = ears.next().await {
        match frame {
            Frame::Message(payload) => {
                let message = parse(&payload);
                if message.1 != END {
                    heard.push(message);
                    if slow {
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
                ends += 1;
                if ends == KEYS {
                    ended.take().unwrap().send(()).unwrap();
                }
            }
            Frame::Close(code) => close = Some(code),
            other => panic!("{other:?}"),
        }
    }
    (heard, close)
}

/// Lets random clients join and leave the groups `d0..d3`.
async fn churn(broke: Broke, ids: Vec<ClientId>, mut random: Random, done: Arc<AtomicBool>) -> u64 {
    let mut changes = 0;
    while !done.load(Relaxed) {
        for _ in 0..8 {
            let id = ids[random.below(RECEIVERS)];
            let group = format!("d{}", random.below(4));
            changes += u64::from(match random.below(2) {
                0 => broke.join(id, group),
                _ => broke.leave(id, group),
            });
        }
        tokio::task::yield_now().await;
    }
    changes
}

fn check(plans: &[Plan], path: Path, receiver: usize, heard: &[(usize, u32)]) -> usize {
    let stream = |number: u32| match path {
        Path::WorkersByKey => number as usize % KEYS,
        _ => 0,
    };
    let mut got: Vec<Vec<bool>> = plans
        .iter()
        .map(|plan| vec![false; plan.must.len()])
        .collect();
    let mut last = [[None; KEYS]; SENDERS];
    for &(sender, number) in heard {
        let last = &mut last[sender][stream(number)];
        assert!(
            last.is_none_or(|last| last < number),
            "receiver {receiver} got {number} of sender {sender} after {last:?}"
        );
        *last = Some(number);
        got[sender][number as usize] = true;
    }
    for (sender, plan) in plans.iter().enumerate() {
        for (number, &got) in got[sender].iter().enumerate() {
            let (must, may) = (plan.must[number], plan.may[number]);
            let bit = 1u64 << receiver;
            assert!(
                got || must & bit == 0,
                "receiver {receiver} did not get {number} of sender {sender}"
            );
            assert!(
                !got || (must | may) & bit != 0,
                "receiver {receiver} got {number} of sender {sender}, which is not for it"
            );
        }
    }
    heard.len()
}

async fn order_holds(path: Path, what: &str) {
    let mut random = Random::seeded(what);
    let endpoints = ["a", "b"].map(|name| {
        TestEndpoint::to_logic("pass")
            .named(name)
            .options(|options| {
                options.outbox_messages = 1 << 20;
                options.outbox_bytes = 1 << 30;
            })
    });
    let encoders = [Arc::new(Lean(0)), Arc::new(Lean(0x5a))];
    let plans = Plans::default();
    let failures = Arc::new(AtomicUsize::new(0));
    let told = failures.clone();
    let broke = common::start(
        Broke::builder()
            .endpoint(endpoints[0].clone())
            .endpoint(endpoints[1].clone())
            .logic(logic(path, &plans))
            .on_error(move |failure| {
                println!("{failure}");
                told.fetch_add(1, Relaxed);
            }),
    )
    .await;
    let mut peers = Vec::new();
    for index in 0..RECEIVERS {
        // Every fifth reads little at a time.
        let capacity = if index % 5 == 4 { 200 } else { 64 << 10 };
        let (endpoint, encoder) = (&endpoints[index % 2], &encoders[index % 2]);
        let peer = Peer::connect(endpoint, encoder, capacity).await;
        assert!(broke.join(peer.id, format!("s{}", index % 8)));
        peers.push(peer);
    }
    let ids: Vec<ClientId> = peers.iter().map(|peer| peer.id).collect();
    let all: Vec<Plan> = (0..SENDERS)
        .map(|sender| plan(sender, MESSAGES / SENDERS, &ids, &mut random))
        .collect();
    assert!(plans.set(all).is_ok());
    let done = Arc::new(AtomicBool::new(false));
    let churning = tokio::spawn(churn(broke.clone(), ids, random.fork(), done.clone()));
    let (mut hearing, mut sending, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for (index, peer) in peers.into_iter().enumerate() {
        let (tell, ended) = oneshot::channel();
        hearing.push(tokio::spawn(hear(peer.ears, index % 5 == 4, tell)));
        if index < SENDERS {
            let half = PeerHalf {
                id: peer.id,
                sender: peer.sender.clone(),
                ended,
            };
            let (plans, random) = (plans.clone(), random.fork());
            sending.push(tokio::spawn(send(half, path, plans, index, random)));
        }
        // A connection lasts as long as its sending half.
        idle.push(peer.sender);
    }
    for sending in sending {
        sending.await.unwrap();
    }
    done.store(true, Relaxed);
    let changes = churning.await.unwrap();
    broke.stop().await;
    let mut deliveries = 0;
    for (receiver, hearing) in hearing.into_iter().enumerate() {
        let (heard, close) = within(hearing).await.unwrap();
        assert_eq!(close, Some(1001), "receiver {receiver}");
        deliveries += check(plans.get().unwrap(), path, receiver, &heard);
    }
    let stats = broke.stats();
    println!("{what}: {MESSAGES} messages, {deliveries} deliveries, {changes} joins and leaves");
    assert_eq!(failures.load(Relaxed), 0);
    assert_eq!((stats.full, stats.dropped, stats.panics), (0, 0, 0));
    assert!(deliveries > 4 * MESSAGES && changes > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn order_holds_past_logic() {
    order_holds(Path::PastLogic, "past logic").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn order_holds_through_a_dispatched_module() {
    order_holds(Path::Dispatched, "dispatched").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn order_holds_through_a_worker() {
    order_holds(Path::Worker, "worker").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn order_holds_for_each_key_through_several_workers() {
    order_holds(Path::WorkersByKey, "workers by key").await;
}

/// What a client says on its way into a room and out of it again, in order with the joins and leaves: the room's
/// messages before the join and behind the leave are not for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joining_and_leaving_are_in_order_with_the_messages_around() {
    const ROUNDS: usize = 2_000;
    let mut random = Random::seeded("joins");
    let endpoint = TestEndpoint::new(Targets::default()).options(|options| {
        options.outbox_messages = 1 << 20;
        options.outbox_bytes = 1 << 30;
    });
    let say =
        |ctx: &LogicContext, text: &str| ctx.send(Message::new(text.to_owned()).to_group("room"));
    let rooms = Logic::dispatched("rooms", move |message, ctx| {
        let client = message.client().ok_or("only clients")?;
        for word in String::from_utf8(message.payload().to_vec())?.split(',') {
            match word {
                "join" => assert!(ctx.join(client, "room")),
                "leave" => assert!(ctx.leave(client, "room")),
                word => drop(say(ctx, word)?),
            }
        }
        Ok(())
    });
    let broke = common::start(Broke::builder().endpoint(endpoint.clone()).logic(rooms)).await;
    let encoder = Arc::new(Lean(0));
    let mut all = Vec::new();
    for index in 0..4 {
        let peer = Peer::connect(&endpoint, &encoder, 4096).await;
        let mut random = random.fork();
        all.push(tokio::spawn(async move {
            let mut expected = Vec::new();
            let mut words: Vec<String> = Vec::new();
            let mut number = 0;
            for _ in 0..ROUNDS {
                for (inside, then) in [(false, "join"), (true, "leave")] {
                    for _ in 0..random.below(3) {
                        let word = format!("{index}-{number}");
                        number += 1;
                        if inside {
                            expected.push(word.clone());
                        }
                        words.push(word);
                    }
                    words.push(then.to_owned());
                }
                if random.below(2) == 0 {
                    let at = random.below(words.len().max(1));
                    let rest = words.split_off(at.min(words.len()));
                    let batch = [words.join(","), rest.join(",")];
                    let batch = batch.into_iter().filter(|text| !text.is_empty());
                    peer.sender
                        .send(
                            batch
                                .map(|text| Message::new(text).to_logic("rooms"))
                                .collect(),
                        )
                        .await
                        .unwrap();
                    words = Vec::new();
                }
            }
            words.push(format!("join,{index}-end"));
            expected.push(format!("{index}-end"));
            peer.sender
                .send(vec![Message::new(words.join(",")).to_logic("rooms")])
                .await
                .unwrap();
            let mut ears = peer.ears;
            let mut mine = Vec::new();
            let own = format!("{index}-");
            loop {
                match ears.next().await {
                    Some(Frame::Message(text)) => {
                        let text = String::from_utf8(text).unwrap();
                        let end = text == format!("{index}-end");
                        mine.extend(text.starts_with(&own).then_some(text));
                        if end {
                            break;
                        }
                    }
                    Some(Frame::Welcome) => {}
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(mine.len(), expected.len());
            assert_eq!(mine, expected);
        }));
    }
    for one in all {
        within(one).await.unwrap();
    }
    broke.stop().await;
}
