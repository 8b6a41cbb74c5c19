//! UDP over real sockets.

#![cfg(feature = "udp")]

mod common;

use std::{net::SocketAddr, time::Duration};

use common::{PATIENCE, address, bad_input, echo, soon, stop};
use gobroke_core::{Admission, Broke, BrokeBuilder, CloseReason, Logic, Message, Refusal};
use gobroke_endpoints::{JsonCodec, RawCodec, UdpEndpoint};
use serde_json::Value;
use tokio::{net::UdpSocket, time::timeout};

const HELLO: u8 = 0x01;
const COOKIE: u8 = 0x02;
const CONNECT: u8 = 0x03;
const ACCEPTED: u8 = 0x04;
const REFUSED: u8 = 0x05;
const FRAME: u8 = 0x10;
const NUMBERED: u8 = 0x11;
const PING: u8 = 0x12;
const PONG: u8 = 0x13;
const CLOSE: u8 = 0x14;
const CHALLENGE: u8 = 0x15;
const MOVED: u8 = 0x16;

const NONCE: [u8; 8] = *b"a client";

fn raw() -> UdpEndpoint {
    UdpEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"))
}

async fn start(builder: BrokeBuilder) -> Broke {
    builder.start().await.expect("it starts")
}

/// A socket that talks to the server, and its session once it has one.
struct Client {
    socket: UdpSocket,
    id: [u8; 8],
}

impl Client {
    async fn at(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        socket.connect(server).await.expect("an address");
        Self { socket, id: [0; 8] }
    }

    async fn open(broke: &Broke) -> Self {
        Self::open_with(broke, NONCE, b"").await
    }

    async fn open_with(broke: &Broke, nonce: [u8; 8], first: &[u8]) -> Self {
        let mut client = Self::at(address(broke)).await;
        let cookie = client.cookie(nonce).await;
        client
            .send(CONNECT, &[b"GB01", &nonce, &cookie, first])
            .await;
        let (kind, accepted) = client.next().await;
        assert_eq!((kind, &accepted[..8]), (ACCEPTED, &nonce[..]));
        client.id.copy_from_slice(&accepted[8..]);
        client
    }

    async fn cookie(&self, nonce: [u8; 8]) -> Vec<u8> {
        self.send(HELLO, &[b"GB01", &nonce]).await;
        let (kind, answer) = self.next().await;
        assert_eq!((kind, &answer[..8]), (COOKIE, &nonce[..]));
        answer[8..].to_vec()
    }

    async fn send(&self, kind: u8, parts: &[&[u8]]) {
        let datagram = [&[kind], &parts.concat()[..]].concat();
        soon(self.socket.send(&datagram)).await.expect("it sends");
    }

    async fn frame(&self, frame: impl AsRef<[u8]>) {
        self.send(FRAME, &[&self.id, frame.as_ref()]).await;
    }

    /// The next datagram, whatever it is.
    async fn next(&self) -> (u8, Vec<u8>) {
        let mut buffer = vec![0; 65_536];
        let length = soon(self.socket.recv(&mut buffer))
            .await
            .expect("a datagram");
        (buffer[0], buffer[1..length].to_vec())
    }

    /// The next datagram of the session.
    async fn next_of_session(&self) -> (u8, Vec<u8>) {
        let (kind, body) = self.next().await;
        assert_eq!(body[..8], self.id);
        (kind, body[8..].to_vec())
    }

    async fn next_frame(&self) -> Vec<u8> {
        let (kind, frame) = self.next_of_session().await;
        assert_eq!(kind, FRAME);
        frame
    }

    /// Asserts that nothing came for what was sent: the next thing that does is the answer to a ping.
    async fn is_quiet(&self) {
        self.send(PING, &[&self.id]).await;
        assert_eq!(self.next_of_session().await, (PONG, Vec::new()));
    }
}

fn code(close: &[u8]) -> u16 {
    u16::from_be_bytes([close[0], close[1]])
}

