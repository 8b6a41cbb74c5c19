//! How a WebSocket is opened, and not: over real sockets.

#![cfg(feature = "ws")]

mod common;

use std::time::Duration;

use common::{TcpClient, address, bad_input, echo, soon, stop, websocket::request};
use gobroke_core::{Admission, Broke, BrokeBuilder, Refusal};
use gobroke_endpoints::{RawCodec, WebSocketEndpoint};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::{connect_async, tungstenite::Error};

fn raw() -> WebSocketEndpoint {
    WebSocketEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"))
}

async fn start(builder: BrokeBuilder) -> Broke {
    builder.start().await.expect("it starts")
}

/// The head of an answer.
async fn head(client: &mut TcpClient) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(client.0.read_u8()).await.expect("more of the head"));
    }
    String::from_utf8(head).expect("text")
}

#[tokio::test]
async fn a_wrong_handshake_is_answered_with_what_is_wrong() {
    let broke = start(echo(raw().path("/ws"))).await;
    let good = request("").replace("/any?x=1", "/ws?x=1");
    let cases = [
        (good.clone(), 101, ""),
        (
            good.replace("/ws?x=1", "/other"),
            404,
            "content-type: text/plain",
        ),
        (good.replace("GET", "POST"), 405, "allow: get"),
        (
            good.replace("Upgrade: websocket\r\n", ""),
            426,
            "sec-websocket-version: 13",
        ),
        (
            good.replace("Connection: Upgrade\r\n", ""),
            426,
            "upgrade: websocket",
        ),
        (
            good.replace("Version: 13", "Version: 7"),
            426,
            "sec-websocket-version: 13",
        ),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 426, ""),
        (good.replace("Host: localhost\r\n", ""), 400, ""),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400, ""),
        (
            format!(
                "{}{}",
                &good[..good.len() - 2],
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            400,
            "",
        ),
        ("garbage\r\n\r\n".to_owned(), 400, ""),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)),
            431,
            "",
        ),
        (
            format!(
                "{}X: {}\r\n\r\n",
                &good[..good.len() - 2],
                "x".repeat(100_000)
            ),
            431,
            "",
        ),
    ];
    let (mut wrong, mut counted) = (0, 0);
    for (request, status, says) in cases {
        let mut client = TcpClient::connect(address(&broke)).await;
        client.write(&request).await;
        let head = head(&mut client).await.to_lowercase();
        assert_eq!(
            head.get(9..12),
            Some(status.to_string().as_str()),
            "{request:.300}\n{head}"
        );
        assert!(head.contains(says), "{head}");
        // One answer, and the connection ends.
        assert_eq!(head.contains("close"), status != 101, "{head}");
        wrong += u64::from(status != 101);
        counted = bad_input(&broke, "handshake");
    }
    // The last one is counted when its connection ends, a moment after the answer.
    soon(async {
        while counted < wrong {
            tokio::task::yield_now().await;
            counted = bad_input(&broke, "handshake");
        }
    })
    .await;
    assert_eq!(counted, wrong);
    stop(broke, ()).await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_ended() {
    let broke = start(echo(raw().configure(|options| {
        options.handshake_timeout = Duration::from_millis(20);
    })))
    .await;
    let mut client = TcpClient::connect(address(&broke)).await;
    client.write("GET / HTTP/1.1\r\nHost: x\r\n").await;
    client.rest().await;
    soon(async {
        while bad_input(&broke, "handshake") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stop(broke, client).await;
}

#[tokio::test]
async fn who_is_refused_reads_the_status_and_the_reason() {
    let broke = start(echo(raw()).on_connect(|request| async move {
        match request.query.as_deref() {
            Some("token=good") => Ok(Admission::anonymous().with_metadata("name", "Ann")),
            _ => Err(Refusal::forbidden("ask for a token")),
        }
    }))
    .await;
    let url = format!("ws://{}/?token=", address(&broke));
    match soon(connect_async(format!("{url}bad"))).await {
        Err(Error::Http(answer)) => {
            assert_eq!(answer.status(), 403);
            assert_eq!(answer.body().as_deref(), Some(&b"ask for a token"[..]));
        }
        other => panic!("{other:?}"),
    }
    let (client, _) = soon(connect_async(format!("{url}good")))
        .await
        .expect("a handshake");
    soon(async {
        while broke.local_client_count() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(broke.local_clients()[0].metadata()["name"], "Ann");
    stop(broke, client).await;
}

#[tokio::test]
async fn a_connection_too_many_reads_503_and_of_one_address_429() {
    let limits =
        |change: fn(&mut gobroke_core::EndpointOptions)| start(echo(raw().configure(change)));
    let few = limits(|options| options.max_connections = 1).await;
    let few_each = limits(|options| options.max_connections_per_address = Some(1)).await;
    for (broke, status) in [(few, 503), (few_each, 429)] {
        let client = soon(connect_async(format!("ws://{}/", address(&broke)))).await;
        let client = client.expect("a first");
        match soon(connect_async(format!("ws://{}/", address(&broke)))).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), status),
            other => panic!("{other:?}"),
        }
        stop(broke, client).await;
    }
}
