//! An afternoon of attacks on one server, while honest clients are at work.
//!
//! The attacks come from a program of their own, this one started again, so that what they hold counts neither as the
//! server's memory nor among its file descriptors.

#![cfg(all(
    feature = "ws",
    feature = "tcp",
    feature = "udp",
    feature = "http",
    feature = "deflate",
    unix
))]

mod attacks;
#[path = "../common/mod.rs"]
mod common;
mod honest;

use std::{
    alloc::System,
    fs::File,
    net::SocketAddr,
    os::fd::AsRawFd,
    process::Stdio,
    time::{Duration, Instant},
};

use cap::Cap;
use common::{bad_input, echo, soon};
use gobroke_core::Broke;
use gobroke_endpoints::{
    HttpEndpoint, RawCodec, ReceiveBudget, TcpEndpoint, UdpEndpoint, WebSocketEndpoint,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
};

use self::{
    attacks::{NEVER_READ, OF_EACH, SLOW_BODIES, SLOW_HEADS},
    honest::{Honest, Phase},
};

/// Counts what is allocated, by all threads.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Says, to the program that it starts, what to do, and where.
const ATTACK: &str = "GOBROKE_TEST_ATTACK";
const TEST: &str =
    "honest_clients_lose_nothing_and_everything_comes_back_after_an_afternoon_of_attacks";

/// Connections that say nothing, half of them once they have done their handshake.
const SILENT: u64 = 10_000;

/// The largest message.
const LIMIT: usize = 256 << 10;

/// How much more than before may be allocated afterwards: lists keep the room that they needed when they were longest.
const KEPT: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_clients_lose_nothing_and_everything_comes_back_after_an_afternoon_of_attacks() {
    if let Ok(order) = std::env::var(ATTACK) {
        return attacks::carry_out(&order).await;
    }
    afternoon(5).await;
}

/// On a machine with nothing else to do:
/// `cargo test --release -p gobroke-endpoints --all-features --test hostile -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures time, which tests that run beside it take from it"]
async fn honest_clients_wait_twice_as_long_at_most() {
    // What the attackers compute takes nothing from the server then, or from the honest, who run beside it.
    let honest = afternoon(19).await;
    let quiet = honest.within(Phase::Quiet, 99);
    // Both are told to a tenth.
    assert!(honest.within(Phase::Attack, 99) <= 2 * quiet + quiet / 10);
}

/// `nice` says how far the attackers stand back where time is short (`man nice`).
async fn afternoon(nice: u8) -> Honest {
    let silent = SILENT.min(all_descriptors().saturating_sub(1_000));
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let budget = ReceiveBudget::new(32 << 20);
    let broke = start(&budget).await;
    let idle_tasks = tasks();

    let mut honest = Honest::at_work(&broke).await;
    honest.work_in(Phase::Quiet).await;
    let heap = HEAP.allocated();

    honest.enter(Phase::Attack);
    let attack = again("attack", nice, silent, &broke);
    let attacked = soon_enough(attack.wait_with_output()).await;
    assert!(
        attacked.status.success(),
        "{}{}",
        String::from_utf8_lossy(&attacked.stdout),
        String::from_utf8_lossy(&attacked.stderr)
    );
    counters_name_each(&broke, silent).await;
    until("all attackers have left", || {
        broke.stats().clients == honest::ALL
    })
    .await;
    assert_eq!(budget.used(), 0, "no begun message is kept");
    until("memory is what it was", || HEAP.allocated() <= heap + KEPT).await;
    println!("allocated before {heap}, after {} bytes", HEAP.allocated());

    honest.enter(Phase::Exhausted);
    exhaust_descriptors(&broke).await;
    honest.work_in(Phase::Exhausted).await;

    honest.stop().await;
    until("all have left", || broke.stats().clients == 0).await;
    until("no byte waits", || broke.stats().outbox_bytes == 0).await;
    until("no task is left", || tasks() <= idle_tasks).await;
    assert_eq!((broke.stats().panics, broke.stats().logic_errors), (0, 0));
    soon(broke.stop()).await;
    until("the router's tasks have ended", || tasks() <= before).await;
    honest.report();
    honest
}

