//! What one client's code or connection does wrong is its own affair; and no lock of the user's is held in a pass.

#![allow(
    clippy::unwrap_used,
    reason = "a test that fails by a panic has done its work"
)]

mod common;

use std::{
    cell::Cell,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use common::{Ears, Frame, Lean, Peer, Random, start, until, within};
use gobroke_core::{
    Admission, Broke, Client, ClientId, CloseReason, ConnectRequest, Encoder, ErrorFrame, Logic,
    Message, Name, Receipt, Targets, Wire,
    testing::{Pipe, TestEndpoint},
};

thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// A user's lock, of which each thread knows whether it holds it.
#[derive(Default)]
struct Lock(Mutex<()>);

struct Held<'a>(#[allow(dead_code, reason = "it is held")] MutexGuard<'a, ()>);

impl Lock {
    fn hold(&self) -> Held<'_> {
        let guard = self.0.lock().unwrap();
        HELD.set(true);
        Held(guard)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        HELD.set(false);
    }
}

/// Counts what is called on a thread that holds the lock, and what is called at all.
#[derive(Default)]
struct Watch {
    calls: AtomicUsize,
    held: AtomicUsize,
}

impl Watch {
    fn look(&self) {
        self.calls.fetch_add(1, Relaxed);
        self.held.fetch_add(HELD.get().into(), Relaxed);
    }
}

struct Watched<T>(T, Arc<Watch>);

impl Encoder for Watched<Lean> {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        self.1.look();
        self.0.message(message, out);
    }

    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        self.1.look();
        self.0.welcome(client, instance, out);
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        self.1.look();
        self.0.close(reason, out);
    }
}

impl Wire for Watched<Pipe> {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.look();
        self.0.try_write(bytes)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_writable(cx)
    }

    fn shutdown(self: Box<Self>) {
        Box::new(self.0).shutdown();
    }
}

/// All that sends, joins, leaves and closes, with the lock held.
fn busy_under_lock(
    lock: &Lock,
    broke: &gobroke_core::Reach,
    send: impl Fn(Message) -> Receipt,
    ids: &[ClientId],
) {
    let _held = lock.hold();
    for &id in ids {
        send(Message::new("direct").to_client(id));
        broke.leave(id, "room");
        broke.join(id, "room");
        send(Message::new("room").to_group("room"));
        send(Message::new("all").to_all().except(id));
        if let Some(client) = broke.local_client(id) {
            client.set_metadata("seen", true);
            client.join("other");
            client.leave("other");
        }
    }
    send(Message::new("mixed").to_all().to_logic("sink"));
}

