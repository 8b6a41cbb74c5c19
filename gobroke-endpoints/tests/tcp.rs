//! TCP over real sockets.

#![cfg(feature = "tcp")]

mod common;

use std::time::Duration;

use common::{TcpClient, address, bad_input, echo, soon, stop};
use gobroke_core::{Admission, Broke, CloseReason, Logic, Refusal, StartError};
use gobroke_endpoints::{JsonCodec, RawCodec, ReceiveBudget, TcpEndpoint};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

fn raw() -> TcpEndpoint {
    TcpEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"))
}

fn json_codec() -> TcpEndpoint {
    TcpEndpoint::bind("127.0.0.1:0").codec(JsonCodec::to_logic("echo").allow_logic(["missing"]))
}

async fn start(endpoint: TcpEndpoint) -> (Broke, TcpClient) {
    let broke = echo(endpoint).start().await.expect("it starts");
    let client = TcpClient::connect(address(&broke)).await;
    (broke, client)
}

/// A client that has read its welcome.
async fn start_json(endpoint: TcpEndpoint) -> (Broke, TcpClient) {
    let (broke, mut client) = start(endpoint).await;
    let welcome = client.next_json().await;
    assert_eq!(welcome["welcome"]["instance"], "test");
    (broke, client)
}

#[tokio::test]
async fn frames_come_back_in_order_and_whole() {
    let (broke, mut client) = start(raw()).await;
    let payloads: Vec<Vec<u8>> = [0, 1, 100, 70_000, 3, 1 << 20]
        .iter()
        .map(|&length| vec![length as u8; length])
        .collect();
    let sent = async {
        for payload in &payloads {
            client.send(payload).await;
        }
        for payload in &payloads {
            assert!(
                client.next().await.as_ref() == Some(payload),
                "{} bytes",
                payload.len()
            );
        }
    };
    soon(sent).await;
    stop(broke, client).await;
}

#[tokio::test]
async fn json_clients_are_welcomed_and_see_who_sent_what() {
    let (broke, mut client) = start(json_codec()).await;
    let welcome = client.next_json().await;
    let id = welcome["welcome"]["client"].as_str().expect("an id");
    let message = "0190d4f5-8e0b-7c3a-9d2e-1f2a3b4c5d6e";
    client
        .send(format!(
            r#"{{"id":"{message}","payload":{{"x":1}},"metadata":{{"k":"v"}}}}"#
        ))
        .await;
    assert_eq!(
        client.next_json().await,
        json!({"id": message, "from": {"client": id}, "payload": {"x": 1}, "metadata": {"k": "v"}})
    );
    stop(broke, client).await;
}

#[tokio::test]
async fn bytes_of_a_raw_client_reach_a_json_client_as_base64() {
    let broke = Broke::builder()
        .endpoint(
            TcpEndpoint::bind("127.0.0.1:0")
                .name("raw")
                .codec(RawCodec::to_logic("all")),
        )
        .endpoint(
            TcpEndpoint::bind("127.0.0.1:0")
                .name("json")
                .codec(JsonCodec::new()),
        )
        .logic(Logic::dispatched("all", |message, ctx| {
            ctx.broadcast(message)?;
            Ok(())
        }))
        .start()
        .await
        .expect("it starts");
    let mut json = TcpClient::connect(broke.address("json").expect("it listens")).await;
    json.next_json().await;
    let mut raw = TcpClient::connect(broke.address("raw").expect("it listens")).await;
    raw.send([0xff, 0x00]).await;
    assert_eq!(json.next_json().await["payload_base64"], "/wA=");
    assert_eq!(raw.next().await.expect("a frame"), [0xff, 0x00]);
    stop(broke, (json, raw)).await;
}