#[tokio::test]
async fn frames_come_back_one_a_datagram() {
    let broke = start(echo(raw())).await;
    let client = Client::open(&broke).await;
    for frame in [&b"hello"[..], b"", &[7; 1200]] {
        client.frame(frame).await;
        assert_eq!(client.next_frame().await, frame);
    }
    client.is_quiet().await;
    assert_eq!(broke.stats().clients, 1);
    client
        .send(CLOSE, &[&client.id, &1000_u16.to_be_bytes()])
        .await;
    let (kind, close) = client.next_of_session().await;
    assert_eq!((kind, code(&close)), (CLOSE, 1000));
    gone(&broke).await;
    stop(broke, client).await;
}

/// Waits until no client is left.
async fn gone(broke: &Broke) {
    soon(async {
        while broke.stats().clients > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn json_clients_are_welcomed_and_told_what_was_wrong() {
    let endpoint = UdpEndpoint::bind("127.0.0.1:0").codec(JsonCodec::to_logic("echo"));
    let broke = start(echo(endpoint)).await;
    let client = Client::open(&broke).await;
    let json = |frame: Vec<u8>| serde_json::from_slice::<Value>(&frame).expect("JSON");
    let welcome = json(client.next_frame().await);
    assert_eq!(welcome["welcome"]["instance"], "test");
    client.frame(r#"{"payload":"hi"}"#).await;
    assert_eq!(json(client.next_frame().await)["payload"], "hi");
    client.frame("[]").await;
    assert_eq!(
        json(client.next_frame().await)["error"]["code"],
        "bad_frame"
    );
    client.frame(r#"{"ping":{}}"#).await;
    assert_eq!(
        json(client.next_frame().await)["pong"],
        serde_json::json!({})
    );
    assert_eq!(bad_input(&broke, "bad_frame"), 1);
    stop(broke, client).await;
}

#[tokio::test]
async fn an_address_that_proves_nothing_is_nobody_and_gets_at_most_three_times_what_it_sent() {
    let broke = start(echo(raw())).await;
    let client = Client::at(address(&broke)).await;
    let stranger = Client::at(address(&broke)).await;
    let cookie = client.cookie(NONCE).await;
    // Somebody else's cookie, an invented one, one for another name, and none of ours.
    stranger.send(CONNECT, &[b"GB01", &NONCE, &cookie]).await;
    stranger.send(CONNECT, &[b"GB01", &NONCE, &[0; 20]]).await;
    client.send(CONNECT, &[b"GB01", b"b client", &cookie]).await;
    stranger.send(CONNECT, &[b"GB01", &NONCE]).await;
    stranger.send(0xff, &[b"?"]).await;
    // What is answered, with how much.
    let asks: [(u8, &[&[u8]]); 3] = [
        (HELLO, &[b"GB01", &NONCE]),
        (PING, &[&[9; 8]]),
        (FRAME, &[&[9; 8]]),
    ];
    for (kind, parts) in asks {
        stranger.send(kind, parts).await;
        let (answer, body) = stranger.next().await;
        let sent = 1 + parts.concat().len();
        assert!(
            body.len() < 3 * sent,
            "{answer:x} of {} for {sent}",
            1 + body.len()
        );
        assert!(matches!(answer, COOKIE | CLOSE));
    }
    assert_eq!(bad_input(&broke, "udp_cookie"), 3);
    assert_eq!(bad_input(&broke, "udp_datagram"), 2);
    assert_eq!(bad_input(&broke, "udp_unknown"), 2);
    let stats = broke.stats();
    assert_eq!((stats.connected, stats.refused, stats.clients), (0, 0, 0));
    stop(broke, ()).await;
}

#[tokio::test]
async fn a_request_that_comes_twice_opens_one_session() {
    let broke = start(echo(raw())).await;
    let mut client = Client::at(address(&broke)).await;
    let cookie = client.cookie(NONCE).await;
    client.send(CONNECT, &[b"GB01", &NONCE, &cookie]).await;
    let first = client.next().await;
    client.send(CONNECT, &[b"GB01", &NONCE, &cookie]).await;
    assert_eq!(client.next().await, first);
    client.id.copy_from_slice(&first.1[8..]);
    client.is_quiet().await;
    assert_eq!(broke.stats().connected, 1);
    stop(broke, client).await;
}

#[tokio::test]
async fn a_client_whose_address_changes_stays_the_same_once_it_has_proved_the_new_one() {
    let broke = start(echo(raw())).await;
    let client = Client::open(&broke).await;
    let mut moved = Client::at(address(&broke)).await;
    moved.id = client.id;
    // What it says is heard; what it is answered goes where it was.
    moved.frame("from elsewhere").await;
    let (kind, cookie) = moved.next().await;
    assert_eq!(kind, CHALLENGE);
    assert!(cookie.len() < 3 * (1 + 8), "{}", cookie.len());
    assert_eq!(client.next_frame().await, b"from elsewhere");
    // A challenge that somebody else was given proves nothing.
    let mut thief = Client::at(address(&broke)).await;
    thief.id = client.id;
    thief.send(MOVED, &[&thief.id, &cookie]).await;
    thief.send(CLOSE, &[&thief.id]).await;
    client.frame("still here").await;
    assert_eq!(client.next_frame().await, b"still here");
    assert_eq!(bad_input(&broke, "udp_cookie"), 1);
    moved.send(MOVED, &[&moved.id, &cookie]).await;
    moved.frame("I moved").await;
    assert_eq!(moved.next_frame().await, b"I moved");
    let stats = broke.stats();
    assert_eq!((stats.connected, stats.clients), (1, 1));
    stop(broke, (client, moved)).await;
}

#[tokio::test]
async fn old_numbers_are_passed_over_and_answers_are_numbered_where_that_is_asked_for() {
    let broke = start(echo(raw().numbered())).await;
    let client = Client::open(&broke).await;
    let send = async |number: u32, frame: &[u8]| {
        client
            .send(NUMBERED, &[&client.id, &number.to_be_bytes(), frame])
            .await;
    };
    for (number, frame) in [
        (u32::MAX - 1, b"a"),
        (u32::MAX, b"b"),
        (u32::MAX - 1, b"x"),
        (u32::MAX, b"x"),
        (1, b"c"),
        (0, b"x"),
        (2, b"d"),
    ] {
        send(number, frame).await;
    }
    for (number, frame) in (1_u32..).zip([b"a", b"b", b"c", b"d"]) {
        let (kind, body) = client.next_of_session().await;
        assert_eq!(kind, NUMBERED);
        assert_eq!(body, [&number.to_be_bytes()[..], frame].concat());
    }
    assert_eq!(bad_input(&broke, "udp_old"), 3);
    stop(broke, client).await;
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_then_closed() {
    let endpoint = raw().configure(|options| {
        options.ping_interval = Some(Duration::from_millis(500));
        options.pong_timeout = Duration::from_secs(3);
    });
    let broke = start(echo(endpoint)).await;
    let client = Client::open(&broke).await;
    assert_eq!(client.next_of_session().await, (PING, Vec::new()));
    client.send(PONG, &[&client.id]).await;
    assert_eq!(client.next_of_session().await, (PING, Vec::new()));
    let (kind, close) = client.next_of_session().await;
    assert_eq!((kind, code(&close)), (CLOSE, CloseReason::Idle.code()));
    gone(&broke).await;
    assert_eq!(broke.stats().idle, 1);
    // Whoever missed that is told when it speaks again.
    client.frame("hello?").await;
    let (kind, close) = client.next_of_session().await;
    assert_eq!((kind, code(&close)), (CLOSE, 1006));
    stop(broke, client).await;
}

#[tokio::test]
async fn who_is_refused_is_told_why_and_the_token_is_seen_by_the_hook() {
    let builder =
        echo(raw().configure(|options| options.max_connections = 1)).on_connect(async |request| {
            match request.first_frame.as_deref() {
                Some(b"let me in") => Ok(Admission::anonymous()),
                _ => Err(Refusal::unauthorized("say the word")),
            }
        });
    let broke = start(builder).await;
    let client = Client::at(address(&broke)).await;
    let cookie = client.cookie(NONCE).await;
    client
        .send(CONNECT, &[b"GB01", &NONCE, &cookie, b"please"])
        .await;
    let (kind, refused) = client.next().await;
    assert_eq!((kind, code(&refused[8..])), (REFUSED, 4004));
    assert_eq!(refused[10..], *b"say the word");
    let inside = soon(async {
        loop {
            // The place of who was refused is free a moment later.
            let cookie = client.cookie(NONCE).await;
            client
                .send(CONNECT, &[b"GB01", &NONCE, &cookie, b"let me in"])
                .await;
            if client.next().await.0 == ACCEPTED {
                break;
            }
        }
    });
    inside.await;
    let other = Client::at(address(&broke)).await;
    let cookie = other.cookie(NONCE).await;
    other
        .send(CONNECT, &[b"GB01", &NONCE, &cookie, b"let me in"])
        .await;
    let (kind, refused) = other.next().await;
    assert_eq!(
        (kind, code(&refused[8..])),
        (REFUSED, CloseReason::Busy.code())
    );
    stop(broke, (client, other)).await;
}

#[tokio::test]
async fn closes_of_the_server_say_code_and_reason() {
    let broke = start(echo(raw().configure(|options| options.max_message = 100))).await;
    let client = Client::open(&broke).await;
    client.frame([0; 101]).await;
    let (kind, close) = client.next_of_session().await;
    assert_eq!((kind, code(&close)), (CLOSE, 1009));
    assert_eq!(bad_input(&broke, "too_big"), 1);
    let client = Client::open(&broke).await;
    let stopping = tokio::spawn(async move { broke.stop().await });
    let (kind, close) = client.next_of_session().await;
    assert_eq!((kind, code(&close)), (CLOSE, 1001));
    soon(stopping).await.expect("it stops");
}

#[tokio::test]
async fn a_flood_for_one_session_is_dropped_and_the_others_notice_nothing() {
    let stuck = Logic::dispatched_async("stuck", async |_, _| {
        std::future::pending::<()>().await;
        Ok(())
    });
    let codec = RawCodec::to_logic("stuck");
    let slow = UdpEndpoint::bind("127.0.0.1:0").name("slow").codec(codec);
    let builder = echo(raw())
        .endpoint(slow)
        .logic(stuck.in_flight(1).queue(2, 1 << 20));
    let broke = start(builder).await;
    let slow = broke.address("slow").expect("it listens");
    let mut flood = Client::at(slow).await;
    let cookie = flood.cookie(NONCE).await;
    flood.send(CONNECT, &[b"GB01", &NONCE, &cookie]).await;
    let accepted = flood.next().await.1;
    flood.id.copy_from_slice(&accepted[8..]);
    let client = Client::at(broke.address("udp").expect("it listens")).await;
    let cookie = client.cookie(NONCE).await;
    client.send(CONNECT, &[b"GB01", &NONCE, &cookie]).await;
    let client = Client {
        id: client.next().await.1[8..].try_into().expect("an id"),
        ..client
    };
    timeout(PATIENCE, async {
        while bad_input(&broke, "udp_overrun") == 0 {
            flood.frame("x").await;
        }
    })
    .await
    .expect("it is dropped");
    client.frame("hello").await;
    assert_eq!(client.next_frame().await, b"hello");
    broke.send(Message::new("all").to_all()).expect("it goes");
    assert_eq!(client.next_frame().await, b"all");
    drop(broke);
}
