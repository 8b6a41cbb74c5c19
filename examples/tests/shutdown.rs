//! A server that is told to stop, as an operator does it: by a signal to its process, while its clients are at it.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

use self::support::{DEADLINE, Program};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const CLIENTS: usize = 6;

/// How many messages of its own a client waits for at a time.
const OUTSTANDING: usize = 64;

/// How many messages the clients hear together before the signal. A fifth of them is about what waits for the one who
/// does not read yet: much more than sockets hold, much less than an outbox may.
const HEARD: u32 = 2_000;

/// So long that what waits for the one who does not read is more than sockets hold.
const LENGTH: usize = 24 << 10;

async fn broadcaster() -> (Program, String) {
    let free = "127.0.0.1:0";
    let arguments = ["--mode", "broadcast", "--ws", free, "--tcp", free];
    let mut server = Program::start(env!("CARGO_BIN_EXE_bench_server"), &arguments);
    let ready = server.prints("ready ws=").await;
    let (ws, _) = ready.split_once(" tcp=").unwrap();
    (server, format!("ws://{ws}/"))
}

/// Its next message; `None` for a close as going away, behind which nothing comes.
async fn next(socket: &mut (impl StreamExt<Item = WsResult> + Unpin)) -> Option<Vec<u8>> {
    match timeout(DEADLINE, socket.next()).await.unwrap() {
        Some(Ok(Message::Binary(bytes))) => Some(bytes.into()),
        Some(Ok(Message::Close(Some(frame)))) => {
            assert_eq!(frame.code, CloseCode::Away);
            let after = timeout(DEADLINE, socket.next()).await.unwrap();
            assert!(after.is_none(), "{after:?}");
            None
        }
        other => panic!("neither a message nor a close: {other:?}"),
    }
}

type WsResult = Result<Message, tokio_tungstenite::tungstenite::Error>;

/// Sends numbered messages until the server closes; gives all that it heard, from when it may read.
async fn converse(
    me: usize,
    socket: Socket,
    mut may_read: watch::Receiver<bool>,
    heard_by_all: Arc<Semaphore>,
) -> Vec<(usize, u32)> {
    let (mut to, mut from) = socket.split();
    let room = Arc::new(Semaphore::new(OUTSTANDING));
    let answered = room.clone();
    let sending = tokio::spawn(async move {
        for number in 0u32.. {
            room.acquire().await.unwrap().forget();
            let text = format!("{:LENGTH$}", format!("{me} {number}"));
            if to.send(Message::binary(text.into_bytes())).await.is_err() {
                return;
            }
        }
    });
    let mut heard = Vec::new();
    may_read.wait_for(|may| *may).await.unwrap();
    while let Some(bytes) = next(&mut from).await {
        let text = String::from_utf8(bytes).unwrap();
        let (who, number) = text.trim_end().split_once(' ').unwrap();
        let who = who.parse().unwrap();
        heard.push((who, number.parse().unwrap()));
        if who == me {
            answered.add_permits(1);
        }
        heard_by_all.add_permits(1);
    }
    sending.abort();
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_under_load_loses_nothing_that_was_accepted() {
    let (mut server, url) = broadcaster().await;
    let mut sockets = Vec::new();
    for _ in 0..CLIENTS {
        let (mut socket, _) = connect_async(&url).await.unwrap();
        // It is among those who hear all, before the first of the others speaks.
        socket.send(Message::binary(vec![])).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap(), b"");
        sockets.push(socket);
    }
    for (index, socket) in sockets.iter_mut().enumerate() {
        for _ in index + 1..CLIENTS {
            assert_eq!(next(socket).await.unwrap(), b"");
        }
    }
    let heard_by_all = Arc::new(Semaphore::new(0));
    let (now, later) = (watch::channel(true), watch::channel(false));
    let talking: Vec<_> = sockets
        .into_iter()
        .enumerate()
        .map(|(me, socket)| {
            // One does not read before the signal: what is for it waits in the server.
            let may_read = if me == 0 { &later.1 } else { &now.1 };
            tokio::spawn(converse(me, socket, may_read.clone(), heard_by_all.clone()))
        })
        .collect();
    let enough = heard_by_all.acquire_many(HEARD);
    drop(timeout(DEADLINE, enough).await.unwrap().unwrap());
    server.terminate();
    later.0.send_replace(true);
    let mut heard = Vec::new();
    for talking in talking {
        heard.push(timeout(DEADLINE, talking).await.unwrap().unwrap());
    }
    assert_eq!(server.ends().await, Some(0));
    // What one got, all got, in one order; and of each sender without a gap.
    let first = &heard[0];
    for other in &heard {
        assert_eq!(first.len(), other.len());
        assert!(first == other, "the same messages in another order");
    }
    for client in 0..CLIENTS {
        let numbers = first.iter().filter(|(who, _)| *who == client);
        assert!(
            numbers
                .map(|(_, number)| *number)
                .eq(0..first.iter().filter(|(who, _)| *who == client).count() as u32),
            "a gap in what {client} sent"
        );
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (mut server, url) = broadcaster().await;
    // The drain waits for one who does not read, for ten seconds.
    let (stalled, _) = connect_async(&url).await.unwrap();
    let (mut reads, _) = connect_async(&url).await.unwrap();
    for _ in 0..24 {
        reads.send(Message::binary(vec![0; 1 << 20])).await.unwrap();
        assert_eq!(next(&mut reads).await.unwrap().len(), 1 << 20);
    }
    server.terminate();
    assert_eq!(next(&mut reads).await, None, "the drain has begun");
    let second = Instant::now();
    server.terminate();
    assert_eq!(server.ends().await, Some(0));
    let took = second.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
    drop(stalled);
}
