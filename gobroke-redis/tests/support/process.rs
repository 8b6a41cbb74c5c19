//! An instance as a process of its own: the test's program, started again, which does as it is told on its input.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use gobroke_core::{Broke, ClientId, Message, cluster::ClusterStats, testing::TestClient};
use gobroke_redis::RedisCluster;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Proxy, load::start};

const ROOM: &str = "room";
/// How often it sends to another instance, and within its own.
const PACE: Duration = Duration::from_millis(4);
/// What the program is started with to be an instance.
const CHILD: &str = "an_instance_of_its_own";

/// What a client got of one process: how much of each kind, and what was wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) direct: u64,
    pub(crate) group: u64,
    pub(crate) all: u64,
    /// Doubled, or behind a later one.
    pub(crate) wrong: u64,
    last: u64,
}

/// What an instance says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) direct: BTreeMap<String, u64>,
    pub(crate) group: u64,
    pub(crate) all: u64,
    pub(crate) got: BTreeMap<String, Got>,
    /// Of the cluster: sent, received, lost, dropped, in doubt, for nobody, waiting.
    pub(crate) stats: BTreeMap<String, u64>,
    pub(crate) clients: Vec<String>,
    pub(crate) members: Vec<String>,
    pub(crate) metadata: Vec<String>,
    pub(crate) instances: u64,
    pub(crate) ready: bool,
}

impl Report {
    pub(crate) fn stat(&self, name: &str) -> u64 {
        self.stats.get(name).copied().unwrap_or_default()
    }
}

/// An instance in a process of its own.
pub(crate) struct Process {
    pub(crate) name: String,
    /// Its client, which sends and counts.
    pub(crate) client: String,
    /// Its other client, which only it sends to.
    pub(crate) near: String,
    /// What it reaches the servers through.
    pub(crate) proxies: Vec<Proxy>,
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts one, by what `cluster` reads of the environment.
    pub(crate) fn start(name: &str, environment: &[(&str, String)], proxies: Vec<Proxy>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                CHILD,
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("INSTANCE", name)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The program's own lines, whatever the test's harness prints before them.
                if let Some((_, line)) = line.split_once('@') {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        let mut process = Self {
            name: name.to_owned(),
            client: String::new(),
            near: String::new(),
            proxies,
            child,
            input,
            lines,
        };
        process.client = process.answer();
        process.near = process.answer();
        process
    }

    fn answer(&self) -> String {
        let line = self.lines.recv_timeout(Duration::from_secs(60));
        line.unwrap_or_else(|error| panic!("{} says nothing: {error}", self.name))
    }

    pub(crate) fn tell(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.answer()
    }

    pub(crate) fn report(&mut self) -> Report {
        let text = self.tell("report");
        parse(&serde_json::from_str(&text).unwrap())
    }

    /// How long local messages took since it was asked last, in µs.
    pub(crate) fn times(&mut self) -> Vec<u64> {
        serde_json::from_str(&self.tell("times")).unwrap()
    }

    /// Lets nothing through between it and the servers, or all.
    pub(crate) fn cut(&self, cut: bool) {
        self.proxies.iter().for_each(|proxy| proxy.cut(cut));
    }

    /// Has it read nothing, or go on. What the system would keep for it is more than a server does.
    pub(crate) fn read_nothing(&self, nothing: bool) {
        self.proxies.iter().for_each(|proxy| proxy.stall(nothing));
        self.signal(if nothing { "STOP" } else { "CONT" });
    }

    /// Sends it a signal: `KILL`, `STOP`, `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn parse(report: &Value) -> Report {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let numbers = |value: &Value| -> BTreeMap<String, u64> {
        let map = value.as_object().unwrap();
        map.iter()
            .map(|(key, value)| (key.clone(), number(value)))
            .collect()
    };
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().unwrap().iter();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let got = report["got"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(from, got)| {
            let got = Got {
                direct: number(&got["direct"]),
                group: number(&got["group"]),
                all: number(&got["all"]),
                wrong: number(&got["wrong"]),
                last: 0,
            };
            (from.clone(), got)
        });
    Report {
        direct: numbers(&report["direct"]),
        group: number(&report["group"]),
        all: number(&report["all"]),
        got: got.collect(),
        stats: numbers(&report["stats"]),
        clients: texts(&report["clients"]),
        members: texts(&report["members"]),
        metadata: texts(&report["metadata"]),
        instances: number(&report["instances"]),
        ready: report["ready"].as_bool().unwrap(),
    }
}

/// What the process counts of what it sends.
#[derive(Default)]
struct Sent {
    /// Whether it goes on.
    goes_on: bool,
    peers: Vec<ClientId>,
    direct: BTreeMap<ClientId, u64>,
    group: u64,
    all: u64,
    number: u64,
}