#[tokio::test]
async fn bad_frames_are_told_counted_and_survived() {
    let (broke, mut client) = start_json(json_codec()).await;
    let id = "0190d4f5-8e0b-7c3a-9d2e-1f2a3b4c5d6e";
    let about = |frame: &str| frame.replace("ID", &format!(r#""id":"{id}""#)).into_bytes();
    let cases: [(Vec<u8>, &str, bool); 12] = [
        (b"".to_vec(), "bad_frame", false),
        (b"[]".to_vec(), "bad_frame", false),
        (b"\"text\"".to_vec(), "bad_frame", false),
        (b"{\"payload\":\"\xff\"}".to_vec(), "bad_frame", false),
        (vec![0xff; 100], "bad_frame", false),
        (b"{\"id\":\"x\",\"payload\":1}".to_vec(), "bad_frame", false),
        (about(r#"{ID}"#), "bad_frame", true),
        (about(r#"{ID,"payload":1,"to":7}"#), "bad_frame", true),
        (
            about(r#"{ID,"payload":1,"to":{"logic":["other"]}}"#),
            "not_allowed",
            true,
        ),
        (
            about(r#"{ID,"payload":1,"to":{"groups":["lobby"]}}"#),
            "not_allowed",
            true,
        ),
        (
            about(&format!(
                r#"{{ID,"payload":1,"to":{{"clients":["{id}"]}}}}"#
            )),
            "not_allowed",
            true,
        ),
        (
            about(r#"{ID,"payload":1,"to":{"logic":["missing"]}}"#),
            "unknown_logic",
            true,
        ),
    ];
    for (frame, code, known) in &cases {
        client.send(frame).await;
        let error = client.next_json().await;
        assert_eq!(error["error"]["code"], *code, "{error}");
        assert!(
            error["error"]["message"]
                .as_str()
                .is_some_and(|text| text.len() > 10),
            "{error}"
        );
        assert_eq!(
            error["error"].get("id").and_then(Value::as_str),
            known.then_some(id),
            "{error}"
        );
    }
    assert_eq!(
        (
            bad_input(&broke, "bad_frame"),
            bad_input(&broke, "not_allowed")
        ),
        (8, 3)
    );
    client.send(r#"{"payload":"still here"}"#).await;
    assert_eq!(client.next_json().await["payload"], "still here");
    stop(broke, client).await;
}

#[tokio::test]
async fn errors_stand_between_the_answers_in_the_order_of_the_frames() {
    let (broke, mut client) = start_json(json_codec()).await;
    let mut bytes = Vec::new();
    for frame in [
        r#"{"payload":1}"#,
        "[]",
        r#"{"ping":{}}"#,
        r#"{"payload":2}"#,
    ] {
        bytes.extend_from_slice(&u32::try_from(frame.len()).expect("a length").to_be_bytes());
        bytes.extend_from_slice(frame.as_bytes());
    }
    client.write(bytes).await;
    assert_eq!(client.next_json().await["payload"], 1);
    assert_eq!(client.next_json().await["error"]["code"], "bad_frame");
    assert_eq!(client.next_json().await, json!({"pong": {}}));
    assert_eq!(client.next_json().await["payload"], 2);
    stop(broke, client).await;
}

#[tokio::test]
async fn a_length_above_the_limit_ends_the_connection_with_a_reason() {
    for length in [0xffff_ffff_u32, (1 << 20) + 1] {
        let (broke, mut client) = start_json(json_codec()).await;
        client.write(length.to_be_bytes()).await;
        assert_eq!(client.next_json().await["error"]["code"], "too_big");
        assert_eq!(client.next_json().await["close"]["code"], 1009);
        assert_eq!(client.rest().await, b"");
        assert_eq!(bad_input(&broke, "too_big"), 1);
        stop(broke, client).await;
    }
}

#[tokio::test]
async fn raw_ends_without_a_word_and_what_came_before_is_answered() {
    let (broke, mut client) = start(raw()).await;
    client.write(b"\0\0\0\x02hi\xff\xff\xff\xff").await;
    assert_eq!(client.rest().await, b"\0\0\0\x02hi");
    stop(broke, client).await;
}

#[tokio::test]
async fn a_request_of_http_is_garbage_here() {
    let (broke, mut client) = start(raw()).await;
    client
        .write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(client.rest().await, b"");
    assert_eq!(bad_input(&broke, "too_big"), 1);
    stop(broke, client).await;
}

#[tokio::test]
async fn a_client_that_ends_its_half_gets_what_is_on_its_way() {
    let (broke, mut client) = start(raw()).await;
    client.send("hello").await;
    client.0.shutdown().await.expect("it ends");
    assert_eq!(client.rest().await, b"\0\0\0\x05hello");
    stop(broke, client).await;
}

#[tokio::test]
async fn who_is_refused_is_told_why() {
    let broke = echo(json_codec())
        .on_connect(|_| async { Err::<Admission, _>(Refusal::unauthorized("sign in first")) })
        .start()
        .await
        .expect("it starts");
    let mut client = TcpClient::connect(address(&broke)).await;
    assert_eq!(
        client.next_json().await,
        json!({"error": {"code": "unauthorized", "message": "sign in first"}})
    );
    assert_eq!(
        client.next_json().await,
        json!({"close": {"code": 4004, "reason": "sign in first"}})
    );
    assert_eq!(client.rest().await, b"");
    stop(broke, client).await;
}

#[tokio::test]
async fn a_hook_that_never_answers_does_not_hold_the_connection() {
    let broke = echo(
        json_codec().configure(|options| options.handshake_timeout = Duration::from_millis(10)),
    )
    .on_connect(|_| std::future::pending::<Result<Admission, Refusal>>())
    .start()
    .await
    .expect("it starts");
    let mut client = TcpClient::connect(address(&broke)).await;
    assert_eq!(client.next_json().await["error"]["code"], "unavailable");
    assert_eq!(client.next_json().await["close"]["code"], 1013);
    stop(broke, client).await;
}

#[tokio::test]
async fn a_connection_too_many_is_turned_away_and_room_is_made_by_those_who_leave() {
    let (broke, client) =
        start_json(json_codec().configure(|options| options.max_connections = 1)).await;
    let mut second = TcpClient::connect(address(&broke)).await;
    assert_eq!(second.next_json().await["error"]["code"], "unavailable");
    assert_eq!(second.next_json().await["close"]["code"], 1013);
    assert_eq!(second.rest().await, b"");
    drop(client);
    soon(async {
        loop {
            let mut third = TcpClient::connect(address(&broke)).await;
            if third.next_json().await.get("welcome").is_some() {
                break;
            }
        }
    })
    .await;
    stop(broke, second).await;
}

#[tokio::test]
async fn a_silent_client_is_asked_and_then_closed() {
    let endpoint = json_codec().configure(|options| {
        options.ping_interval = Some(Duration::from_millis(1));
        options.pong_timeout = Duration::from_millis(500);
    });
    let (broke, mut client) = start_json(endpoint).await;
    for _ in 0..2 {
        assert_eq!(client.next_json().await, json!({"ping": {}}));
        client.send(r#"{"pong":{}}"#).await;
    }
    assert_eq!(client.next_json().await, json!({"ping": {}}));
    assert_eq!(client.next_json().await["close"]["code"], 4001);
    stop(broke, client).await;
}

#[tokio::test]
async fn a_message_that_never_ends_is_closed() {
    let (broke, mut client) =
        start_json(json_codec().message_timeout(Duration::from_millis(20))).await;
    client.write(b"\0\0\0\x0d{\"pay").await;
    assert_eq!(client.next_json().await["close"]["code"], 1008);
    assert_eq!(bad_input(&broke, "policy_violation"), 1);
    stop(broke, client).await;
}

#[tokio::test]
async fn messages_that_follow_each_other_are_not_taken_for_one_that_never_ends() {
    let (broke, mut client) = start(raw().message_timeout(Duration::from_millis(300))).await;
    // There is always one begun, for longer than the time of one.
    let begun = std::time::Instant::now();
    client.write(b"\0").await;
    while begun.elapsed() < Duration::from_millis(1000) {
        client.write(b"\0\0\x01x\0").await;
        assert_eq!(client.next().await.expect("an echo"), b"x");
    }
    client.write(b"\0\0\0").await;
    assert_eq!(client.next().await.expect("an echo"), b"");
    stop(broke, client).await;
}

#[tokio::test]
async fn memory_for_partly_received_messages_is_bounded_for_all_together() {
    let budget = ReceiveBudget::new(100_000);
    let (broke, mut first) = start_json(json_codec().receive_budget(budget.clone())).await;
    let mut second = TcpClient::connect(address(&broke)).await;
    second.next_json().await;
    let half = [&1_000_000_u32.to_be_bytes()[..], &[b' '; 60_000]].concat();
    first.write(&half).await;
    // It has arrived when it is counted; there is nothing to be told of it.
    soon(async {
        while budget.used() < 60_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    second.write(&half).await;
    assert_eq!(second.next_json().await["close"]["code"], 1013);
    drop(first);
    soon(async {
        while budget.used() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stop(broke, second).await;
}

#[tokio::test]
async fn a_stop_is_announced() {
    let (broke, mut client) = start_json(json_codec()).await;
    let stopped = tokio::spawn({
        let broke = broke.clone();
        async move { broke.stop().await }
    });
    assert_eq!(
        client.next_json().await,
        json!({"close": {"code": 1001, "reason": "going away"}})
    );
    assert_eq!(client.rest().await, b"");
    drop(client);
    soon(stopped).await.expect("it stops");
}

#[tokio::test]
async fn a_close_arrives_though_its_client_goes_on_sending() {
    let (broke, mut client) = start_json(json_codec()).await;
    client.write([0xff; 100_000]).await;
    assert_eq!(client.next_json().await["error"]["code"], "too_big");
    assert_eq!(client.next_json().await["close"]["code"], 1009);
    assert_eq!(client.rest().await, b"");
    stop(broke, client).await;
}

#[tokio::test]
async fn a_disconnect_of_the_program_says_its_reason() {
    let (broke, mut client) = start_json(json_codec()).await;
    let id = broke.local_clients()[0].id();
    assert!(broke.disconnect(id, CloseReason::Kicked("be nice".into())));
    assert_eq!(
        client.next_json().await,
        json!({"close": {"code": 4002, "reason": "be nice"}})
    );
    assert_eq!(client.rest().await, b"");
    stop(broke, client).await;
}

#[tokio::test]
async fn a_port_in_use_is_told_by_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").to_string();
    let error = echo(TcpEndpoint::bind(port))
        .start()
        .await
        .expect_err("the port is taken");
    assert!(matches!(error, StartError::Endpoint { .. }), "{error:?}");
}

#[tokio::test]
async fn a_flood_of_pings_is_closed() {
    let (broke, mut client) = start_json(json_codec().max_control_frames(10)).await;
    for _ in 0..10 {
        client.send(r#"{"ping":{}}"#).await;
        assert_eq!(client.next_json().await, json!({"pong": {}}));
    }
    // Some of them may be within the next second.
    for _ in 0..20 {
        client.send(r#"{"ping":{}}"#).await;
    }
    let close = loop {
        let frame = client.next_json().await;
        if frame.get("pong").is_none() {
            break frame;
        }
    };
    assert_eq!(close["close"]["code"], 1008);
    assert_eq!(bad_input(&broke, "policy_violation"), 1);
    stop(broke, client).await;
}