async fn start(budget: &ReceiveBudget) -> Broke {
    let raw = || RawCodec::to_logic("echo");
    let ws = || {
        let ws = WebSocketEndpoint::bind("127.0.0.1:0").codec(raw());
        ws.deflate().receive_budget(budget.clone())
    };
    // The same with short times, or the afternoon would be a long one.
    let hasty = ws().name("hasty").configure(|options| {
        options.max_message = LIMIT;
        options.outbox_bytes = LIMIT;
        options.handshake_timeout = Duration::from_secs(5);
        options.ping_interval = Some(Duration::from_secs(1));
        options.pong_timeout = Duration::from_secs(2);
        options.write_stall = Duration::from_secs(1);
    });
    let tcp = TcpEndpoint::bind("127.0.0.1:0").codec(raw());
    let http = HttpEndpoint::bind("127.0.0.1:0")
        .codec(raw())
        .configure(|options| {
            options.handshake_timeout = Duration::from_secs(3);
            // Who sent more than the request and is gone is noticed by a write alone.
            options.ping_interval = Some(Duration::from_secs(1));
        })
        .message_timeout(Duration::from_secs(2))
        .resume_within(Duration::from_secs(1));
    let builder = echo(ws().configure(|options| options.max_message = LIMIT))
        .endpoint(hasty)
        .endpoint(tcp.receive_budget(budget.clone()))
        .endpoint(http.receive_budget(budget.clone()))
        .endpoint(UdpEndpoint::bind("127.0.0.1:0").codec(raw()));
    builder.start().await.expect("it starts")
}

fn at(broke: &Broke, endpoint: &str) -> SocketAddr {
    broke.address(endpoint).expect("it listens")
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + 2 * common::PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not so");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What comes of all attacks, which take longer than anything else.
async fn soon_enough<T>(what: impl Future<Output = std::io::Result<T>>) -> T {
    let done = tokio::time::timeout(5 * common::PATIENCE, what).await;
    done.expect("it takes too long").expect("a program")
}

/// Starts this program again, to attack.
fn again(what: &str, nice: u8, silent: u64, broke: &Broke) -> Child {
    let [ws, hasty, tcp, http, udp] =
        ["ws", "hasty", "tcp", "http", "udp"].map(|name| at(broke, name));
    Command::new("nice")
        .args(["-n", &nice.to_string()])
        .arg(std::env::current_exe().expect("this program"))
        .args([TEST, "--exact", "--nocapture"])
        .env(
            ATTACK,
            format!("{what} {silent} {ws} {hasty} {tcp} {http} {udp}"),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts")
}

/// Allows this program, and those that it starts, as many file descriptors as the system lets it; says how many.
fn all_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.or(limit.current);
    let raised = Rlimit {
        current: most,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("up to the maximum is allowed");
    most.unwrap_or(u64::MAX)
}

/// Takes all file descriptors but a few away, while more connections come than there are left; then gives them back.
async fn exhaust_descriptors(broke: &Broke) {
    let limit = getrlimit(Resource::Nofile);
    // Numbers are given out from the lowest free one on.
    let next = File::open("/dev/null").expect("it is there").as_raw_fd();
    let mut attack = again("exhaust", 0, 0, broke);
    let few = Rlimit {
        current: Some(u64::try_from(next).expect("a number") + 20),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, few).expect("less is allowed");
    until("accepting fails", || broke.stats().accept_errors > 0).await;
    setrlimit(Resource::Nofile, limit).expect("the maximum was kept");
    drop(attack.stdin.take());
    let attacked = soon_enough(attack.wait()).await;
    assert!(attacked.success());
    let errors = broke.stats().accept_errors;
    assert!(errors < 100, "it did not rest: {errors}");
}

async fn counters_name_each(broke: &Broke, silent: u64) {
    let counted = [
        ("handshake", SLOW_HEADS + silent / 2),
        ("request", SLOW_HEADS),
        // Pings, fragments, and bodies of requests.
        ("policy_violation", 2 * OF_EACH + SLOW_BODIES),
        // An announcement, a bomb, and a length over TCP.
        ("too_big", 3 * OF_EACH),
        // A length with its first bit set.
        ("protocol_error", OF_EACH),
        // The system may drop datagrams of a flood by itself.
        ("udp_cookie", 1),
        ("udp_unknown", 1),
        ("udp_datagram", 1),
    ];
    for (what, least) in counted {
        until(what, || bad_input(broke, what) >= least).await;
    }
    let stats = broke.stats();
    assert!(stats.idle >= silent / 2, "{} were idle", stats.idle);
    let slow = stats.slow_consumers;
    assert!(slow >= NEVER_READ, "{slow} were slow");
}
