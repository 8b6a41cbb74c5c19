//! Many instances over one Redis, on this machine: what each costs the server. It starts a redis-server of its own.
//!
//! ```text
//! cargo bench -p gobroke-redis --bench crowd
//! ```

#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails ends with a panic"
)]

#[path = "../tests/support/server.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod server;

use std::time::Duration;

use gobroke_core::{Broke, Message};
use gobroke_redis::RedisCluster;
use server::Server;
use tokio::time::sleep;

const COUNTS: [usize; 3] = [10, 50, 200];
const MESSAGES: u64 = 2000;

#[tokio::main]
async fn main() {
    let server = Server::start(&[]).await;
    let mut instances = Vec::new();
    for count in COUNTS {
        while instances.len() < count {
            instances.push(start(&server, instances.len()).await);
        }
        know_each_other(&instances).await;
        measure(&server, &mut instances).await;
    }
}

async fn start(server: &Server, number: usize) -> Broke {
    Broke::builder()
        .instance(format!("instance-{number}"))
        .lanes(1)
        .cluster(RedisCluster::new(server.url()))
        .start()
        .await
        .unwrap()
}

async fn know_each_other(instances: &[Broke]) {
    for instance in instances {
        while instance.instances().len() < instances.len() - 1 {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn measure(server: &Server, instances: &mut Vec<Broke>) {
    let count = instances.len();
    println!("{count} instances");
    sleep(Duration::from_secs(2)).await;
    let before = Use::of(server).await;
    sleep(Duration::from_secs(10)).await;
    let idle = Use::of(server).await.since(&before);
    println!(
        "  idle: {:.2} ms of the server a second, {:.0} bytes a second out; a heartbeat {:.0} µs",
        idle.cpu / 10.0 * 1e3,
        idle.out / 10.0,
        idle.script / idle.scripts.max(1.0)
    );

    let before = Use::of(server).await;
    instances.push(start(server, count).await);
    know_each_other(instances).await;
    let joined = Use::of(server).await.since(&before);
    println!(
        "  one more: {:.2} ms of the server, {:.0} bytes out",
        joined.cpu * 1e3,
        joined.out
    );

    let received = |instances: &[Broke]| -> u64 {
        let received = |one: &Broke| one.stats().cluster.map_or(0, |stats| stats.received);
        instances.iter().map(received).sum()
    };
    let (before, had) = (Use::of(server).await, received(instances));
    for _ in 0..MESSAGES {
        let message = Message::new("x".repeat(128)).to_all();
        instances[0].send(message).unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    while received(instances) - had < MESSAGES * count as u64 {
        sleep(Duration::from_millis(5)).await;
    }
    let sent = Use::of(server).await.since(&before);
    let each = MESSAGES as f64 * count as f64;
    println!(
        "  to all, 128 bytes, one by one: {:.2} µs of the server and {:.0} bytes out, for each message and instance",
        sent.cpu * 1e6 / each,
        sent.out / each
    );
}

/// What the server has used.
struct Use {
    /// Seconds.
    cpu: f64,
    /// Bytes sent.
    out: f64,
    /// Scripts, and the µs that they took.
    scripts: f64,
    script: f64,
}

impl Use {
    async fn of(server: &Server) -> Self {
        let info = server.cli(&["INFO", "everything"]).await;
        let info: String = redis::from_redis_value(info).unwrap();
        let value = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name));
            value.unwrap_or("0").trim().to_owned()
        };
        let number = |name: &str| value(name).parse::<f64>().unwrap();
        let scripts = value("cmdstat_evalsha:");
        let of = |name: &str| {
            let mut parts = scripts.split(',').filter_map(|part| part.split_once('='));
            let found = parts.find(|(key, _)| *key == name);
            found.map_or(0.0, |(_, value)| value.parse().unwrap())
        };
        Self {
            cpu: number("used_cpu_user:") + number("used_cpu_sys:"),
            out: number("total_net_output_bytes:"),
            scripts: of("calls"),
            script: of("usec"),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            out: self.out - before.out,
            scripts: self.scripts - before.scripts,
            script: self.script - before.script,
        }
    }
}