async fn no_lock_is_held() {
    let endpoint = TestEndpoint::new(Targets::default()).options(|options| {
        options.outbox_messages = 1 << 20;
        options.outbox_bytes = 1 << 30;
    });
    let (lock, watch) = (Arc::new(Lock::default()), Arc::new(Watch::default()));
    let ids = Arc::new(Mutex::new(Vec::new()));
    let (in_plain, in_worker, in_async) = (
        (lock.clone(), ids.clone()),
        (lock.clone(), ids.clone()),
        (lock.clone(), ids.clone()),
    );
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .logic(Logic::dispatched("sink", |_, _| Ok(())))
            .logic(Logic::dispatched("plain", move |_, ctx| {
                let (lock, ids) = &in_plain;
                let ids = ids.lock().unwrap().clone();
                busy_under_lock(lock, ctx, |message| ctx.send(message).unwrap(), &ids);
                Ok(())
            }))
            .logic(Logic::worker("worker", move |_, ctx| {
                let (lock, ids) = &in_worker;
                let ids = ids.lock().unwrap().clone();
                busy_under_lock(lock, ctx, |message| ctx.send(message).unwrap(), &ids);
                Ok(())
            }))
            .logic(Logic::dispatched_async("async", move |_, ctx| {
                let (lock, ids) = in_async.clone();
                async move {
                    for _ in 0..2 {
                        let ids = ids.lock().unwrap().clone();
                        busy_under_lock(&lock, &ctx, |message| ctx.send(message).unwrap(), &ids);
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                }
            })),
    )
    .await;
    let gate = endpoint.gate().await;
    let encoder = Arc::new(Watched(Lean(0), watch.clone()));
    let mut peers = Vec::new();
    for _ in 0..4 {
        let (pipe, reader) = Pipe::bounded(256 << 10);
        let wire = Box::new(Watched(pipe, watch.clone()));
        let session = gate.connect(ConnectRequest::default(), encoder.clone(), Some(wire));
        peers.push(Peer::over(
            &gate,
            session.await.unwrap(),
            Ears::new(reader, 0),
        ));
    }
    *ids.lock().unwrap() = peers.iter().map(|peer| peer.id).collect();
    let mut reading = Vec::new();
    let mut senders = Vec::new();
    for peer in peers {
        let mut ears = peer.ears;
        reading.push(tokio::spawn(
            async move { while ears.next().await.is_some() {} },
        ));
        senders.push(peer.sender);
    }
    let ids = ids.lock().unwrap().clone();
    for _ in 0..50 {
        for sender in &senders {
            let to = ["plain", "worker", "async"].map(|logic| Message::new("go").to_logic(logic));
            sender.send(to.to_vec()).await.unwrap();
        }
        // From outside of a turn: from a task, and from a thread that knows no runtime.
        busy_under_lock(&lock, &broke, |message| broke.send(message).unwrap(), &ids);
        let (broke, lock, ids) = (broke.clone(), lock.clone(), ids.clone());
        let send = move || {
            busy_under_lock(&lock, &broke, |message| broke.send(message).unwrap(), &ids);
        };
        std::thread::spawn(send).join().unwrap();
        tokio::task::yield_now().await;
    }
    // A session may end anywhere.
    let (pipe, _reader) = Pipe::bounded(1 << 20);
    let session = gate.connect(
        ConnectRequest::default(),
        encoder.clone(),
        Some(Box::new(pipe)),
    );
    let session = session.await.unwrap();
    {
        let _held = lock.hold();
        session.client().join("room");
        session.close(CloseReason::Normal);
        drop(session);
        for &id in &ids {
            broke.disconnect(id, CloseReason::Normal);
        }
    }
    for reading in reading {
        within(reading).await.unwrap();
    }
    assert!(watch.calls.load(Relaxed) > 1000);
    assert_eq!(watch.held.load(Relaxed), 0);
    assert_eq!(broke.stats().logic_panics, 0);
    broke.stop().await;
}

#[tokio::test]
async fn a_users_lock_that_is_held_while_sending_is_never_held_in_a_pass() {
    no_lock_is_held().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_users_lock_is_never_held_in_a_pass_with_threads_either() {
    no_lock_is_held().await;
}

/// Panics where it is told to.
#[derive(Default)]
struct Explosive {
    welcome: AtomicBool,
    error: AtomicBool,
    ping: AtomicBool,
    close: AtomicBool,
}

fn explode(when: &AtomicBool) {
    assert!(!when.load(Relaxed), "this encoder was told to panic");
}

impl Encoder for Explosive {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        if message.payload().starts_with(b"poison") {
            out.extend_from_slice(b"half a frame");
            panic!("this encoder was given poison");
        }
        Lean(0).message(message, out);
    }

    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        explode(&self.welcome);
        Lean(0).welcome(client, instance, out);
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        explode(&self.error);
        Lean(0).error(error, out);
    }

    fn ping(&self, out: &mut Vec<u8>) {
        explode(&self.ping);
        Lean(0).ping(out);
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        explode(&self.close);
        Lean(0).close(reason, out);
    }
}

async fn texts(ears: &mut Ears) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(frame) = ears.next().await {
        match frame {
            Frame::Message(payload) => texts.push(String::from_utf8(payload).unwrap()),
            Frame::Close(code) => texts.push(code.to_string()),
            Frame::Error(code) => texts.push(code),
            Frame::Welcome | Frame::Ping => {}
        }
    }
    texts
}

