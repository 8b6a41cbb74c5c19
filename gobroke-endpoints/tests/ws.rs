//! WebSocket over real sockets: with a foreign client, and with bytes laid by hand.

#![cfg(feature = "ws")]

mod common;

use std::time::Duration;

use common::{TcpClient, address, bad_input, echo, soon, stop, websocket::frame};
use futures_util::{SinkExt, StreamExt};
use gobroke_core::{Broke, BrokeBuilder, CloseReason, Message as Sent};
use gobroke_endpoints::{JsonCodec, RawCodec, ReceiveBudget, WebSocketEndpoint};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn raw() -> WebSocketEndpoint {
    WebSocketEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"))
}

fn json_codec() -> WebSocketEndpoint {
    WebSocketEndpoint::bind("127.0.0.1:0")
        .codec(JsonCodec::to_logic("echo").allow_logic(["missing"]))
}

async fn start(builder: BrokeBuilder) -> Broke {
    builder.start().await.expect("it starts")
}

async fn connect(broke: &Broke) -> Client {
    let (client, answer) = soon(connect_async(format!("ws://{}/", address(broke))))
        .await
        .expect("a handshake");
    assert_eq!(answer.headers().get("sec-websocket-protocol"), None);
    client
}

async fn next(client: &mut Client) -> Message {
    soon(client.next())
        .await
        .expect("a message")
        .expect("a good one")
}

async fn next_json(client: &mut Client) -> Value {
    match next(client).await {
        Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

async fn send(client: &mut Client, message: impl Into<Message>) {
    soon(client.send(message.into())).await.expect("it writes");
}

/// The code and the reason of the close that comes next, and that nothing follows it.
async fn closed(client: &mut Client) -> (u16, String) {
    let Message::Close(Some(frame)) = next(client).await else {
        panic!("no close")
    };
    assert!(soon(client.next()).await.is_none_or(|end| end.is_err()));
    (frame.code.into(), frame.reason.to_string())
}

/// A handshake by hand, and what is left of the stream behind it.
async fn by_hand(broke: &Broke, behind: &[u8]) -> TcpClient {
    let mut client = TcpClient::connect(address(broke)).await;
    client.write([HANDSHAKE.as_bytes(), behind].concat()).await;
    let head = head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.to_lowercase()
            .contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    client
}

const HANDSHAKE: &str = "GET /any?x=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// The head of an answer.
async fn head(client: &mut TcpClient) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(client.0.read_u8()).await.expect("more of the head"));
    }
    String::from_utf8(head).expect("text")
}

#[tokio::test]
async fn text_comes_back_as_text_and_bytes_as_bytes_of_any_length() {
    let broke = start(echo(raw())).await;
    let mut client = connect(&broke).await;
    for length in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let text = Message::text("é".repeat(length / 2));
        let bytes = Message::binary(vec![0xfe; length]);
        for message in [text, bytes] {
            send(&mut client, message.clone()).await;
            assert!(next(&mut client).await == message, "{length} bytes");
        }
    }
    stop(broke, client).await;
}

#[tokio::test]
async fn a_thousand_messages_at_once_come_back_in_order() {
    let broke = start(echo(raw())).await;
    let (mut write, mut read) = connect(&broke).await.split();
    let writing = async {
        for number in 0..1000 {
            write
                .feed(Message::text(number.to_string()))
                .await
                .expect("it writes");
        }
        write.flush().await.expect("it writes");
    };
    let reading = async {
        for number in 0..1000 {
            let message = read.next().await.expect("a message").expect("a good one");
            assert_eq!(message.to_text().expect("text"), number.to_string());
        }
    };
    soon(async { tokio::join!(writing, reading) }).await;
    stop(broke, (write, read)).await;
}

