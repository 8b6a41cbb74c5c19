//! A proxy between one instance and Redis, that can be cut.

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
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::AbortHandle,
};

pub(crate) struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    to: PathBuf,
    cut: watch::Sender<bool>,
    /// The connections, each with whether it subscribes, and whether what comes back is swallowed.
    connections: Mutex<Vec<Arc<Connection>>>,
}

#[derive(Default)]
struct Connection {
    subscribes: AtomicBool,
    deaf: AtomicBool,
}

impl Proxy {
    pub(crate) async fn start(to: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            cut: watch::Sender::new(false),
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
    let mut cut = shared.cut.subscribe();
    if *cut.borrow() {
        return;
    }
    let Ok(server) = UnixStream::connect(&shared.to).await else {
        return;
    };
    let connection = Arc::new(Connection::default());
    shared.connections.lock().push(connection.clone());
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
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
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if !connection.deaf.load(Relaxed)
                && to_client.write_all(&buffer[..count]).await.is_err()
            {
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