#[tokio::test]
async fn a_codec_that_panics_costs_those_it_writes_for_and_nobody_else() {
    let endpoint = TestEndpoint::new(Targets::default());
    let broke = start(Broke::builder().endpoint(endpoint.clone()).lanes(1)).await;
    let explosive = Arc::new(Explosive::default());
    let connect = || Peer::connect_with(&endpoint, explosive.clone(), 0, 64 << 10);
    let (mut direct, mut room, mut spared, mut late) = (
        connect().await,
        connect().await,
        connect().await,
        connect().await,
    );
    let mut other = Peer::connect(&endpoint, &Arc::new(Lean(7)), 64 << 10).await;
    for peer in [&room, &spared, &other] {
        peer.client.join("room");
    }
    let send = |message: Message| broke.send(message).unwrap();
    send(Message::new("before").to_all());
    send(Message::new("poison for one").to_client(direct.id));
    // One run for the room; one of its members is left out of the poison, one comes after it.
    send(Message::new("first").to_group("room"));
    send(
        Message::new("poison for the room")
            .to_group("room")
            .except(spared.id),
    );
    late.client.join("room");
    send(Message::new("last").to_group("room"));
    send(Message::new("after").to_all());
    until("two are gone", || broke.stats().clients == 3).await;
    broke.stop().await;
    // Nothing of what the panic left behind is sent: those who go see no half frame.
    assert!(texts(&mut direct.ears).await.is_empty());
    assert!(texts(&mut room.ears).await.is_empty());
    let expected =
        |middle: &[&'static str]| [&["before"], middle, &["last", "after", "1001"]].concat();
    assert_eq!(texts(&mut spared.ears).await, expected(&["first"]));
    assert_eq!(texts(&mut late.ears).await, expected(&[]));
    assert_eq!(
        texts(&mut other.ears).await,
        expected(&["first", "poison for the room"])
    );
    assert!(broke.stats().panics >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_codec_that_panics_in_a_control_frame_costs_its_client() {
    let endpoint = TestEndpoint::new(Targets::default());
    let broke = start(Broke::builder().endpoint(endpoint.clone())).await;
    let mut innocent = Peer::connect(&endpoint, &Arc::new(Lean(0)), 64 << 10).await;
    let explosive = Arc::new(Explosive::default());
    let connect = || Peer::connect_with(&endpoint, explosive.clone(), 0, 64 << 10);

    explosive.welcome.store(true, Relaxed);
    assert!(texts(&mut connect().await.ears).await.is_empty());
    explosive.welcome.store(false, Relaxed);

    explosive.error.store(true, Relaxed);
    let mut peer = connect().await;
    peer.sender
        .send(vec![Message::new("no target")])
        .await
        .unwrap();
    assert!(texts(&mut peer.ears).await.is_empty());

    let mut peer = connect().await;
    explosive.close.store(true, Relaxed);
    peer.client.disconnect(CloseReason::Normal);
    assert!(texts(&mut peer.ears).await.is_empty());

    let mut peer = connect().await;
    explosive.ping.store(true, Relaxed);
    let begin = tokio::time::Instant::now();
    assert!(texts(&mut peer.ears).await.is_empty());
    assert!(begin.elapsed() < Duration::from_secs(26));

    assert_eq!(broke.stats().panics, 4);
    broke.send(Message::new("still here").to_all()).unwrap();
    broke.stop().await;
    assert_eq!(texts(&mut innocent.ears).await, ["still here", "1001"]);
    assert_eq!(broke.stats().clients, 0);
}

/// Which method of a wire panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Panics {
    TryWrite,
    PollWritable,
    Shutdown,
    Drop,
}

struct Faulty {
    pipe: Pipe,
    panics: Panics,
    armed: Arc<AtomicBool>,
}

impl Faulty {
    fn at(&self, what: Panics) {
        let now = self.panics == what && self.armed.load(Relaxed);
        assert!(!now, "this wire panics at {what:?}");
    }
}

impl Wire for Faulty {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.at(Panics::TryWrite);
        match self.panics {
            Panics::Drop if self.armed.load(Relaxed) => Err(io::ErrorKind::BrokenPipe.into()),
            _ => self.pipe.try_write(bytes),
        }
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.at(Panics::PollWritable);
        self.pipe.poll_writable(cx)
    }

    fn shutdown(self: Box<Self>) {
        self.at(Panics::Shutdown);
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.at(Panics::Drop);
        }
    }
}

