//! axum, as its documentation does an echo, and as its chat example does the rest: a `tokio::sync::broadcast` channel, two
//! tasks a connection, and a `send` for each message. With `forwarded` as its second argument, better than that example:
//! what is there is forwarded together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use axum::{
    Router,
    body::Bytes,
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::Uri,
    response::Response,
    routing::any,
};
use axum_server::{
    accept::NoDelayAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use futures_util::{
    SinkExt, StreamExt,
    stream::{self, SplitSink},
};
use gobroke_bench::{ACK, ANY, Mode, nodelay, ready, room, tls::Identity};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, UnboundedReceiverStream};

/// More than is ever under way: a receiver that lags would lose messages.
const CAPACITY: usize = 1 << 14;
const ROOMS: usize = 1000;

struct Server {
    mode: Mode,
    forwards: bool,
    next: AtomicUsize,
    rooms: Vec<broadcast::Sender<(usize, Bytes)>>,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mode = Mode::from_args();
    let rooms = if mode == Mode::Rooms { ROOMS } else { 1 };
    let capacity = if mode == Mode::Rooms {
        CAPACITY / 32
    } else {
        CAPACITY
    };
    let server = Arc::new(Server {
        mode,
        forwards: std::env::args().nth(2).as_deref() == Some("forwarded"),
        next: AtomicUsize::new(0),
        rooms: (0..rooms).map(|_| broadcast::channel(capacity).0).collect(),
    });
    let app = Router::new()
        .route("/{room}", any(upgrade))
        .with_state(server);
    if let Some(identity) = Identity::from_env() {
        return serve_tls(&identity, app).await;
    }
    let listener = tokio::net::TcpListener::bind(ANY).await?;
    ready(listener.local_addr()?);
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(nodelay());
        }),
        app,
    )
    .await
}

/// As its example for TLS does it.
async fn serve_tls(identity: &Identity, app: Router) -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind(ANY)?;
    listener.set_nonblocking(true)?;
    ready(listener.local_addr()?);
    let config = RustlsConfig::from_config(identity.server()?);
    let acceptor = RustlsAcceptor::new(config).acceptor(NoDelayAcceptor::new());
    let server = axum_server::from_tcp(listener)?.acceptor(acceptor);
    server.serve(app.into_make_service()).await
}

async fn upgrade(ws: WebSocketUpgrade, uri: Uri, State(server): State<Arc<Server>>) -> Response {
    let room = room(uri.path());
    ws.on_upgrade(move |socket| serve(socket, server, room))
}

/// As its documentation does it.
async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn serve(socket: WebSocket, server: Arc<Server>, room: usize) {
    let mode = server.mode;
    if mode == Mode::Echo {
        return echo(socket).await;
    }
    let me = server.next.fetch_add(1, Relaxed);
    let (sink, mut incoming) = socket.split();
    let channel = server.rooms[room % server.rooms.len()].clone();
    let others = channel.subscribe();
    let (own, answers) = mode.acknowledges().then(mpsc::unbounded_channel).unzip();
    let sending = match (server.forwards, answers) {
        (true, answers) => tokio::spawn(forward(others, answers, sink, mode, me)),
        (false, Some(answers)) => tokio::spawn(send_both(others, answers, sink, mode, me)),
        (false, None) => tokio::spawn(send_each(others, sink, mode, me)),
    };
    while let Some(Ok(message)) = incoming.next().await {
        if let Message::Binary(bytes) = message {
            if let Some(own) = &own {
                let _ = own.send(bytes.slice(..ACK.min(bytes.len())));
            }
            let _ = channel.send((me, bytes));
        }
    }
    sending.abort();
}

type Others = broadcast::Receiver<(usize, Bytes)>;
type Answers = mpsc::UnboundedReceiver<Bytes>;
type Sink = SplitSink<WebSocket, Message>;

async fn send_each(mut others: Others, mut sink: Sink, mode: Mode, me: usize) {
    while let Ok((from, bytes)) = others.recv().await {
        if is_for(me, from, mode) && sink.send(Message::Binary(bytes)).await.is_err() {
            return;
        }
    }
}

async fn send_both(
    mut others: Others,
    mut answers: Answers,
    mut sink: Sink,
    mode: Mode,
    me: usize,
) {
    loop {
        let bytes = tokio::select! {
            message = others.recv() => match message {
                Ok((from, bytes)) if is_for(me, from, mode) => bytes,
                Ok(_) => continue,
                Err(_) => return,
            },
            Some(bytes) = answers.recv() => bytes,
        };
        if sink.send(Message::Binary(bytes)).await.is_err() {
            return;
        }
    }
}

async fn forward(others: Others, answers: Option<Answers>, sink: Sink, mode: Mode, me: usize) {
    let others = BroadcastStream::new(others).filter_map(move |message| {
        let message = message.ok().filter(|(from, _)| is_for(me, *from, mode));
        std::future::ready(message.map(|(_, bytes)| Ok(Message::Binary(bytes))))
    });
    let _ = if let Some(answers) = answers {
        let answers = UnboundedReceiverStream::new(answers).map(|bytes| Ok(Message::Binary(bytes)));
        stream::select(others, answers).forward(sink).await
    } else {
        others.forward(sink).await
    };
}

fn is_for(me: usize, from: usize, mode: Mode) -> bool {
    mode.includes_sender() || from != me
}
