//! fastwebsockets, as its example of an echo does it: its upgrade for hyper, one thread, and tasks that tokio's budget does
//! not hold back. For the rest a channel for each client, and its split halves. With `threads` as its second argument, as
//! its example for axum does it, as many threads as there are cores.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError, upgrade,
};
use gobroke_bench::{ACK, ANY, Mode, nodelay, ready, room, tls::Identity};
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::unconstrained,
};
use tokio_rustls::TlsAcceptor;

type Peers = HashMap<usize, UnboundedSender<Bytes>>;

struct Server {
    mode: Mode,
    next: AtomicUsize,
    /// By room.
    peers: Mutex<HashMap<usize, Peers>>,
}

fn main() -> io::Result<()> {
    let threads = std::env::args().nth(2).as_deref() == Some("threads");
    let mut runtime = match threads {
        true => runtime::Builder::new_multi_thread(),
        false => runtime::Builder::new_current_thread(),
    };
    runtime.enable_io().build()?.block_on(listen())
}

async fn listen() -> io::Result<()> {
    let server = Arc::new(Server {
        mode: Mode::from_args(),
        next: AtomicUsize::new(0),
        peers: Mutex::default(),
    });
    let identity = Identity::from_env();
    let config = identity.map(|identity| identity.server()).transpose()?;
    let acceptor = config.map(TlsAcceptor::from);
    let listener = TcpListener::bind(ANY).await?;
    ready(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(nodelay())?;
        let server = server.clone();
        match acceptor.clone() {
            None => drop(tokio::spawn(connection(server, stream))),
            Some(acceptor) => drop(tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    connection(server, stream).await;
                }
            })),
        }
    }
}

async fn connection(
    server: Arc<Server>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let service = service_fn(|request| answer(request, server.clone()));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.with_upgrades().await;
}

async fn answer(
    mut request: Request<Incoming>,
    server: Arc<Server>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let room = room(request.uri().path());
    let Ok((response, upgrade)) = upgrade::upgrade(&mut request) else {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = hyper::StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    tokio::spawn(async move {
        let _ = match server.mode {
            Mode::Echo => unconstrained(echo(upgrade)).await,
            _ => unconstrained(serve(upgrade, server, room)).await,
        };
    });
    Ok(response)
}

async fn echo(upgrade: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgrade.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn serve(
    upgrade: upgrade::UpgradeFut,
    server: Arc<Server>,
    room: usize,
) -> Result<(), WebSocketError> {
    let me = server.next.fetch_add(1, Relaxed);
    let room = if server.mode == Mode::Rooms { room } else { 0 };
    let (incoming, mut outgoing) = upgrade.await?.split(tokio::io::split);
    let mut incoming = FragmentCollectorRead::new(incoming);
    let (sender, mut receiver) = unbounded_channel::<Bytes>();
    let peers = || server.peers.lock().unwrap_or_else(PoisonError::into_inner);
    peers().entry(room).or_default().insert(me, sender.clone());
    let sending = tokio::spawn(unconstrained(async move {
        while let Some(bytes) = receiver.recv().await {
            if outgoing
                .write_frame(Frame::binary(Payload::Borrowed(&bytes)))
                .await
                .is_err()
            {
                return;
            }
        }
    }));
    let with_sender = server.mode.includes_sender();
    loop {
        let read = incoming
            .read_frame(&mut |_| async { Ok::<_, Infallible>(()) })
            .await;
        let Ok(frame) = read else { break };
        match frame.opcode {
            OpCode::Close => break,
            OpCode::Text | OpCode::Binary => {}
            _ => continue,
        }
        let bytes = Bytes::from(frame.payload.to_vec());
        if let Some(peers) = peers().get(&room) {
            for (_, peer) in peers.iter().filter(|(peer, _)| with_sender || **peer != me) {
                let _ = peer.send(bytes.clone());
            }
        }
        if server.mode.acknowledges() {
            let _ = sender.send(bytes.slice(..ACK.min(bytes.len())));
        }
    }
    sending.abort();
    if let Some(peers) = peers().get_mut(&room) {
        peers.remove(&me);
    }
    Ok(())
}
