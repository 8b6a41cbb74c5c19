//! The supervisor of each node: makes the connections to it, and makes them anew whenever one of them is of no use any
//! more.
//!
//! Whatever breaks, the connections to that node are given up together, it is asked again what is where, and what was
//! done over them begins anew, there or elsewhere; those to other nodes go on. What was missed meanwhile the lines
//! repair, and the directory tells by its numbers what it lost.

mod node;

use std::{collections::HashMap, sync::Arc, time::Duration};

use gobroke_core::cluster::{ClusterError, Notice};
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};
use tokio_util::task::JoinMap;

use self::node::{Open, Role};
use crate::{instance::Instance, lease::Ended, servers::Layout, stats::count};

/// How long it waits before it asks again where everything is: at first, and at the most.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(250);
/// The same where some nodes have been away for long, and those that work are not to be asked all the time.
const RARELY: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(10);

/// An instance that has joined over connections that work.
pub(crate) struct Joined {
    layout: Layout,
    nodes: Vec<(Role, Open)>,
}

/// Subscribes everywhere, so that nothing is missed from then on, and takes its place among the instances; `directory` is
/// a connection to the node that has it.
pub(crate) async fn join(
    instance: &Arc<Instance>,
    layout: Layout,
    directory: MultiplexedConnection,
) -> Result<Joined, Ended> {
    let mut directory = Some(directory);
    let mut nodes = Vec::with_capacity(layout.nodes.len());
    for role in Role::all(&layout, &instance.keys, &instance.id) {
        let checked = directory.take_if(|_| role.directory);
        let open = Open::new(instance, &role, checked).await?;
        nodes.push((role, open));
    }
    Ok(Joined { layout, nodes })
}

/// Keeps an instance in the cluster until it has lost its place. `joined` is `None` where Redis is away already.
pub(crate) async fn run(instance: Arc<Instance>, joined: Option<Joined>) {
    let mut supervisor = Supervisor::new(instance.clone());
    match joined {
        Some(joined) => supervisor.begin(joined),
        None => supervisor.search(),
    }
    let lost = supervisor.run().await;
    instance.inbox.notice(lost);
}

/// How much of the cluster an instance reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// It cannot publish, or has no place.
    Nothing,
    /// It does not hear some nodes.
    Some,
    All,
}

struct Supervisor {
    instance: Arc<Instance>,
    tasks: JoinMap<Task, Done>,
    nodes: HashMap<u64, Node>,
    /// How many nodes were gone to.
    numbered: u64,
    /// What is to be done where, and since which failover or move.
    wanted: Vec<Role>,
    epoch: u64,
    /// What core was told last.
    told: Reach,
    /// Whether it is asked at once what is where.
    searching: bool,
    pause: Duration,
    /// Since when not everything is reached.
    missing: Option<Instant>,
    /// Why a node could not be connected to, or none found, as it was said last.
    said: HashMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Task {
    /// Asks where everything is.
    Search,
    /// Connects to a node, or does there what is to be done.
    Node(u64),
}

/// What a task came to.
enum Done {
    Found(Result<Layout, ClusterError>),
    Opened(Box<Open>),
    Ended(Ended),
}

/// A node that something is done at, or is to be.
struct Node {
    role: Role,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Serving(Instant),
    /// It was given up, and has not ended yet.
    Leaving,
}

impl Node {
    fn is_served(&self) -> bool {
        matches!(self.state, State::Serving(_))
    }

    /// It is given up. Says whether it was not before.
    fn leave(&mut self) -> bool {
        std::mem::replace(&mut self.state, State::Leaving) != State::Leaving
    }
}

impl Supervisor {
    fn new(instance: Arc<Instance>) -> Self {
        Self {
            instance,
            tasks: JoinMap::new(),
            nodes: HashMap::new(),
            numbered: 0,
            wanted: Vec::new(),
            epoch: 0,
            told: Reach::Nothing,
            searching: false,
            pause: FIRST,
            missing: None,
            said: HashMap::new(),
        }
    }

