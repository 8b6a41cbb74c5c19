//! What stands between a router and a cluster: look-ups, bounds, and a place that is lost; on an implementation of the
//! seam whose directory and carrier can be held up.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use gobroke_core::{
    Broke, ClientId, ClientInfo, Message, Name, SendError, Source, Targets, async_trait,
    cluster::{
        Changes, Claim, Cluster, ClusterError, ClusterStats, Count, Cursor, Full, Inbox,
        Incarnation, InstanceId, Membership, MemoryCluster, Notice, Page, Record, Registered, To,
        Whereabouts,
    },
    testing::{TestClient, TestEndpoint},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// A cluster within the process that can be held up.
#[derive(Clone)]
struct Gated {
    inner: MemoryCluster,
    gates: Arc<Gates>,
}

struct Gates {
    directory: watch::Sender<bool>,
    carrier: watch::Sender<bool>,
    writes: watch::Sender<bool>,
    /// Of whom it is not known yet where they are.
    unknown: Mutex<Vec<ClientId>>,
    /// How many questions were asked for places.
    questions: AtomicUsize,
    /// Who joined, in order.
    joined: Mutex<Vec<InstanceId>>,
    /// What each of them is told by.
    inboxes: Mutex<Vec<Inbox>>,
    /// Every client is said to be on one of those that joined second and third, in turn.
    lies: AtomicBool,
    /// What is published goes nowhere.
    swallows: AtomicBool,
}

impl Gated {
    fn new() -> Self {
        let gates = Gates {
            directory: watch::Sender::new(true),
            carrier: watch::Sender::new(true),
            writes: watch::Sender::new(true),
            unknown: Mutex::default(),
            questions: AtomicUsize::new(0),
            joined: Mutex::default(),
            inboxes: Mutex::default(),
            lies: AtomicBool::new(false),
            swallows: AtomicBool::new(false),
        };
        Self {
            inner: MemoryCluster::new(),
            gates: Arc::new(gates),
        }
    }

    fn directory(&self, open: bool) {
        self.gates.directory.send_replace(open);
    }

    fn carrier(&self, open: bool) {
        self.gates.carrier.send_replace(open);
    }
}

#[async_trait]
impl Cluster for Gated {
    async fn join(&self, name: &Name, inbox: Inbox) -> Result<Box<dyn Membership>, ClusterError> {
        let inner = self.inner.join(name, inbox.clone()).await?;
        self.gates.inboxes.lock().expect("no panic").push(inbox);
        let gates = self.gates.clone();
        let id = InstanceId::new(name, inner.incarnation());
        gates.joined.lock().expect("no panic").push(id);
        Ok(Box::new(Place { inner, gates }))
    }
}

struct Place {
    inner: Box<dyn Membership>,
    gates: Arc<Gates>,
}

async fn open(gate: &watch::Sender<bool>) {
    gate.subscribe()
        .wait_for(|open| *open)
        .await
        .expect("the gate stays");
}

#[async_trait]
impl Membership for Place {
    fn lease(&self) -> Duration {
        self.inner.lease()
    }

    async fn claim(
        &self,
        logic: &Name,
        held: Option<u64>,
        take: bool,
    ) -> Result<Claim, ClusterError> {
        self.inner.claim(logic, held, take).await
    }

    async fn release(&self, logic: &Name, token: u64) -> Result<(), ClusterError> {
        self.inner.release(logic, token).await
    }

    fn incarnation(&self) -> Incarnation {
        self.inner.incarnation()
    }

    fn publish(&self, to: &To, frame: Bytes) -> Result<(), Full> {
        if !*self.gates.carrier.borrow() {
            return Err(Full);
        }
        if self.gates.swallows.load(Relaxed) {
            return Ok(());
        }
        self.inner.publish(to, frame)
    }

    async fn room(&self) {
        open(&self.gates.carrier).await;
        self.inner.room().await;
    }

    async fn write(&self, changes: &Changes) -> Result<Vec<Registered>, ClusterError> {
        open(&self.gates.writes).await;
        self.inner.write(changes).await
    }

