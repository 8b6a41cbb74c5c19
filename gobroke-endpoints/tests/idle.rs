//! What connections cost that say nothing, once their handshake is over.

#![cfg(all(feature = "tls", feature = "tcp", feature = "ws", feature = "http"))]

#[path = "tls/authority.rs"]
mod authority;
mod common;

use std::{
    alloc::System,
    any::Any,
    env,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use authority::{Authority, trusting};
use cap::Cap;
use common::{PATIENCE, address, echo, soon, websocket};
use gobroke_core::Endpoint;
use gobroke_endpoints::{HttpEndpoint, RawCodec, TcpEndpoint, WebSocketEndpoint};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    runtime::{Builder, Handle},
    time::{Instant, sleep},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

/// Counts what is allocated, by all threads.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// The tests share the heap, so they take turns, from the first thing that one allocates to the end of its runtime.
static ALONE: Mutex<()> = Mutex::new(());

/// Says, to the program that a test starts, where to connect and whom to trust there.
const CONNECT: &str = "GOBROKE_TEST_CONNECT";
const TRUST: &str = "GOBROKE_TEST_TRUST";

const ANY: &str = "127.0.0.1:0";
const IDLE: usize = 400;
const KIB: usize = 1 << 10;
const SSE: &str = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn an_idle_websocket_holds_two_kilobytes() {
    Clients::of("an_idle_websocket_holds_two_kilobytes")
        .opening(websocket::request(""))
        .hold_at_most(2 * KIB, |_| WebSocketEndpoint::bind(ANY).codec(raw()));
}

#[test]
fn an_idle_tcp_connection_holds_two_kilobytes() {
    Clients::of("an_idle_tcp_connection_holds_two_kilobytes")
        .hold_at_most(2 * KIB, |_| TcpEndpoint::bind(ANY).codec(raw()));
}

#[test]
fn an_idle_websocket_over_tls_holds_ten_kilobytes() {
    Clients::of("an_idle_websocket_over_tls_holds_ten_kilobytes")
        .opening(websocket::request(""))
        .over_tls()
        .hold_at_most(10 * KIB + KIB / 2, |authority| {
            let endpoint = WebSocketEndpoint::bind(ANY).codec(raw());
            endpoint.tls(authority.server())
        });
}

#[test]
fn an_idle_tcp_connection_over_tls_holds_ten_kilobytes() {
    Clients::of("an_idle_tcp_connection_over_tls_holds_ten_kilobytes")
        .over_tls()
        .hold_at_most(10 * KIB, |authority| {
            let endpoint = TcpEndpoint::bind(ANY).codec(raw());
            endpoint.tls(authority.server())
        });
}

#[test]
fn an_idle_stream_of_events_holds_thirty_kilobytes() {
    Clients::of("an_idle_stream_of_events_holds_thirty_kilobytes")
        .opening(SSE.to_owned())
        .tasks(2)
        .hold_at_most(30 * KIB + KIB / 2, |_| HttpEndpoint::bind(ANY).codec(raw()));
}

fn raw() -> RawCodec {
    RawCodec::to_logic("echo")
}

/// Clients that connect and say nothing.
struct Clients {
    test: &'static str,
    /// The request that opens a connection, where one does.
    opening: String,
    tls: bool,
    /// How many tasks each of them is.
    tasks: usize,
}

impl Clients {
    /// Those of the test with this name.
    fn of(test: &'static str) -> Self {
        Self {
            test,
            opening: String::new(),
            tls: false,
            tasks: 1,
        }
    }

    fn opening(mut self, request: String) -> Self {
        self.opening = request;
        self
    }

    fn tasks(mut self, tasks: usize) -> Self {
        self.tasks = tasks;
        self
    }

    fn over_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Lets them connect: nothing is left then of each but its tasks, and so many bytes at the most.
    fn hold_at_most<E: Endpoint>(self, most: usize, endpoint: impl FnOnce(&Authority) -> E) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        if let Ok(address) = env::var(CONNECT) {
            let trusted = env::var_os(TRUST).expect("a certificate").into();
            return runtime.block_on(self.stay(address.parse().expect("an address"), trusted));
        }
        let authority = Authority::new();
        let endpoint = endpoint(&authority);
        runtime.block_on(self.measure(most, endpoint, authority.path("ca.pem")));
    }

    async fn measure(self, most: usize, endpoint: impl Endpoint, trusted: PathBuf) {
        let broke = echo(endpoint).start().await.expect("it starts");
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let of_the_router = tasks();
        let connected = |clients| {
            broke.local_client_count() == clients && tasks() == of_the_router + clients * self.tasks
        };
        // What the first one needs of lists and rooms is not counted.
        let first = self.open(address(&broke), &trusted).await;
        until(
            || connected(1),
            || format!("{} tasks", tasks() - of_the_router),
        )
        .await;
        let before = HEAP.allocated();
        // In a program of their own, or the clients' halves would be counted too.
        let mut others = Command::new(env::current_exe().expect("this program"));
        others
            .args([self.test, "--exact"])
            .env(CONNECT, address(&broke).to_string())
            .env(TRUST, &trusted)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let mut others = others.spawn().expect("it starts");
        let held = || HEAP.allocated().saturating_sub(before) / IDLE;
        until(
            || connected(1 + IDLE) && held() <= most,
            || {
                format!(
                    "{} clients, {} tasks, {} bytes each",
                    broke.local_client_count(),
                    tasks() - of_the_router,
                    held()
                )
            },
        )
        .await;
        drop(others.stdin.take());
        assert!(soon(others.wait()).await.expect("it ends").success());
        drop(first);
        soon(broke.stop()).await;
    }

    /// Opens connections, and holds them until told to stop.
    async fn stay(&self, address: SocketAddr, trusted: PathBuf) {
        let mut held = Vec::new();
        for _ in 0..IDLE {
            held.push(self.open(address, &trusted).await);
        }
        let mut told = Vec::new();
        let read = std::io::stdin().read_to_end(&mut told);
        read.expect("the end of it");
        drop(held);
    }

    async fn open(&self, address: SocketAddr, trusted: &Path) -> Box<dyn Any> {
        let stream = soon(TcpStream::connect(address))
            .await
            .expect("a connection");
        if !self.tls {
            return self.begin(stream).await;
        }
        let config = trusting(trusted).with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
        self.begin(stream.expect("a TLS handshake")).await
    }

    async fn begin<S>(&self, mut stream: S) -> Box<dyn Any>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let written = soon(stream.write_all(self.opening.as_bytes())).await;
        written.expect("it writes");
        let mut head = Vec::new();
        while !self.opening.is_empty() && !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.read_u8()).await.expect("more of the head"));
        }
        Box::new(stream)
    }
}

/// Waits until it is so, and says what is instead.
async fn until(is_so: impl Fn() -> bool, instead: impl Fn() -> String) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{}", instead());
        sleep(Duration::from_millis(10)).await;
    }
}