    fn begin(&mut self, Joined { layout, nodes }: Joined) {
        self.epoch = layout.epoch;
        self.wanted = nodes.iter().map(|(role, _)| role.clone()).collect();
        for (role, open) in nodes {
            let number = self.attend(role);
            self.serve(number, open);
        }
        self.told = Reach::All;
        self.watch();
    }

    /// Attends to all nodes until the instance has lost its place, and gives them up.
    async fn run(mut self) -> Notice {
        let lost = self.attend_to_all().await;
        self.tasks.shutdown().await;
        lost
    }

    async fn attend_to_all(&mut self) -> Notice {
        loop {
            let Some((task, done)) = self.tasks.join_next().await else {
                self.ask(FIRST);
                continue;
            };
            // A task that was given up, or that failed, has ended like any other.
            let ended = |error| Ended::Away(ClusterError::Unreachable(format!("{error}")));
            match (task, done.unwrap_or_else(|error| Done::Ended(ended(error)))) {
                (_, Done::Ended(Ended::Expelled)) => return Notice::Expelled,
                (_, Done::Ended(Ended::Superseded { .. })) => return Notice::Superseded,
                (Task::Node(number), Done::Opened(open)) => self.opened(number, *open),
                (Task::Node(number), Done::Ended(Ended::Away(error))) => self.ended(number, &error),
                (_, Done::Found(Ok(layout))) => self.found(&layout),
                (_, Done::Found(Err(error)) | Done::Ended(Ended::Away(error))) => {
                    self.searching = false;
                    self.failed("", "nodes are not found", &error);
                    self.search();
                }
                (Task::Search, Done::Opened(_)) => {}
            }
        }
    }

    /// Asks soon where everything is.
    fn search(&mut self) {
        if !std::mem::replace(&mut self.searching, true) {
            self.ask(self.pause);
            let long = self.missing.is_some_and(|since| since.elapsed() > LONG);
            let longest = match long && self.nodes.values().any(Node::is_served) {
                true => RARELY,
                false => LONGEST,
            };
            self.pause = (self.pause * 2).min(longest);
        }
    }

    /// Asks where everything is when a heartbeat goes: a former master that is cut off from the others answers as ever.
    fn watch(&mut self) {
        self.ask(self.instance.config.lease / 5);
    }

    fn ask(&mut self, pause: Duration) {
        let instance = self.instance.clone();
        self.tasks.spawn(Task::Search, async move {
            sleep(pause).await;
            Done::Found(instance.servers.find(&instance.config).await)
        });
    }

    fn found(&mut self, layout: &Layout) {
        self.searching = false;
        self.said.remove("");
        // What is older is not believed while something works by what is known.
        if layout.epoch >= self.epoch || !self.nodes.values().any(Node::is_served) {
            self.epoch = layout.epoch;
            self.wanted = Role::all(layout, &self.instance.keys, &self.instance.id);
        }
        for (number, node) in &mut self.nodes {
            if !self.wanted.contains(&node.role) && node.leave() {
                tracing::warn!(instance = %self.instance.id, node = %node.role.address(), "another server has taken over");
                self.tasks.abort(&Task::Node(*number));
            }
        }
        self.go();
        self.tell();
        self.watch();
    }

    /// Who cannot publish gives its place up, too, and has it back if that is soon: else it could not say what becomes of
    /// its clients, and would be taken for who runs a logic module.
    fn hold(&mut self) {
        if self.publishes() {
            return;
        }
        for (number, node) in &mut self.nodes {
            if node.role.directory && !node.role.publishes && node.leave() {
                self.tasks.abort(&Task::Node(*number));
            }
        }
    }

    fn publishes(&self) -> bool {
        let mut nodes = self.nodes.values();
        nodes.any(|node| node.role.publishes && node.is_served())
    }