#[tokio::test]
async fn a_wire_that_panics_costs_its_client_and_nobody_else() {
    for panics in [
        Panics::TryWrite,
        Panics::PollWritable,
        Panics::Shutdown,
        Panics::Drop,
    ] {
        let endpoint = TestEndpoint::new(Targets::default());
        let talk = Logic::dispatched("talk", |message, ctx| {
            ctx.broadcast(message)?;
            Ok(())
        });
        let broke = start(
            Broke::builder()
                .endpoint(endpoint.clone())
                .lanes(1)
                .logic(talk),
        )
        .await;
        let gate = endpoint.gate().await;
        let lean = Arc::new(Lean(0));
        let mut first = Peer::connect(&endpoint, &lean, 64 << 10).await;
        let armed = Arc::new(AtomicBool::new(false));
        let (pipe, reader) = Pipe::bounded(100);
        let wire = Faulty {
            pipe,
            panics,
            armed: armed.clone(),
        };
        let session = gate.connect(
            ConnectRequest::default(),
            lean.clone(),
            Some(Box::new(wire)),
        );
        let faulty = Peer::over(&gate, session.await.unwrap(), Ears::new(reader, 0));
        let mut last = Peer::connect(&endpoint, &lean, 64 << 10).await;
        armed.store(true, Relaxed);
        // The pass is made by an innocent client's door.
        let say = |text: &'static str| vec![Message::new(text).to_logic("talk")];
        let long = "a text that does not fit into a pipe of one hundred bytes: the rest of it waits, so that somebody \
                    has to ask whether it may be written";
        first.sender.send(say(long)).await.unwrap();
        if panics == Panics::Shutdown {
            faulty.client.disconnect(CloseReason::Normal);
            // What waits is read, so that the wire is shut down.
            let mut ears = faulty.ears;
            tokio::spawn(async move { while ears.next().await.is_some() {} });
        }
        until("it is gone", || broke.stats().clients == 2).await;
        assert!(!first.sender.is_closed() && !last.sender.is_closed());
        last.sender.send(say("still here")).await.unwrap();
        until("they hear it", || broke.stats().received == 2).await;
        assert_eq!(broke.stats().panics, 1, "{panics:?}");
        broke.stop().await;
        for peer in [&mut first, &mut last] {
            assert_eq!(
                texts(&mut peer.ears).await,
                [long, "still here", "1001"],
                "{panics:?}"
            );
        }
    }
}

/// What panics when it is dropped: at the end of a pass, where nobody catches it.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::resume_unwind(Box::new("a bomb"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_panics_loses_nothing_that_is_queued_behind_it() {
    // As much as a pass takes at a time.
    const PASS: usize = 256 << 10;
    // Nothing else is queued: no ping.
    let endpoint = TestEndpoint::new(Targets::default())
        .options(|options| options.ping_interval = None)
        .capacity(4 * PASS);
    let broke = Broke::builder()
        .lanes(1)
        .endpoint(endpoint.clone())
        .start()
        .await
        .unwrap();
    let mut client = endpoint.connect().await.unwrap();
    let mut bomb = Message::new(vec![0; PASS]).to_client(client.id());
    bomb.set_extension(Bomb);
    broke.send(bomb).unwrap();
    let behind = Message::new("behind it").to_client(client.id());
    broke.send(behind).unwrap();
    assert_eq!(client.next().await.unwrap().payload().len(), PASS);
    assert_eq!(client.next_text().await.as_deref(), Some("behind it"));
    assert_eq!(broke.stats().panics, 1);
    broke.stop().await;
}

