//! The servers under an arena's instances, and what can go wrong with them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::support::{Far, Proxy, Server, sentinel::Watched, sharded::Sharded};

/// At what a server cuts a slow subscriber off.
const LIMIT: &str = "pubsub 1048576 0 0";
/// The hash tags of the directory's slot and of some trunks' slots.
pub(crate) const TAGS: [&str; 5] = ["{gobroke}", "{u0}", "{pv}", "{uv}", "{ha}"];

pub(crate) enum Servers {
    Single(Server),
    Sentinel(Watched),
    Cluster(Sharded),
}

impl Servers {
    /// Starts those of a set-up: `single`, `sentinel` or `cluster`.
    pub(crate) async fn start(setup: &str) -> Self {
        let servers = match setup {
            "single" => Self::Single(Server::start(&[]).await),
            "sentinel" => Self::Sentinel(Watched::start().await),
            "cluster" => Self::Cluster(Sharded::start().await),
            other => panic!("SETUP={other} is none of single, sentinel, cluster"),
        };
        for server in servers.all() {
            server.configure("client-output-buffer-limit", LIMIT).await;
        }
        servers
    }

    pub(crate) fn setup(&self) -> &'static str {
        match self {
            Self::Single(_) => "single",
            Self::Sentinel(_) => "sentinel",
            Self::Cluster(_) => "cluster",
        }
    }

    /// Whether others can take over from one that does not answer.
    pub(crate) fn are_replicated(&self) -> bool {
        !matches!(self, Self::Single(_))
    }

    pub(crate) fn all(&self) -> &[Server] {
        match self {
            Self::Single(server) => std::slice::from_ref(server),
            Self::Sentinel(watched) => &watched.servers,
            Self::Cluster(sharded) => &sharded.servers,
        }
    }

    fn server(&mut self, number: usize) -> &mut Server {
        match self {
            Self::Single(server) => server,
            Self::Sentinel(watched) => &mut watched.servers[number],
            Self::Cluster(sharded) => &mut sharded.servers[number],
        }
    }

    fn running(&self) -> impl Iterator<Item = &Server> {
        self.all().iter().filter(|server| server.runs())
    }

    /// Proxies for one instance, and what it joins by through them.
    pub(crate) async fn proxies(&self) -> (Vec<Proxy>, Vec<String>) {
        match self {
            Self::Single(server) => {
                let proxy = Proxy::start(Far::Socket(server.socket())).await;
                let url = format!("redis://{}", proxy.addr());
                (vec![proxy], vec![url])
            }
            Self::Sentinel(watched) => watched.proxies().await,
            Self::Cluster(sharded) => sharded.proxies().await,
        }
    }

    /// What those that run say of each other.
    pub(crate) async fn say(&self) -> String {
        let command: &[&str] = match self {
            Self::Cluster(_) => &["CLUSTER", "NODES"],
            _ => &["INFO", "replication"],
        };
        let mut said = String::new();
        for server in self.running() {
            let answer: String =
                redis::from_redis_value(server.cli(command).await).unwrap_or_default();
            said.push_str(&format!("\n{answer}"));
        }
        said
    }

    /// How many subscribers they have cut off for reading too slowly.
    pub(crate) fn cut_off(&self) -> usize {
        self.all().iter().map(Server::cut_off).sum()
    }

    pub(crate) async fn kill_connections(&self) {
        for server in self.running() {
            for kind in ["normal", "pubsub"] {
                let kill = ["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"];
                server.cli(&kill).await;
            }
        }
    }

    /// The master for a hash tag, when all agree on it.
    async fn master(&self, tag: &str) -> usize {
        match self {
            Self::Single(_) => 0,
            Self::Sentinel(watched) => {
                watched.agree().await;
                watched.acting().await
            }
            Self::Cluster(sharded) => {
                sharded.works().await;
                sharded.master_of(sharded.slot_of(tag).await).await
            }
        }
    }

    /// Kills a master and starts it again, with its data or without. Where a replica could take over, it comes back before
    /// one does: then the replicas take its data for theirs, though it has none. Gives when it could be reached again.
    pub(crate) async fn restart(
        &mut self,
        tag: &str,
        with_data: bool,
        length: Duration,
    ) -> Instant {
        let master = self.master(tag).await;
        let replicated = self.are_replicated();
        let server = self.server(master);
        if with_data {
            server.cli(&["SAVE"]).await;
        }
        server.kill();
        if !with_data {
            server.lose_data();
        }
        if !replicated {
            sleep(length).await;
        }
        server.run().await;
        if let Self::Cluster(sharded) = self {
            sharded.serves(master).await;
        }
        Instant::now()
    }

    /// Stops a master as it is, and gives which.
    pub(crate) async fn freeze(&self, tag: &str) -> usize {
        let master = self.master(tag).await;
        self.all()[master].freeze(true);
        master
    }

    pub(crate) fn thaw(&self, server: usize) {
        self.all()[server].freeze(false);
    }

    /// Waits until another server is master in the place of one. Gives when that was decided.
    pub(crate) async fn decided(&self, tag: &str, master: usize) -> Instant {
        match self {
            Self::Single(_) => {}
            Self::Sentinel(watched) => watched.another_than(master).await,
            Self::Cluster(sharded) => sharded.elected(sharded.slot_of(tag).await, master).await,
        }
        Instant::now()
    }

    /// Kills a master, and starts it again when another one was decided on. Gives when that was.
    pub(crate) async fn fail_over(&mut self, tag: &str) -> Instant {
        let master = match self {
            Self::Sentinel(watched) => watched.acting().await,
            _ => self.master(tag).await,
        };
        self.server(master).kill();
        let decided = self.decided(tag, master).await;
        self.server(master).run().await;
        decided
    }

    /// Has a replica take over, planned.
    pub(crate) async fn plan_failover(&self, tag: &str) {
        match self {
            Self::Single(_) => {}
            Self::Sentinel(watched) => watched.fail_over().await,
            Self::Cluster(sharded) => {
                let slot = sharded.slot_of(tag).await;
                sharded.works().await;
                sharded.fail_over(slot).await;
            }
        }
    }

    /// Moves the slots of the directory and of some trunks to other masters.
    pub(crate) async fn move_slots(&self) {
        let Self::Cluster(sharded) = self else {
            return;
        };
        sharded.works().await;
        for tag in TAGS {
            let slot = sharded.slot_of(tag).await;
            sharded.migrate(slot).await;
        }
    }
}
