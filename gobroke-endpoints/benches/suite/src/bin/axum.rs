//! axum, as its chat example does it: a `tokio::sync::broadcast` channel, and two tasks a connection. Where the example
//! sends message by message, what is there is forwarded together, which costs axum a quarter.

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
use futures_util::{SinkExt, StreamExt, stream};
use gobroke_bench::{ACK, ANY, Mode, ready, room};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, UnboundedReceiverStream};

/// More than is ever under way: a receiver that lags would lose messages.
const CAPACITY: usize = 1 << 14;
const ROOMS: usize = 1000;

struct Server {
    mode: Mode,
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
        next: AtomicUsize::new(0),
        rooms: (0..rooms).map(|_| broadcast::channel(capacity).0).collect(),
    });
    let app = Router::new()
        .route("/{room}", any(upgrade))
        .with_state(server);
    let listener = tokio::net::TcpListener::bind(ANY).await?;
    ready(listener.local_addr()?);
    axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(true);
        }),
        app,
    )
    .await
}

async fn upgrade(ws: WebSocketUpgrade, uri: Uri, State(server): State<Arc<Server>>) -> Response {
    let room = room(uri.path());
    ws.on_upgrade(move |socket| serve(socket, server, room))
}

async fn serve(socket: WebSocket, server: Arc<Server>, room: usize) {
    let me = server.next.fetch_add(1, Relaxed);
    let mode = server.mode;
    let (mut sink, mut incoming) = socket.split();
    if mode == Mode::Echo {
        while let Some(Ok(message)) = incoming.next().await {
            if let Message::Binary(_) = message
                && sink.send(message).await.is_err()
            {
                return;
            }
        }
        return;
    }
    let channel = server.rooms[room % server.rooms.len()].clone();
    let others = BroadcastStream::new(channel.subscribe()).filter_map(move |message| {
        let message = message
            .ok()
            .filter(|(from, _)| mode == Mode::All || mode == Mode::Rooms || *from != me);
        std::future::ready(message.map(|(_, bytes)| Ok(Message::Binary(bytes))))
    });
    let (own, answers) = mpsc::unbounded_channel();
    let sending = if mode == Mode::Ack {
        let answers = UnboundedReceiverStream::new(answers).map(|bytes| Ok(Message::Binary(bytes)));
        tokio::spawn(stream::select(others, answers).forward(sink))
    } else {
        tokio::spawn(others.forward(sink))
    };
    while let Some(Ok(message)) = incoming.next().await {
        if let Message::Binary(bytes) = message {
            let _ = channel.send((me, bytes.clone()));
            if mode == Mode::Ack {
                let _ = own.send(bytes.slice(..ACK.min(bytes.len())));
            }
        }
    }
    sending.abort();
}