    async fn replace(&self, record: &Record) -> Result<Vec<Registered>, ClusterError> {
        self.inner.replace(record).await
    }

    async fn locate(&self, clients: &[ClientId]) -> Result<Vec<Whereabouts>, ClusterError> {
        let question = self.gates.questions.fetch_add(1, Relaxed);
        open(&self.gates.directory).await;
        if self.gates.lies.load(Relaxed) {
            let joined = self.gates.joined.lock().expect("no panic");
            let lie = joined[1 + question % 2].clone();
            let lies = clients.iter().map(|_| Whereabouts::At(lie.clone()));
            return Ok(lies.collect());
        }
        let mut located = self.inner.locate(clients).await?;
        let unknown = self.gates.unknown.lock().expect("no panic");
        for (client, at) in clients.iter().zip(&mut located) {
            if unknown.contains(client) {
                *at = Whereabouts::Unknown;
            }
        }
        Ok(located)
    }

    async fn group_instances(&self, groups: &[Name]) -> Result<Vec<Vec<InstanceId>>, ClusterError> {
        self.gates.questions.fetch_add(1, Relaxed);
        open(&self.gates.directory).await;
        self.inner.group_instances(groups).await
    }

    async fn client(&self, client: ClientId) -> Result<Option<ClientInfo>, ClusterError> {
        self.inner.client(client).await
    }