/// The process: an instance with a client in a room, which sends, and counts what comes.
pub(crate) async fn run(cluster: RedisCluster) {
    let name = std::env::var("INSTANCE").unwrap();
    let (broke, endpoint) = start(&name, cluster).await;
    let client = endpoint.connect().await.unwrap();
    let near = endpoint.connect().await.unwrap();
    let id = client.id();
    broke.join(id, ROOM);
    broke.set_metadata(id, "of", name.as_str());
    say(&id.to_string());
    say(&near.id().to_string());
    let sent = Arc::<Mutex<Sent>>::default();
    let got = Arc::<Mutex<BTreeMap<String, Got>>>::default();
    let times = Arc::<Mutex<Vec<u64>>>::default();
    tokio::spawn(read(client, got.clone()));
    tokio::spawn(send(broke.clone(), id, sent.clone()));
    tokio::spawn(look_near(broke.clone(), near, times.clone()));
    let (commands, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = commands.send(line);
        }
    });
    while let Some(command) = told.recv().await {
        let (command, rest) = command.split_once(' ').unwrap_or((&command, ""));
        match command {
            "peers" => {
                let peers = rest.split_whitespace().map(|id| id.parse().unwrap());
                let mut sent = sent.lock();
                sent.peers = peers.collect();
                sent.goes_on = true;
                say("");
            }
            "rest" => {
                sent.lock().goes_on = false;
                say("");
            }
            "burst" => {
                burst(&broke, id, rest.parse().unwrap(), &mut sent.lock());
                say("");
            }
            "report" => {
                let report = report(&broke, &sent, &got).await;
                say(&report.to_string());
            }
            "times" => {
                let times = std::mem::take(&mut *times.lock());
                say(&json!(times).to_string());
            }
            "quit" => break,
            other => panic!("{other} is no command"),
        }
    }
    broke.stop().await;
}

fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "@{text}").unwrap();
    output.flush().unwrap();
}

async fn send(broke: Broke, id: ClientId, sent: Arc<Mutex<Sent>>) {
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut sent = sent.lock();
        if sent.goes_on {
            one(&broke, id, "", &mut sent);
        }
    }
}

/// Sends to the next peer, every tenth to the room, every fifteenth to all.
fn one(broke: &Broke, id: ClientId, more: &str, sent: &mut Sent) {
    sent.number += 1;
    let number = sent.number;
    let text = |kind: &str| Message::new(format!("{id} {number} {kind} {more}"));
    let message = if number.is_multiple_of(10) {
        sent.group += 1;
        text("group").to_group(ROOM)
    } else if number.is_multiple_of(15) {
        sent.all += 1;
        text("all").to_all()
    } else if let Some(peer) = sent.peers.get(number as usize % sent.peers.len().max(1)) {
        *sent.direct.entry(*peer).or_default() += 1;
        text("direct").to_client(*peer)
    } else {
        return;
    };
    broke.send(message).unwrap();
}

/// Sends large messages to the room, as fast as it may. Not to all: they would keep waiting who takes the time here.
fn burst(broke: &Broke, id: ClientId, count: u64, sent: &mut Sent) {
    let more = "x".repeat(4096);
    for _ in 0..count {
        sent.number += 1;
        let text = format!("{id} {} group {more}", sent.number);
        if broke.send(Message::new(text).to_group(ROOM)).is_ok() {
            sent.group += 1;
        }
    }
}

async fn read(mut client: TestClient, got: Arc<Mutex<BTreeMap<String, Got>>>) {
    while let Some(text) = client.next_text().await {
        let mut parts = text.split(' ');
        let (Some(from), Some(number), Some(kind)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let number: u64 = number.parse().unwrap();
        let mut got = got.lock();
        let got = got.entry(from.to_owned()).or_default();
        got.wrong += u64::from(number <= got.last);
        got.last = number;
        match kind {
            "direct" => got.direct += 1,
            "group" => got.group += 1,
            _ => got.all += 1,
        }
    }
}

/// Sends to a client of this instance, and takes the time.
async fn look_near(broke: Broke, mut near: TestClient, times: Arc<Mutex<Vec<u64>>>) {
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        broke
            .send(Message::new("near").to_client(near.id()))
            .unwrap();
        // What is for all comes here, too.
        while near.next_text().await.is_some_and(|text| text != "near") {}
        times.lock().push(begun.elapsed().as_micros() as u64);
    }
}

async fn report(broke: &Broke, sent: &Mutex<Sent>, got: &Mutex<BTreeMap<String, Got>>) -> Value {
    let listed = broke.clients().await;
    let mut clients: Vec<String> = listed.iter().map(|info| info.id.to_string()).collect();
    let mut metadata: Vec<String> = listed
        .iter()
        .filter_map(|info| Some(format!("{} {}", info.id, info.metadata.get("of")?)))
        .collect();
    let members = broke.members(ROOM).await;
    let mut members: Vec<String> = members.iter().map(|info| info.id.to_string()).collect();
    clients.sort();
    members.sort();
    metadata.sort();
    let ClusterStats {
        sent: taken,
        received,
        lost,
        dropped,
        in_doubt,
        unknown,
        queue_bytes,
        ..
    } = broke.stats().cluster.unwrap();
    let sent = sent.lock();
    let direct: BTreeMap<String, u64> = sent
        .direct
        .iter()
        .map(|(peer, count)| (peer.to_string(), *count))
        .collect();
    let got: BTreeMap<String, Value> = got
        .lock()
        .iter()
        .map(|(from, got)| {
            let Got {
                direct,
                group,
                all,
                wrong,
                ..
            } = got;
            let got = json!({"direct": direct, "group": group, "all": all, "wrong": wrong});
            (from.clone(), got)
        })
        .collect();
    json!({
        "direct": direct, "group": sent.group, "all": sent.all, "got": got,
        "stats": {
            "sent": taken, "received": received, "lost": lost, "dropped": dropped,
            "in_doubt": in_doubt, "unknown": unknown, "queue": queue_bytes,
        },
        "clients": clients, "members": members, "metadata": metadata,
        "instances": broke.instances().len(), "ready": broke.is_ready(),
    })
}