#[tokio::test]
async fn a_late_join_or_the_end_of_an_older_session_leaves_a_newer_one_alone() {
    let endpoint = TestEndpoint::new(Targets::default());
    let id = ClientId::new();
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .on_connect(move |_| async move { Ok(Admission::identified(id).in_group("room")) }),
    )
    .await;
    let lean = Arc::new(Lean(0));
    let gate = endpoint.gate().await;
    let (pipe, reader) = Pipe::bounded(64 << 10);
    let older = gate.connect(
        ConnectRequest::default(),
        lean.clone(),
        Some(Box::new(pipe)),
    );
    let older = older.await.unwrap();
    let mut older_ears = Ears::new(reader, 0);
    let mut newer = Peer::connect(&endpoint, &lean, 64 << 10).await;
    assert_eq!((older.client().id(), newer.id), (id, id));
    assert!(older.client().is_closed() && !newer.client.is_closed());
    // The older session's hands are bound; what is asked for by id reaches the newer.
    assert!(!older.client().join("late"));
    assert!(!older.client().leave("room"));
    older
        .client()
        .disconnect(CloseReason::Kicked("not you".into()));
    assert_eq!(broke.group_members("late").len(), 0);
    assert_eq!(broke.group_members("room").len(), 1);
    broke.send(Message::new("direct").to_client(id)).unwrap();
    let mut older = older;
    let (_, mut outgoing) = older.halves();
    assert_eq!(within(outgoing.drive()).await, CloseReason::Replaced);
    drop(older);
    assert_eq!(texts(&mut older_ears).await, ["4003"]);
    until("the older one is out of the room", || {
        broke.group_size("room") == 1
    })
    .await;
    assert_eq!(broke.stats().clients, 1);
    broke
        .send(Message::new("direct again").to_client(id))
        .unwrap();
    broke.send(Message::new("room").to_group("room")).unwrap();
    broke.send(Message::new("all").to_all()).unwrap();
    broke.stop().await;
    assert_eq!(
        texts(&mut newer.ears).await,
        ["direct", "direct again", "room", "all", "1001"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_sessions_of_one_client_overtake_each_other_one_is_left() {
    let mut random = Random::seeded("overtaking");
    let endpoint = TestEndpoint::new(Targets::default());
    let ids: Arc<Vec<ClientId>> = Arc::new((0..4).map(|_| ClientId::new()).collect());
    let turn = Arc::new(AtomicUsize::new(0));
    let (known, whose) = (ids.clone(), turn.clone());
    let broke = start(
        Broke::builder()
            .endpoint(endpoint.clone())
            .on_connect(move |_| {
                let id = known[whose.fetch_add(1, Relaxed) % known.len()];
                async move { Ok(Admission::identified(id).in_group("room")) }
            }),
    )
    .await;
    let lean = Arc::new(Lean(0));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (endpoint, lean, broke, ids) =
            (endpoint.clone(), lean.clone(), broke.clone(), ids.clone());
        let mut random = random.fork();
        tasks.push(tokio::spawn(async move {
            let mut kept = Vec::new();
            for round in 0..200 {
                let peer = Peer::connect(&endpoint, &lean, 64 << 10).await;
                let id = ids[random.below(ids.len())];
                broke.join(id, "other");
                peer.client.join("own");
                broke.leave(id, "other");
                if random.below(2) == 0 {
                    drop(peer);
                } else {
                    kept.push(peer);
                }
                if round % 20 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            kept
        }));
    }
    let mut peers = Vec::new();
    for task in tasks {
        peers.extend(within(task).await.unwrap());
    }
    let mut last = Vec::new();
    for _ in 0..ids.len() {
        last.push(Peer::connect(&endpoint, &lean, 64 << 10).await);
    }
    for mut peer in peers {
        let end = texts(&mut peer.ears).await;
        assert_eq!(end.last().map(String::as_str), Some("4003"));
    }
    until("those that were replaced are gone", || {
        let stats = broke.stats();
        stats.connected - stats.disconnected == 4 && stats.lane_bytes == 0
    })
    .await;
    let stats = broke.stats();
    // Nobody is left in `own`, and `other` only whom the last ones found there.
    assert_eq!(
        (
            stats.clients,
            broke.group_size("room"),
            broke.group_size("own")
        ),
        (4, 4, 0)
    );
    assert_eq!(
        broke.group_size("other"),
        broke.group_members("other").len()
    );
    broke.send(Message::new("here").to_group("room")).unwrap();
    for peer in &last {
        broke.send(Message::new("you").to_client(peer.id)).unwrap();
    }
    broke.stop().await;
    for mut peer in last {
        assert_eq!(texts(&mut peer.ears).await, ["here", "you", "1001"]);
    }
}
