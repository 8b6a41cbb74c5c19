//! A proxy between one instance and Redis, or a sentinel, that can be cut.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::AbortHandle,
};

use super::sieve::Sieve;

pub(crate) struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// Where a server is named by the first port, instances read the second, a proxy's.
pub(crate) type Ports = Arc<Mutex<Vec<(u16, u16)>>>;

/// Where a proxy leads.
pub(crate) enum Far {
    Socket(PathBuf),
    /// To a sentinel, which names servers.
    Port(u16, Ports),
    /// To a node of a Redis Cluster, which names others.
    Node(PathBuf, Ports),
}

struct Shared {
    to: Far,
    cut: watch::Sender<bool>,
    stalled: watch::Sender<bool>,
    /// No connection is let through that is not there yet.
    closed: AtomicBool,
    /// Most of what is published is lost on the way back.
    lossy: AtomicBool,
    /// The connections, each with whether it subscribes, and whether what comes back is swallowed.
    connections: Mutex<Vec<Arc<Connection>>>,
}

#[derive(Default)]
struct Connection {
    subscribes: AtomicBool,
    deaf: AtomicBool,
}

impl Proxy {
    pub(crate) async fn start(to: Far) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            cut: watch::Sender::new(false),
            stalled: watch::Sender::new(false),
            closed: AtomicBool::new(false),
            lossy: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let task = tokio::spawn(serve(listener, shared.clone())).abort_handle();
        Self { addr, shared, task }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts all connections and lets none through, or lets them through again.
    pub(crate) fn cut(&self, cut: bool) {
        self.shared.cut.send_replace(cut);
    }

    /// Lets no more connections through than there are, or lets them through again.
    pub(crate) fn close(&self, closed: bool) {
        self.shared.closed.store(closed, Relaxed);
    }

    /// Loses most of what is published, or nothing any more. Says whether anybody subscribed, as far as it can read that.
    pub(crate) fn disturb(&self, lossy: bool) -> bool {
        self.shared.lossy.store(lossy, Relaxed);
        let connections = self.shared.connections.lock();
        connections
            .iter()
            .any(|connection| connection.subscribes.load(Relaxed))
    }

    /// Lets nothing come back, as over a way that is full, or lets it come back again.
    pub(crate) fn stall(&self, stalled: bool) {
        self.shared.stalled.send_replace(stalled);
    }

    /// Swallows what comes back over the connections that subscribed.
    pub(crate) fn deafen(&self) {
        for connection in &*self.shared.connections.lock() {
            connection
                .deaf
                .store(connection.subscribes.load(Relaxed), Relaxed);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut(true);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        tokio::spawn(carry(client, shared.clone()));
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    if *shared.cut.borrow() || shared.closed.load(Relaxed) {
        return;
    }
    match &shared.to {
        Far::Socket(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                between(client, server, &[], &shared).await;
            }
        }
        Far::Port(port, ports) => {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", *port)).await {
                let ports = ports.lock().clone();
                between(client, server, &ports, &shared).await;
            }
        }
        Far::Node(path, ports) => {
            if let Ok(server) = UnixStream::connect(path).await {
                let ports = ports.lock().clone();
                between(client, server, &ports, &shared).await;
            }
        }
    }
}

async fn between(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    ports: &[(u16, u16)],
    shared: &Shared,
) {
    let (mut cut, mut stalled) = (shared.cut.subscribe(), shared.stalled.subscribe());
    let connection = Arc::new(Connection::default());
    shared.connections.lock().push(connection.clone());
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let forth = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            if buffer[..count].windows(9).any(|part| part == b"SUBSCRIBE") {
                connection.subscribes.store(true, Relaxed);
            }
            if to_server.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let (mut buffer, mut sieve) = (vec![0; 64 << 10], Sieve::default());
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            replace(&mut buffer[..count], ports);
            if stalled.wait_for(|stalled| !stalled).await.is_err() {
                return;
            }
            // It subscribes when all that it asked before has been answered.
            let passed = match connection.subscribes.load(Relaxed) {
                true => &*sieve.pass(&buffer[..count], shared.lossy.load(Relaxed)),
                false => &buffer[..count],
            };
            if !connection.deaf.load(Relaxed) && to_client.write_all(passed).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = forth => {}
        () = back => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}

/// How long a port is as a text. Those that the system chooses have five digits all, so the length stays the same.
const DIGITS: usize = 5;

/// Replaces ports, as a text and as a number, each by the one that it is paired with.
fn replace(text: &mut [u8], ports: &[(u16, u16)]) {
    for end in DIGITS + 1..text.len() {
        let (start, before) = (end - DIGITS, text[end - DIGITS - 1]);
        if text[end] != b'\r' || !matches!(before, b'\n' | b':') {
            continue;
        }
        let port = str::from_utf8(&text[start..end]).map(str::parse::<u16>);
        let known = ports
            .iter()
            .find(|(own, _)| matches!(&port, Ok(Ok(port)) if port == own));
        if let Some((_, instead)) = known {
            text[start..end].copy_from_slice(instead.to_string().as_bytes());
        }
    }
}
