//! HTTP over real sockets: Server-Sent Events down, POST up; by hand, with `curl`, and within an axum `Router`.

#![cfg(all(feature = "http", feature = "tcp"))]

mod client;
#[path = "../common/mod.rs"]
mod common;
mod curl;

use std::time::Duration;

use client::{Events, request};
use common::{address, bad_input, echo, soon, stop};
use gobroke_core::{Admission, Broke, BrokeBuilder, CloseReason, ConnectRequest, Message, Refusal};
use gobroke_endpoints::{HttpEndpoint, JsonCodec, Origins, RawCodec};
use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt;

fn endpoint() -> HttpEndpoint {
    HttpEndpoint::bind("127.0.0.1:0")
        .path("/events")
        .codec(JsonCodec::to_logic("echo").allow_logic(["missing"]))
}

async fn start(builder: BrokeBuilder) -> Broke {
    builder.start().await.expect("it starts")
}

fn token(token: &str) -> String {
    format!("gobroke-session: {token}\r\n")
}

async fn gone(broke: &Broke) {
    soon(async {
        while broke.local_client_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_posted_comes_back_as_events_of_one_client() {
    let broke = start(echo(endpoint())).await;
    let to = address(&broke);
    let mut events = Events::open(to, "").await;
    for header in [
        "content-type: text/event-stream",
        "cache-control: no-cache, no-transform",
        "x-accel-buffering: no",
        "connection: close",
    ] {
        assert!(events.head.contains(header), "{}", events.head);
    }
    let session = events.session().await;
    assert!(events.next_json().await["welcome"]["client"].is_string());
    for number in 0..20 {
        let body = json!({"payload": {"n": number, "text": "a\nb\r\u{e9}"}}).to_string();
        let answer = request(to, "POST", &token(&session), body.as_bytes()).await;
        assert_eq!((answer.status, answer.body.as_slice()), (202, &b""[..]));
    }
    for number in 0..20 {
        let event = events.next_json().await;
        assert_eq!(
            event["payload"],
            json!({"n": number, "text": "a\nb\r\u{e9}"})
        );
    }
    assert_eq!(broke.local_client_count(), 1);
    assert_eq!(broke.local_clients()[0].endpoint(), "http");
    stop(broke, events).await;
}

#[tokio::test]
async fn who_has_no_token_speaks_for_nobody() {
    let broke = start(echo(endpoint())).await;
    let to = address(&broke);
    let mut events = Events::open(to, "").await;
    let session = events.session().await;
    let other = format!("{}{}", &session[..20], &session[..12]);
    for method in ["POST", "DELETE"] {
        assert_eq!(request(to, method, "", b"{}").await.status, 400);
        assert_eq!(request(to, method, &token(&other), b"{}").await.status, 404);
        assert_eq!(request(to, method, &token(""), b"{}").await.status, 404);
    }
    assert_eq!(bad_input(&broke, "unknown_session"), 4);
    // Somebody else's number is no way in either: it opens a session of its own.
    let mut stranger = Events::open(to, &format!("Last-Event-ID: {other}.1\r\n")).await;
    assert_ne!(stranger.session().await, session);
    assert_eq!(
        request(to, "PATCH", &token(&session), b"").await.status,
        405
    );
    stop(broke, (events, stranger)).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_frame_is_told_where_it_can_be() {
    let endpoint = endpoint().configure(|options| options.max_message = 1000);
    let broke = start(echo(endpoint)).await;
    let to = address(&broke);
    let mut events = Events::open(to, "").await;
    let session = token(&events.session().await);
    events.next_json().await;
    for bad in [&b"nonsense"[..], b"\xff", b""] {
        let answer = request(to, "POST", &session, bad).await;
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(
            (answer.status, &body["error"]["code"]),
            (400, &json!("bad_frame"))
        );
    }
    assert_eq!(
        request(to, "POST", &session, &[b' '; 1001]).await.status,
        413
    );
    let unknown = br#"{"to":{"logic":["missing"]},"payload":1}"#;
    assert_eq!(request(to, "POST", &session, unknown).await.status, 202);
    assert_eq!(events.next_json().await["error"]["code"], "unknown_logic");
    assert_eq!(
        (bad_input(&broke, "bad_frame"), bad_input(&broke, "too_big")),
        (3, 1)
    );
    stop(broke, events).await;
}

#[tokio::test]
async fn the_last_event_says_why_it_ends() {
    let broke = start(echo(endpoint())).await;
    let to = address(&broke);
    let mut kicked = Events::open(to, "").await;
    kicked.session().await;
    kicked.next_json().await;
    let client = broke.local_clients().pop().expect("it is there");
    client.disconnect(CloseReason::Kicked("be nice".into()));
    let close = kicked.next().await.expect("an event");
    assert_eq!(
        (close.name.as_str(), close.data.as_str()),
        ("close", r#"{"code":4002,"reason":"be nice"}"#)
    );
    assert_eq!(kicked.next().await, None);

    let mut done = Events::open(to, "").await;
    let session = token(&done.session().await);
    done.next_json().await;
    assert_eq!(request(to, "DELETE", &session, b"").await.status, 202);
    assert_eq!(
        done.next().await.expect("an event").data,
        r#"{"code":1000,"reason":""}"#
    );
    assert_eq!(done.next().await, None);
    gone(&broke).await;
    assert_eq!(request(to, "POST", &session, b"{}").await.status, 404);

    let mut last = Events::open(to, "").await;
    last.session().await;
    last.next_json().await;
    soon(broke.stop()).await;
    assert_eq!(
        last.next().await.expect("an event").data,
        r#"{"code":1001,"reason":"going away"}"#
    );
    assert_eq!(last.next().await, None);
}

#[tokio::test]
async fn a_client_that_comes_back_is_the_same_and_gets_what_it_missed() {
    let broke = start(echo(endpoint())).await;
    let to = address(&broke);
    let mut events = Events::open(to, "").await;
    let session = events.session().await;
    let welcome = events.next_json().await;
    let send = |text: &str| broke.send(Message::new(json!(text).to_string()).to_all());
    send("one").expect("it is sent");
    assert_eq!(events.next_json().await["payload"], "one");
    drop(events);
    for missed in ["two", "three"] {
        send(missed).expect("it is sent");
    }
    // It saw the welcome, and says that `one` never came.
    let mut events = Events::open(to, &format!("Last-Event-ID: {session}.1\r\n")).await;
    for text in ["one", "two", "three"] {
        assert_eq!(events.next_json().await["payload"], text);
    }
    // A second stream takes the place of the first.
    let mut newer = Events::open(to, &format!("Last-Event-ID: {session}.4\r\n")).await;
    send("four").expect("it is sent");
    assert_eq!(newer.next_json().await["payload"], "four");
    assert_eq!(events.next().await, None);
    let client = broke.local_clients().pop().expect("it is there");
    assert_eq!(welcome["welcome"]["client"], client.id().to_string());
    assert_eq!(
        (broke.stats().connected, broke.local_client_count()),
        (1, 1)
    );
    stop(broke, newer).await;
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_what_was_lost_is_told() {
    let broke = start(echo(endpoint().replay(200))).await;
    let to = address(&broke);
    let mut events = Events::open(to, "").await;
    let session = events.session().await;
    events.next_json().await;
    for number in 0..10 {
        let message = Message::new(json!(format!("{number}{}", "x".repeat(50))).to_string());
        broke.send(message.to_all()).expect("it is sent");
        events.next_json().await;
    }
    drop(events);
    let mut events = Events::open(to, &format!("Last-Event-ID: {session}.1\r\n")).await;
    let gap = events.next().await.expect("an event");
    assert_eq!(
        (gap.name.as_str(), gap.data.as_str()),
        ("gap", r#"{"lost":9}"#)
    );
    let payload = events.next_json().await["payload"].take();
    assert!(payload.as_str().expect("text").starts_with('9'));
    stop(broke, events).await;
}

#[tokio::test]
async fn who_does_not_come_back_is_gone_and_its_place_is_free() {
    let endpoint = endpoint()
        .resume_within(Duration::from_millis(100))
        .configure(|options| options.max_connections = 2);
    let broke = start(echo(endpoint)).await;
    let to = address(&broke);
    for _ in 0..4 {
        let mut events = Events::open(to, "").await;
        let session = events.session().await;
        drop(events);
        gone(&broke).await;
        assert_eq!(
            request(to, "POST", &token(&session), b"{}").await.status,
            404
        );
    }
    stop(broke, ()).await;
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    let endpoint = endpoint().configure(|options| {
        options.ping_interval = Some(Duration::from_millis(50));
        options.pong_timeout = Duration::from_millis(50);
    });
    let broke = start(echo(endpoint)).await;
    let mut events = Events::open(address(&broke), "").await;
    events.session().await;
    events.next_json().await;
    for _ in 0..5 {
        let mut line = String::new();
        soon(events.stream.read_line(&mut line))
            .await
            .expect("a line");
        assert!(line == ": still here\n" || line == "\n", "{line:?}");
    }
    assert_eq!(broke.local_client_count(), 1, "no pong is missed");
    stop(broke, events).await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_nobody_and_ends() {
    let endpoint = endpoint().configure(|options| {
        options.write_stall = Duration::from_millis(500);
        options.outbox_bytes = 64 << 10;
    });
    let broke = start(echo(endpoint)).await;
    let to = address(&broke);
    let mut deaf = Events::open(to, "").await;
    deaf.session().await;
    let payload = json!("x".repeat(100_000)).to_string();
    soon(async {
        while broke.local_client_count() > 0 {
            // Refused while there is no room.
            let _ = broke.send(Message::new(payload.clone()).to_all());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(broke.stats().slow_consumers, 1);
    let mut fresh = Events::open(to, "").await;
    fresh.session().await;
    stop(broke, (deaf, fresh)).await;
}

#[tokio::test]
async fn a_foreign_page_neither_opens_nor_posts_nor_reads() {
    let listed = endpoint().origins(Origins::same_host().and("https://app.example"));
    for (endpoint, shared) in [(endpoint(), false), (listed, true)] {
        let broke = start(echo(endpoint)).await;
        let to = address(&broke);
        let evil = "Origin: https://evil.example\r\n";
        for method in ["GET", "POST", "DELETE"] {
            let answer = request(to, method, evil, b"{}").await;
            assert_eq!(answer.status, 403);
            assert!(
                !answer.head.contains("access-control-allow-origin"),
                "{}",
                answer.head
            );
        }
        assert_eq!(bad_input(&broke, "foreign_origin"), 3);
        let asked = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: gobroke-session\r\n";
        for (origin, may) in [
            ("https://evil.example", false),
            ("https://app.example", shared),
        ] {
            let answer = request(to, "OPTIONS", &format!("Origin: {origin}\r\n{asked}"), b"").await;
            let allows = answer
                .head
                .contains(&format!("access-control-allow-origin: {origin}"));
            assert_eq!(allows, may, "{}", answer.head);
            assert_eq!(
                answer
                    .head
                    .contains("access-control-allow-credentials: true"),
                may
            );
        }
        if shared {
            let events = Events::open(to, "Origin: https://app.example\r\n").await;
            assert!(
                events
                    .head
                    .contains("access-control-allow-origin: https://app.example")
            );
        }
        let same = Events::open(to, "Origin: http://chat.example\r\n").await;
        assert!(!same.head.contains("access-control-allow"), "{}", same.head);
        stop(broke, same).await;
    }
}

#[tokio::test]
async fn a_refusal_is_an_answer_of_http() {
    let broke = start(
        echo(endpoint()).on_connect(
            async |request: ConnectRequest| match request.cookie("sid") {
                Some("7") => Ok(Admission::anonymous()),
                _ => Err(Refusal::unauthorized("sign in")),
            },
        ),
    )
    .await;
    let to = address(&broke);
    let refused = request(to, "GET", "", b"").await;
    assert_eq!(
        (refused.status, refused.body.as_slice()),
        (401, &b"sign in"[..])
    );
    let mut events = Events::open(to, "Cookie: a=b; sid=7\r\n").await;
    events.session().await;
    stop(broke, events).await;
}

#[tokio::test]
async fn raw_payloads_of_any_bytes_come_back() {
    let endpoint = HttpEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"));
    let broke = start(echo(endpoint)).await;
    let to = address(&broke);
    let mut events = Events::open(to, "").await;
    let session = token(&events.session().await);
    for (body, name, data) in [
        (&b"hello\nyou"[..], "", "hello\nyou"),
        (b"\0\xff", "binary", "AP8="),
        (b"a\r\nb", "binary", "YQ0KYg=="),
        (b"", "", ""),
    ] {
        assert_eq!(request(to, "POST", &session, body).await.status, 202);
        let event = events.next().await.expect("an event");
        assert_eq!((event.name.as_str(), event.data.as_str()), (name, data));
    }
    stop(broke, events).await;
}

#[tokio::test]
async fn it_is_a_route_of_an_axum_router() {
    let endpoint = HttpEndpoint::mounted().codec(JsonCodec::to_logic("echo"));
    let app = axum::Router::new()
        .route("/", axum::routing::get(|| async { "the page" }))
        .route_service("/events", endpoint.route());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let to = listener.local_addr().expect("an address");
    let server = tokio::spawn(axum::serve(listener, app).into_future());
    assert_eq!(request(to, "GET", "", b"").await.status, 503);
    let broke = start(echo(endpoint)).await;
    let mut events = Events::open(to, "").await;
    let session = token(&events.session().await);
    events.next_json().await;
    assert_eq!(
        request(to, "POST", &session, br#"{"payload":7}"#)
            .await
            .status,
        202
    );
    assert_eq!(events.next_json().await["payload"], 7);
    stop(broke, ()).await;
    assert_eq!(events.next().await.expect("an event").name, "close");
    server.abort();
}
