//! Two instances over one Redis, on this machine: how much they carry to each other, how soon, and what the directory
//! costs. It starts a redis-server of its own. Everything is measured in several rounds.
//!
//! ```text
//! cargo bench -p gobroke-redis --bench two_instances
//! cargo bench -p gobroke-redis --bench two_instances -- carry | local | directory | profile | list
//! ```

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails ends with a panic"
)]

mod carry;
mod directory;
mod original;
mod rounds;
#[path = "../../tests/support/server.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod server;

use std::time::Duration;

use gobroke_core::{
    Broke, Message, Targets,
    testing::{TestClient, TestEndpoint},
};
use gobroke_redis::RedisCluster;
use server::Server;

/// As programs of this kind do; `cargo bench -p gobroke-core --bench throughput` says why. All that is compared has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD: usize = 128;
const ROUNDS: usize = 5;

fn main() {
    let only: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wanted = |part: &str| only.is_empty() || only.iter().any(|only| only == part);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::start(&["--slowlog-log-slower-than", "5000"]).await;
        if wanted("carry") {
            carry::measure(&server).await;
        }
        if only == ["profile"] {
            carry::profile(&server).await;
        }
        if only == ["list"] {
            directory::profile(&server).await;
        }
        if wanted("local") {
            local(&server).await;
        }
        if wanted("directory") {
            directory::measure(&server).await;
        }
    });
}

struct Instance {
    broke: Broke,
    endpoint: TestEndpoint,
}

async fn start(server: &Server, name: &str) -> Instance {
    start_with(server, name, 256 << 20).await
}

async fn start_with(server: &Server, name: &str, capacity: usize) -> Instance {
    let endpoint = TestEndpoint::new(Targets::default())
        .options(|options| {
            options.ping_interval = None;
            options.outbox_bytes = 1 << 30;
            options.outbox_messages = usize::MAX;
        })
        .capacity(capacity);
    let broke = Broke::builder()
        .instance(name)
        .endpoint(endpoint.clone())
        .cluster(RedisCluster::new(server.url()))
        .start()
        .await
        .unwrap();
    Instance { broke, endpoint }
}

async fn two(server: &Server) -> (Instance, Instance, TestClient) {
    let (one, two) = (start(server, "one").await, start(server, "two").await);
    let client = two.endpoint.connect().await.unwrap();
    while !matches!(one.broke.client(client.id()).await, Ok(Some(_)))
        || one.broke.instances().is_empty()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (one, two, client)
}

/// Messages that stay on one instance, and the directory.
async fn local(server: &Server) {
    let (one, two, client) = two(server).await;
    drop(client);
    let mut here = one.endpoint.connect().await.unwrap();
    let count = 1_000_000;
    let before = calls(server).await;
    for _ in 0..count / 100 {
        for _ in 0..100 {
            one.broke
                .send(Message::new("x").to_client(here.id()))
                .unwrap();
        }
        for _ in 0..100 {
            here.next_text().await.unwrap();
        }
    }
    let after = calls(server).await;
    println!(
        "{count} local messages: {} commands, heartbeats and all",
        after - before
    );
    one.broke.stop().await;
    two.broke.stop().await;
}

/// How many commands the server has run.
async fn calls(server: &Server) -> u64 {
    number(server, "stats", "total_commands_processed:").await
}

async fn number(server: &Server, section: &str, name: &str) -> u64 {
    let info: String = redis::from_redis_value(server.cli(&["INFO", section]).await).unwrap();
    let number = info.lines().find_map(|line| line.strip_prefix(name));
    number.unwrap().trim().parse().unwrap()
}