    async fn clients(
        &self,
        group: Option<&Name>,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Page, ClusterError> {
        self.inner.clients(group, cursor, limit).await
    }

    async fn count(&self) -> Result<Count, ClusterError> {
        self.inner.count().await
    }

    async fn leave(&self) {
        self.inner.leave().await;
    }
}

async fn start(cluster: impl Cluster, name: &str) -> (Broke, TestEndpoint) {
    let endpoint = TestEndpoint::new(Targets::default())
        .options(|options| options.ping_interval = None)
        .capacity(64 << 20);
    let broke = Broke::builder()
        .instance(name)
        .endpoint(endpoint.clone())
        .cluster(cluster)
        .start()
        .await
        .expect("it starts");
    (broke, endpoint)
}

fn stats(broke: &Broke) -> ClusterStats {
    broke.stats().cluster.expect("there is a cluster")
}

async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so().await {
        assert!(Instant::now() < end, "it does not happen: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Two instances that know each other, and a client on the second one that the first knows of.
async fn two(cluster: &Gated) -> [(Broke, TestEndpoint); 2] {
    let one = start(cluster.clone(), "one").await;
    let two = start(cluster.clone(), "two").await;
    until("they know each other", async || {
        !one.0.instances().is_empty()
    })
    .await;
    [one, two]
}

async fn connect(to: &(Broke, TestEndpoint), seen_by: &Broke) -> TestClient {
    let client = to.1.connect().await.expect("it is admitted");
    until("it is in the directory", async || {
        matches!(seen_by.client(client.id()).await, Ok(Some(_)))
    })
    .await;
    client
}

async fn expect(client: &mut TestClient, text: &str) {
    assert_eq!(client.next_text().await.as_deref(), Some(text));
}

#[tokio::test(start_paused = true)]
async fn a_look_up_holds_back_its_sender_alone_and_all_of_what_that_sends() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let (ann, carl) = (connect(&one, &two.0).await, connect(&one, &two.0).await);
    let mut bob = connect(&two, &one.0).await;
    let mut dora = connect(&two, &one.0).await;
    cluster.directory(false);
    ann.send_message(Message::new("ann to bob").to_client(bob.id()))
        .await;
    ann.send_message(Message::new("ann to the room").to_group("room"))
        .await;
    ann.send_message(Message::new("ann to all").to_all()).await;
    carl.send_message(Message::new("carl to all").to_all())
        .await;
    expect(&mut bob, "carl to all").await;
    expect(&mut dora, "carl to all").await;
    assert!(stats(&one.0).queue_bytes > 0);
    cluster.directory(true);
    expect(&mut bob, "ann to bob").await;
    expect(&mut bob, "ann to all").await;
    expect(&mut dora, "ann to all").await;

    // What was found is not asked for again.
    let questions = cluster.gates.questions.load(Relaxed);
    for _ in 0..100 {
        ann.send_message(Message::new("again").to_client(bob.id()).to_group("room"))
            .await;
        expect(&mut bob, "again").await;
    }
    // Nor where the sender of what came is.
    two.0
        .send(Message::new("an answer").to_client(ann.id()))
        .expect("it is sent");
    let mut ann = ann;
    until("it came", async || stats(&one.0).received > 0).await;
    for own in ["ann to all", "carl to all"] {
        expect(&mut ann, own).await;
    }
    expect(&mut ann, "an answer").await;
    assert_eq!(cluster.gates.questions.load(Relaxed), questions);
}

#[tokio::test(start_paused = true)]
async fn of_whom_it_is_not_known_yet_where_it_is_holds_up_nobody_else() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let (ann, carl) = (connect(&one, &two.0).await, connect(&one, &two.0).await);
    let mut bob = connect(&two, &one.0).await;
    let mut dora = connect(&two, &one.0).await;
    let unknown = |clients| *cluster.gates.unknown.lock().expect("no panic") = clients;
    unknown(vec![bob.id()]);
    let begun = Instant::now();
    ann.send_message(Message::new("to bob").to_client(bob.id()))
        .await;
    carl.send_message(Message::new("to dora").to_client(dora.id()))
        .await;
    expect(&mut dora, "to dora").await;
    assert!(begun.elapsed() < Duration::from_millis(400));
    unknown(Vec::new());
    expect(&mut bob, "to bob").await;
    assert_eq!((stats(&one.0).dropped, stats(&one.0).unknown), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_not_taken_for_what_waits_now() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let (ann, carl) = (connect(&one, &two.0).await, connect(&one, &two.0).await);
    let mut bob = connect(&two, &one.0).await;
    let mut dora = connect(&two, &one.0).await;
    let eve = connect(&two, &one.0).await;
    cluster.directory(false);
    ann.send_message(Message::new("for bob").to_client(bob.id()))
        .await;
    sleep(Duration::from_millis(300)).await;
    // Somebody else is held back meanwhile.
    carl.send_message(Message::new("for eve").to_client(eve.id()))
        .await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(stats(&one.0).dropped, 1);
    ann.send_message(Message::new("for dora").to_client(dora.id()))
        .await;
    sleep(Duration::from_millis(10)).await;
    cluster.directory(true);
    expect(&mut dora, "for dora").await;
    // Nothing that was for others came before.
    two.0
        .send(Message::new("end").to_client(bob.id()))
        .expect("it is sent");
    expect(&mut bob, "end").await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_takes_long_is_not_begun_anew() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    cluster.gates.writes.send_replace(false);
    let ann = one.1.connect().await.expect("it is admitted");
    sleep(Duration::from_secs(60)).await;
    assert!(matches!(two.0.client(ann.id()).await, Ok(None)));
    cluster.gates.writes.send_replace(true);
    until("it is in the directory", async || {
        matches!(two.0.client(ann.id()).await, Ok(Some(_)))
    })
    .await;
    assert_eq!(stats(&one.0).failed_writes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_wrong_sends_nothing_in_circles() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let three = start(cluster.clone(), "three").await;
    until("all know each other", async || one.0.instances().len() == 2).await;
    cluster.gates.lies.store(true, Relaxed);
    let message = Message::new("to nobody").to_client(ClientId::new());
    one.0.send(message).expect("it is looked up");
    until("it is counted", async || stats(&one.0).unknown == 1).await;
    sleep(Duration::from_secs(5)).await;
    let [here, there, other] = [&one, &two, &three].map(|instance| stats(&instance.0));
    assert_eq!((here.sent, here.redirected, here.unknown), (2, 1, 1));
    assert_eq!(there.handed_back + other.handed_back, 2);
    assert_eq!(
        (there.sent, other.sent),
        (1, 1),
        "each gives it back to its origin alone"
    );
}

#[tokio::test]
async fn who_sends_to_more_clients_than_an_instance_remembers_has_it_remember_no_more() {
    const REMEMBERED: usize = 65_536;
    const AT_ONCE: usize = 1024;
    let cluster = Gated::new();
    let [one, _two] = two(&cluster).await;
    let _three = start(cluster.clone(), "three").await;
    until("all know each other", async || one.0.instances().len() == 2).await;
    cluster.gates.lies.store(true, Relaxed);
    cluster.gates.swallows.store(true, Relaxed);
    let mut most = 0;
    for _ in 0..2 * REMEMBERED / AT_ONCE {
        let to = (0..AT_ONCE).fold(Message::new("x"), |message, _| {
            message.to_client(ClientId::new())
        });
        one.0.send(to).expect("it is looked up");
        until("it is sent", async || stats(&one.0).queue_bytes == 0).await;
        most = most.max(stats(&one.0).known_clients);
    }
    assert!((REMEMBERED / 2..=REMEMBERED).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_takes_too_long_is_given_up_and_counted() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let ann = connect(&one, &two.0).await;
    let mut bob = connect(&two, &one.0).await;
    cluster.directory(false);
    let start = Instant::now();
    ann.send_message(Message::new("to bob").to_client(bob.id()))
        .await;
    ann.send_message(Message::new("to all").to_all()).await;
    expect(&mut bob, "to all").await;
    let took = start.elapsed();
    let half = Duration::from_millis(500);
    assert!(took >= half && took < half * 2, "{took:?}");
    assert_eq!(stats(&one.0).dropped, 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_queue_does_not_take_is_refused_whole_and_what_it_took_arrives() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let mut ann = connect(&one, &two.0).await;
    let mut bob = connect(&two, &one.0).await;
    cluster.carrier(false);
    let payload = vec![b'x'; 100_000];
    let mut taken = 0;
    let refused = loop {
        let message = Message::new(payload.clone()).to_all();
        match one.0.send(message) {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
        // What is for here alone goes on.
        ann.next().await.expect("it comes");
    };
    let SendError::Full { queue, message } = refused else {
        panic!("{refused}")
    };
    assert_eq!(
        (queue.as_str(), message.payload().len()),
        ("cluster", 100_000)
    );
    assert!(
        (70..=90).contains(&taken),
        "8 MiB in pieces of 100 kB: {taken}"
    );
    one.0
        .send(Message::new("here").to_client(ann.id()))
        .expect("it is not for elsewhere");
    expect(&mut ann, "here").await;
    cluster.carrier(true);
    for _ in 0..taken {
        assert_eq!(bob.next().await.expect("it comes").payload().len(), 100_000);
    }
    one.0.send(*message).expect("there is room again");
    assert_eq!(bob.next().await.expect("it comes").payload().len(), 100_000);
    let stats = stats(&one.0);
    assert_eq!(
        (stats.sent, stats.dropped, stats.queue_bytes),
        (taken + 1, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_door_waits_while_the_clusters_queue_is_above_half() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let ann = connect(&one, &two.0).await;
    let mut bob = connect(&two, &one.0).await;
    cluster.carrier(false);
    let sending = tokio::spawn(async move {
        for number in 0..200 {
            let message = Message::new(vec![number; 100_000]).to_client(ClientId::new());
            ann.send_message(message.to_all()).await;
        }
        ann
    });
    until("the queue fills", async || {
        stats(&one.0).queue_bytes > 4 << 20
    })
    .await;
    // The socket's window would be closed by now: its sender does not get any further.
    sleep(Duration::from_secs(5)).await;
    assert!(!sending.is_finished());
    assert!(stats(&one.0).queue_bytes <= 8 << 20);
    cluster.carrier(true);
    for number in 0..200 {
        assert_eq!(bob.next().await.expect("it comes").payload()[0], number);
    }
    sending.await.expect("it ends");
    assert_eq!(one.0.stats().full, 0, "no send was refused");
}

#[tokio::test(start_paused = true)]
async fn while_the_cluster_is_away_the_queue_is_bounded_and_nobody_here_waits_for_it() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let mut ann = connect(&one, &two.0).await;
    let mut bob = connect(&two, &one.0).await;
    // Its door waits for the cluster already when that goes away.
    cluster.carrier(false);
    for _ in 0..60 {
        let message = Message::new(vec![0; 100_000]).to_all();
        one.0.send(message).expect("there is room");
        ann.next().await.expect("it comes");
    }
    cluster.inner.away("one", true);
    cluster.carrier(true);
    until("it knows", async || !one.0.is_ready()).await;
    for _ in 0..100 {
        ann.send_message(Message::new(vec![1; 100_000]).to_all())
            .await;
        let patience = Duration::from_secs(1);
        let here = timeout(patience, ann.next()).await;
        assert!(here.expect("local traffic goes on").is_some());
    }
    let waiting = stats(&one.0);
    assert!(waiting.queue_bytes <= 8 << 20, "{waiting:?}");
    assert!((60..=90).contains(&waiting.dropped), "{waiting:?}");
    cluster.inner.away("one", false);
    let kept = 160 - waiting.dropped;
    for _ in 0..kept {
        bob.next().await.expect("what was kept comes");
    }
    one.0
        .send(Message::new("end").to_client(bob.id()))
        .expect("it is sent");
    expect(&mut bob, "end").await;
    assert_eq!(stats(&one.0).dropped, waiting.dropped);
}

#[tokio::test(start_paused = true)]
async fn what_waited_goes_as_soon_as_it_can_though_not_all_is_heard_yet() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let mut bob = connect(&two, &one.0).await;
    let tell = |notice| {
        let inboxes = cluster.gates.inboxes.lock().expect("no panic");
        inboxes[0].notice(notice);
    };
    let ready = async |ready: bool| until("it is told", async || one.0.is_ready() == ready).await;
    tell(Notice::Away);
    ready(false).await;
    let send = |text, to: &TestClient| {
        let sent = one.0.send(Message::new(text).to_client(to.id()));
        sent.expect("there is room");
    };
    send("waited", &bob);
    assert!(stats(&one.0).queue_bytes > 0);
    tell(Notice::Deaf);
    expect(&mut bob, "waited").await;
    cluster.gates.swallows.store(true, Relaxed);
    send("lost on the way", &bob);
    cluster.gates.swallows.store(false, Relaxed);
    expect(&mut bob, "lost on the way").await;
    assert!(!one.0.is_ready());
    tell(Notice::Back);
    ready(true).await;
    tell(Notice::Deaf);
    ready(false).await;
    send("nobody waits", &bob);
    expect(&mut bob, "nobody waits").await;
    assert!(!one.0.is_ready());
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_while_the_cluster_is_away_counts_once_for_each_instance() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let three = start(cluster.clone(), "three").await;
    until("all know each other", async || one.0.instances().len() == 2).await;
    let (bob, carl) = (connect(&two, &one.0).await, connect(&three, &one.0).await);
    // Of these it is known where they are.
    for client in [&bob, &carl] {
        let known = Message::new("known").to_client(client.id());
        one.0.send(known).expect("it is sent");
    }
    until("both are known", async || {
        stats(&one.0).known_clients == 2 && stats(&one.0).queue_bytes == 0
    })
    .await;
    cluster.inner.away("one", true);
    until("it knows", async || !one.0.is_ready()).await;
    let mut owed = 0;
    for _ in 0..100 {
        let to_all = Message::new(vec![0; 100_000]).to_all();
        one.0.send(to_all).expect("it is kept, or dropped");
        let to_both = Message::new(vec![0; 100_000])
            .to_client(bob.id())
            .to_client(carl.id());
        one.0.send(to_both).expect("it is kept, or dropped");
        // Lanes here have room again.
        sleep(Duration::from_millis(1)).await;
        owed += 4;
    }
    let dropped = stats(&one.0).dropped;
    assert!(dropped > 0);
    cluster.inner.away("one", false);
    until("what was kept is there", async || {
        let came = stats(&two.0).received + stats(&three.0).received;
        // Two more were for the places.
        came == owed + 2 - dropped
    })
    .await;
    sleep(Duration::from_secs(5)).await;
    let came = stats(&two.0).received + stats(&three.0).received;
    assert_eq!((came, stats(&one.0).dropped), (owed + 2 - dropped, dropped));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_was_removed_joins_anew_with_its_clients() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let mut ann = connect(&one, &two.0).await;
    let mut bob = connect(&two, &one.0).await;
    assert!(two.0.join(bob.id(), "room"));
    one.0
        .send(Message::new("before").to_client(bob.id()))
        .expect("it is sent");
    expect(&mut bob, "before").await;
    cluster.inner.expel("two");
    until("it is back, with its client and its group", async || {
        let listed = one.0.members("room").await;
        listed.len() == 1 && two.0.is_ready() && one.0.instances() == ["two"]
    })
    .await;
    one.0
        .send(Message::new("after").to_client(bob.id()).to_group("room"))
        .expect("it is sent");
    expect(&mut bob, "after").await;
    two.0
        .send(Message::new("answer").to_client(ann.id()).to_all())
        .expect("it is sent");
    expect(&mut ann, "answer").await;
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_waited_until_its_instance_joined_anew_has_its_time_from_then_on() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let mut bob = connect(&two, &one.0).await;
    cluster.directory(false);
    cluster.inner.away("one", true);
    until("it knows", async || !one.0.is_ready()).await;
    one.0
        .send(Message::new("waits").to_client(bob.id()))
        .expect("it is kept");
    // Longer than a look-up may take.
    sleep(Duration::from_secs(1)).await;
    cluster.inner.expel("one");
    cluster.inner.away("one", false);
    until("it is back", async || {
        one.0.is_ready() && one.0.instances() == ["two"]
    })
    .await;
    // Shorter, but longer than until it is seen to that none takes longer.
    sleep(Duration::from_millis(200)).await;
    cluster.directory(true);
    expect(&mut bob, "waits").await;
    assert_eq!(stats(&one.0).dropped, 0);
}

#[tokio::test(start_paused = true)]
async fn of_two_instances_of_one_name_the_newer_has_it_and_the_older_admits_nobody() {
    let cluster = Gated::new();
    let [one, older] = two(&cluster).await;
    let mut bob = connect(&older, &one.0).await;
    let newer = start(cluster.clone(), "two").await;
    until("the older one knows", async || !older.0.is_ready()).await;
    let refusal = older.1.connect().await.expect_err("it admits nobody");
    assert_eq!(refusal.status(), 503);
    assert!(newer.0.is_ready());
    let mut ann = connect(&newer, &one.0).await;
    one.0
        .send(Message::new("to the newer").to_all())
        .expect("it is sent");
    expect(&mut ann, "to the newer").await;
    // Who was connected stays, and is served here.
    older
        .0
        .send(Message::new("local").to_client(bob.id()))
        .expect("it is sent");
    expect(&mut bob, "local").await;
    assert_eq!(one.0.clients().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_of_another_instance_say_where_they_come_from_and_keep_what_travels() {
    let cluster = Gated::new();
    let [one, two] = two(&cluster).await;
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let watch = gobroke_core::Logic::dispatched("watch", move |message: Message, _: &_| {
        sender.send(message).map_err(|_| "nobody listens")?;
        Ok(())
    });
    two.0.add_logic(watch).expect("it is added");
    let bob = connect(&two, &one.0).await;
    let message = Message::text("hello")
        .to_client(bob.id())
        .with_metadata("trace", 7)
        .with_tag("priority", "high");
    let id = message.id();
    one.0.send(message).expect("it is sent");
    let mut bob = bob;
    let got = bob.next().await.expect("it comes");
    assert_eq!(got.id(), id);
    assert_eq!(got.metadata()["trace"], 7);
    assert_eq!(got.source(), &Source::Server);
    assert!(seen.try_recv().is_err(), "logic elsewhere is not asked");
}