    /// Goes to the nodes that are to be attended to and are not, once those that are given up have ended: two must not
    /// publish at once.
    fn go(&mut self) {
        self.hold();
        let leaving = |node: &Node| node.state == State::Leaving;
        if self.nodes.values().any(leaving) {
            return;
        }
        let publishes = self.publishes();
        let attended = |role: &Role| self.nodes.values().any(|node| node.role == *role);
        let can = |role: &&Role| publishes || role.publishes || !role.directory;
        let missing = self.wanted.iter().filter(|role| !attended(role));
        for role in missing.filter(can).cloned().collect::<Vec<_>>() {
            let number = self.attend(role.clone());
            let instance = self.instance.clone();
            self.tasks.spawn(Task::Node(number), async move {
                let has_joined = instance.has_joined();
                match Open::new(&instance, &role, None).await {
                    Ok(open) => Done::Opened(Box::new(open)),
                    // Its number is that of this machine's clock, which may be wrong. It joins anew, with one that
                    // Redis draws.
                    Err(Ended::Superseded { by, now })
                        if !has_joined && !instance.is_older_than(by, now) =>
                    {
                        Done::Ended(Ended::Expelled)
                    }
                    Err(ended) => Done::Ended(ended),
                }
            });
        }
    }

    fn attend(&mut self, role: Role) -> u64 {
        self.numbered += 1;
        let state = State::Connecting;
        self.nodes.insert(self.numbered, Node { role, state });
        self.numbered
    }

    fn opened(&mut self, number: u64, open: Open) {
        match self.nodes.get(&number).map(|node| node.state) {
            Some(State::Connecting) => {
                self.said.remove(&self.nodes[&number].role.address());
                self.serve(number, open);
                self.go();
                self.tell();
            }
            _ => self.left(number),
        }
    }

    fn serve(&mut self, number: u64, open: Open) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.state = State::Serving(Instant::now());
            let instance = self.instance.clone();
            self.tasks.spawn(Task::Node(number), async move {
                Done::Ended(open.serve(&instance).await)
            });
        }
    }

    fn ended(&mut self, number: u64, error: &ClusterError) {
        match self.nodes.get(&number).map(|node| node.state) {
            Some(State::Serving(since)) => {
                if since.elapsed() > LONGEST {
                    self.pause = FIRST;
                }
                let address = self.nodes[&number].role.address();
                tracing::warn!(instance = %self.instance.id, node = %address, %error, "Redis is away");
            }
            Some(State::Connecting) => {
                let address = self.nodes[&number].role.address();
                self.failed(&address, "joining failed", error);
            }
            Some(State::Leaving) | None => return self.left(number),
        }
        self.nodes.remove(&number);
        self.hold();
        self.tell();
        self.search();
    }

    /// A node that was given up has ended.
    fn left(&mut self, number: u64) {
        self.nodes.remove(&number);
        self.go();
    }

    /// Something failed, at this node or at none: said where it is another reason than last time.
    fn failed(&mut self, node: &str, what: &str, error: &ClusterError) {
        count(&self.instance.counters.failed);
        let why = error.to_string();
        if self.said.get(node) != Some(&why) {
            tracing::warn!(instance = %self.instance.id, node, %error, "{what}; it is tried until it works");
            self.said.insert(node.to_owned(), why);
        }
    }

    /// Tells core how much of the cluster is reached, where that has changed.
    fn tell(&mut self) {
        let served = |role: &Role| {
            let mut nodes = self.nodes.values();
            nodes.any(|node| node.role == *role && node.is_served())
        };
        let needed = |role: &&Role| role.directory || role.publishes;
        let reach = if self.wanted.is_empty() || !self.wanted.iter().filter(needed).all(served) {
            Reach::Nothing
        } else if self.wanted.iter().all(served) {
            Reach::All
        } else {
            Reach::Some
        };
        match reach {
            Reach::All => self.missing = None,
            _ => drop(self.missing.get_or_insert_with(Instant::now)),
        }
        if std::mem::replace(&mut self.told, reach) == reach {
            return;
        }
        let notice = match reach {
            Reach::Nothing => Notice::Away,
            Reach::Some => Notice::Deaf,
            Reach::All => {
                tracing::info!(instance = %self.instance.id, "Redis is back");
                Notice::Back
            }
        };
        self.instance.inbox.notice(notice);
    }
}