#[tokio::test]
async fn pings_are_answered_behind_the_messages_before_them() {
    let broke = start(echo(raw())).await;
    let mut client = connect(&broke).await;
    for message in [
        Message::text("a"),
        Message::Ping("1".into()),
        Message::text("b"),
        Message::Ping("2".into()),
    ] {
        soon(client.feed(message)).await.expect("it writes");
    }
    soon(client.flush()).await.expect("it writes");
    assert_eq!(next(&mut client).await, Message::text("a"));
    assert_eq!(next(&mut client).await, Message::Pong("1".into()));
    assert_eq!(next(&mut client).await, Message::text("b"));
    assert_eq!(next(&mut client).await, Message::Pong("2".into()));
    stop(broke, client).await;
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_behind_the_answers() {
    let broke = start(echo(raw())).await;
    let mut client = connect(&broke).await;
    send(&mut client, Message::text("last")).await;
    let close = CloseFrame {
        code: CloseCode::Away,
        reason: "bye".into(),
    };
    send(&mut client, Message::Close(Some(close))).await;
    assert_eq!(next(&mut client).await, Message::text("last"));
    assert_eq!(closed(&mut client).await, (1001, String::new()));
    stop(broke, client).await;
}

#[tokio::test]
async fn a_close_without_a_code_is_answered_without_one() {
    let broke = start(echo(raw())).await;
    let mut client = by_hand(&broke, &frame(0x88, b"")).await;
    assert_eq!(client.rest().await, [0x88, 0]);
    stop(broke, client).await;
}

#[tokio::test]
async fn what_stood_right_behind_the_handshake_is_read() {
    let broke = start(echo(raw())).await;
    let frames = [frame(0x81, b"early"), frame(0x88, b"\x03\xe8")].concat();
    let mut client = by_hand(&broke, &frames).await;
    assert_eq!(client.rest().await, b"\x81\x05early\x88\x02\x03\xe8");
    // Half a frame, too.
    let (first, second) = frames.split_at(8);
    let mut client = by_hand(&broke, first).await;
    client.write(second).await;
    assert_eq!(client.rest().await, b"\x81\x05early\x88\x02\x03\xe8");
    stop(broke, client).await;
}

#[tokio::test]
async fn json_clients_are_welcomed_and_may_name_the_subprotocol() {
    let broke = start(echo(json_codec())).await;
    let mut request = format!("ws://{}/", address(&broke))
        .into_client_request()
        .expect("a request");
    request.headers_mut().insert(
        "sec-websocket-protocol",
        "x, gobroke.json.v1".parse().expect("a value"),
    );
    let (mut named, answer) = soon(connect_async(request)).await.expect("a handshake");
    assert_eq!(
        answer.headers()["sec-websocket-protocol"],
        "gobroke.json.v1"
    );
    let mut plain = connect(&broke).await;
    for client in [&mut named, &mut plain] {
        let welcome = next_json(client).await;
        assert_eq!(welcome["welcome"]["instance"], "test");
        send(client, Message::text(r#"{"payload":[1,2]}"#)).await;
        let message = next_json(client).await;
        assert_eq!(message["payload"], json!([1, 2]));
        assert_eq!(message["from"]["client"], welcome["welcome"]["client"]);
    }
    stop(broke, (named, plain)).await;
}

#[tokio::test]
async fn bad_json_is_told_counted_and_survived() {
    let broke = start(echo(json_codec())).await;
    let mut client = connect(&broke).await;
    next_json(&mut client).await;
    let cases = [
        ("", "bad_frame"),
        ("[]", "bad_frame"),
        ("garbage", "bad_frame"),
        (r#"{"payload":1,"to":{"logic":["other"]}}"#, "not_allowed"),
        (r#"{"payload":1,"to":{"groups":["lobby"]}}"#, "not_allowed"),
        (
            r#"{"payload":1,"to":{"logic":["missing"]}}"#,
            "unknown_logic",
        ),
    ];
    for (text, code) in cases {
        send(&mut client, Message::text(text)).await;
        assert_eq!(
            next_json(&mut client).await["error"]["code"],
            code,
            "{text}"
        );
    }
    assert_eq!(
        (
            bad_input(&broke, "bad_frame"),
            bad_input(&broke, "not_allowed")
        ),
        (3, 2)
    );
    send(&mut client, Message::binary("{}")).await;
    assert_eq!(closed(&mut client).await.0, 1003);
    assert_eq!(bad_input(&broke, "unsupported"), 1);
    stop(broke, client).await;
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_is_closed_with_the_right_code_and_counted() {
    let broke = start(echo(raw().configure(|options| options.max_message = 1000))).await;
    let cases: [(&str, Vec<u8>, u16, &str); 9] = [
        (
            "garbage",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            1002,
            "protocol_error",
        ),
        ("not masked", b"\x81\x02hi".to_vec(), 1002, "protocol_error"),
        ("a reserved bit", frame(0xc1, b"hi"), 1002, "protocol_error"),
        (
            "a long ping",
            b"\x89\xfe\x00\x7e".to_vec(),
            1002,
            "protocol_error",
        ),
        (
            "a code that may not be sent",
            frame(0x88, b"\x03\xed"),
            1002,
            "protocol_error",
        ),
        ("no UTF-8", frame(0x81, b"\xff"), 1007, "invalid_payload"),
        (
            "half a character",
            frame(0x81, b"\xc3"),
            1007,
            "invalid_payload",
        ),
        ("too long", b"\x82\xfe\x03\xe9".to_vec(), 1009, "too_big"),
        (
            "far too long",
            b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            1009,
            "too_big",
        ),
    ];
    for (what, bytes, code, counted) in cases {
        let before = bad_input(&broke, counted);
        // What was good before it is answered before it.
        let mut client = by_hand(&broke, &[frame(0x82, b"good"), bytes].concat()).await;
        let rest = client.rest().await;
        assert!(rest.starts_with(b"\x82\x04good\x88"), "{what}: {rest:x?}");
        assert_eq!(rest[8..10], code.to_be_bytes(), "{what}");
        assert_eq!(
            rest.len(),
            8 + usize::from(rest[7]),
            "{what}: nothing follows"
        );
        assert!(rest.len() > 10, "{what}: it says why");
        assert_eq!(bad_input(&broke, counted), before + 1, "{what}");
    }
    stop(broke, ()).await;
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_then_closed() {
    let broke = start(echo(raw().configure(|options| {
        options.ping_interval = Some(Duration::from_millis(1));
        options.pong_timeout = Duration::from_millis(500);
    })))
    .await;
    let mut client = by_hand(&broke, b"").await;
    let mut ping = [0; 2];
    soon(client.0.read_exact(&mut ping)).await.expect("a ping");
    assert_eq!(ping, [0x89, 0]);
    client.write(frame(0x8a, b"")).await;
    let rest = client.rest().await;
    assert!(rest.starts_with(b"\x89\0\x88\x06\x0f\xa1idle"), "{rest:x?}");
    stop(broke, client).await;
}

#[tokio::test]
async fn closes_of_the_server_say_code_and_reason() {
    let broke = start(echo(raw())).await;
    let mut kicked = connect(&broke).await;
    send(&mut kicked, Message::text("hello")).await;
    next(&mut kicked).await;
    let id = broke.local_clients()[0].id();
    broke
        .send(Sent::text("before").to_client(id))
        .expect("it is sent");
    broke.disconnect(id, CloseReason::Kicked("be nice".into()));
    assert_eq!(next(&mut kicked).await, Message::text("before"));
    assert_eq!(closed(&mut kicked).await, (4002, "be nice".to_owned()));

    let mut stopped = connect(&broke).await;
    send(&mut stopped, Message::text("hello")).await;
    next(&mut stopped).await;
    let stopping = tokio::spawn({
        let broke = broke.clone();
        async move { broke.stop().await }
    });
    assert_eq!(closed(&mut stopped).await, (1001, "going away".to_owned()));
    drop(stopped);
    soon(stopping).await.expect("it stops");
}

#[tokio::test]
async fn a_close_arrives_though_its_client_goes_on_sending() {
    let broke = start(echo(raw())).await;
    let mut client = by_hand(&broke, &frame(0x83, b"")).await;
    client.write(vec![0; 1 << 20]).await;
    let rest = client.rest().await;
    assert_eq!(rest[..1], [0x88]);
    assert_eq!(rest[2..4], 1002_u16.to_be_bytes());
    stop(broke, client).await;
}

#[tokio::test]
async fn a_client_that_is_being_closed_keeps_no_memory_for_what_it_began() {
    let budget = ReceiveBudget::new(1 << 20);
    let endpoint = raw().receive_budget(budget.clone());
    let broke = start(echo(
        endpoint.configure(|options| options.outbox_bytes = 64 << 20),
    ))
    .await;
    let mut client = by_hand(&broke, &frame(0x01, b"begun")).await;
    soon(async {
        while budget.used() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // More than the socket takes, so that the close has to wait behind it.
    let id = broke.local_clients()[0].id();
    let large = Sent::new(vec![0; 32 << 20]).to_client(id);
    broke.send(large).expect("it is sent");
    client.write(frame(0x83, b"")).await;
    soon(async {
        while budget.used() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(broke.local_client_count(), 1, "it is not closed yet");
    stop(broke, client).await;
}

#[tokio::test]
async fn a_client_that_vanishes_leaves() {
    let broke = start(echo(raw())).await;
    for behind in [
        &b""[..],
        b"\x81",
        b"\x82\xfe\x00\xffhalf",
        b"\x01\x80\0\0\0\0",
    ] {
        let client = by_hand(&broke, behind).await;
        drop(client);
    }
    soon(async {
        while broke.stats().disconnected < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(broke.local_client_count(), 0);
    stop(broke, ()).await;
}

#[tokio::test]
async fn a_flood_of_pings_or_pongs_is_closed_and_as_many_as_are_allowed_are_answered() {
    let broke = start(echo(raw().max_control_frames(10))).await;
    for flood in [frame(0x89, b"x"), frame(0x8a, b"x")] {
        let mut client = by_hand(&broke, &flood.repeat(11)).await;
        let rest = client.rest().await;
        let close = rest.iter().position(|byte| *byte == 0x88).expect("a close");
        let pongs = if flood[0] == 0x89 { 10 } else { 0 };
        assert_eq!(rest[..close], *b"\x8a\x01x".repeat(pongs));
        assert_eq!(rest[close + 2..close + 4], 1008_u16.to_be_bytes());
    }
    assert_eq!(bad_input(&broke, "policy_violation"), 2);
    stop(broke, ()).await;
}

#[tokio::test]
async fn a_message_in_too_many_fragments_is_closed() {
    let broke = start(echo(raw())).await;
    let fragments = [frame(0x01, b""), frame(0x00, b"").repeat(1 << 17)].concat();
    let mut client = by_hand(&broke, &fragments).await;
    let rest = client.rest().await;
    assert_eq!((rest[0], &rest[2..4]), (0x88, &1008_u16.to_be_bytes()[..]));
    assert_eq!(bad_input(&broke, "policy_violation"), 1);
    stop(broke, ()).await;
}
