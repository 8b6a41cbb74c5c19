//! What is checked of a connection before the program is asked: origins, proxies, first frames.

#![cfg(all(feature = "ws", feature = "tcp"))]

mod common;

use std::time::Duration;

use common::{TcpClient, address, bad_input, echo, soon, stop};
use gobroke_core::{Admission, Broke, ConnectRequest, Refusal};
use gobroke_endpoints::{
    JsonCodec, Origins, RawCodec, TcpEndpoint, TrustedProxies, WebSocketEndpoint,
};
use tokio::io::AsyncReadExt;

fn ws() -> WebSocketEndpoint {
    WebSocketEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"))
}

fn tcp() -> TcpEndpoint {
    TcpEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"))
}

/// A handshake with these headers, written behind `before`; gives the connection and the head of the answer.
async fn handshake(broke: &Broke, before: &[u8], headers: &str) -> (TcpClient, String) {
    let mut client = TcpClient::connect(address(broke)).await;
    let request = format!(
        "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    client.write([before, request.as_bytes()].concat()).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(client.0.read_u8()).await.expect("more of the head"));
    }
    (client, String::from_utf8(head).expect("text"))
}

async fn status(broke: &Broke, headers: &str) -> String {
    let (_, head) = handshake(broke, b"", headers).await;
    head[9..12].to_owned()
}

/// The address of the one client, once it is there.
async fn remote(broke: &Broke) -> String {
    let client = soon(async {
        loop {
            if let Some(client) = broke.local_clients().into_iter().next() {
                return client;
            }
            tokio::task::yield_now().await;
        }
    });
    client.await.remote().expect("an address").to_string()
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
async fn a_foreign_page_cannot_open_a_socket_with_its_visitors_cookies() {
    let broke = echo(ws()).start().await.expect("it starts");
    let cookie = "Host: chat.example\r\nCookie: session=1\r\n";
    for (origin, expected) in [
        ("", "101"),
        ("Origin: https://chat.example\r\n", "101"),
        ("Origin: https://evil.example\r\n", "403"),
        ("Origin: null\r\n", "403"),
        (
            "Origin: https://chat.example\r\nOrigin: https://evil.example\r\n",
            "403",
        ),
    ] {
        assert_eq!(
            status(&broke, &format!("{cookie}{origin}")).await,
            expected,
            "{origin}"
        );
    }
    assert_eq!(bad_input(&broke, "foreign_origin"), 3);
    stop(broke, ()).await;

    let listed = ws().origins(Origins::none().and("https://app.example"));
    let broke = echo(listed).start().await.expect("it starts");
    for (origin, expected) in [
        ("https://app.example", "101"),
        ("https://chat.example", "403"),
    ] {
        let headers = format!("{cookie}Origin: {origin}\r\n");
        assert_eq!(status(&broke, &headers).await, expected, "{origin}");
    }
    stop(broke, ()).await;
}

#[tokio::test]
async fn a_proxys_word_for_its_client_counts_and_nobody_elses() {
    for (proxy, expected) in [
        ("127.0.0.0/8", "203.0.113.9:0"),
        ("10.0.0.0/8", "127.0.0.1"),
    ] {
        let proxies = TrustedProxies::x_forwarded_for([proxy]).expect("a network");
        let broke = echo(ws().behind(proxies)).start().await.expect("it starts");
        let headers =
            "Host: x\r\nX-Forwarded-For: 1.1.1.1, 203.0.113.9\r\nForwarded: for=2.2.2.2\r\n";
        let (client, _) = handshake(&broke, b"", headers).await;
        assert!(remote(&broke).await.starts_with(expected));
        stop(broke, client).await;
    }
}

#[tokio::test]
async fn behind_a_proxy_each_client_has_its_own_share_of_connections() {
    let proxies = TrustedProxies::forwarded(["127.0.0.1"]).expect("an address");
    let endpoint = ws()
        .behind(proxies)
        .configure(|options| options.max_connections_per_address = Some(1));
    let broke = echo(endpoint)
        .on_connect(async |request: ConnectRequest| match request.via {
            Some(proxy) if proxy.ip().is_loopback() => Ok(Admission::anonymous()),
            _ => Err(Refusal::forbidden("not through the proxy")),
        })
        .start()
        .await
        .expect("it starts");
    let of = |client: &str| format!("Host: x\r\nForwarded: for={client}\r\n");
    let (first, head) = handshake(&broke, b"", &of("203.0.113.1")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (second, head) = handshake(&broke, b"", &of("203.0.113.2")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(status(&broke, &of("203.0.113.1")).await, "429");
    assert_eq!(status(&broke, "Host: x\r\n").await, "403");
    drop((first, second));
    gone(&broke).await;
    assert_eq!(
        status(&broke, &of("203.0.113.1")).await,
        "101",
        "its place is free again"
    );
    stop(broke, ()).await;
}

fn version_2() -> Vec<u8> {
    let addresses = [203, 0, 113, 9, 192, 0, 2, 1, 0, 77, 0, 80];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &addresses[..]].concat()
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client_over_tcp_and_websocket() {
    let proxies = || TrustedProxies::proxy_protocol(["127.0.0.1"]).expect("an address");
    let headers = [
        b"PROXY TCP4 203.0.113.9 192.0.2.1 77 80\r\n".to_vec(),
        version_2(),
    ];
    let broke = echo(tcp().behind(proxies()))
        .start()
        .await
        .expect("it starts");
    for header in &headers {
        let mut client = TcpClient::connect(address(&broke)).await;
        // Cut anywhere, with a frame right behind it.
        let (begin, rest) = header.split_at(20);
        client.write(begin).await;
        client.write([rest, b"\0\0\0\x02hi"].concat()).await;
        assert_eq!(client.next().await.as_deref(), Some(&b"hi"[..]));
        assert_eq!(remote(&broke).await, "203.0.113.9:77");
        drop(client);
        gone(&broke).await;
    }
    let mut client = TcpClient::connect(address(&broke)).await;
    client.write("PROXY UNKNOWN\r\n\0\0\0\x02hi").await;
    assert_eq!(client.next().await.as_deref(), Some(&b"hi"[..]));
    assert!(remote(&broke).await.starts_with("127.0.0.1:"));
    stop(broke, client).await;

    let broke = echo(ws().behind(proxies()))
        .start()
        .await
        .expect("it starts");
    for header in &headers {
        let (client, head) = handshake(&broke, header, "Host: x\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(remote(&broke).await, "203.0.113.9:77");
        drop(client);
        gone(&broke).await;
    }
    stop(broke, ()).await;
}

#[tokio::test]
async fn a_proxy_that_names_nobody_is_not_listened_to() {
    let proxies = TrustedProxies::proxy_protocol(["127.0.0.1"]).expect("an address");
    let broke = echo(tcp().behind(proxies))
        .start()
        .await
        .expect("it starts");
    let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
    let wrong: [&[u8]; 4] = [
        b"\0\0\0\x0fthis is a frame",
        b"PROXY TCP4 not an address\r\n",
        long.as_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff and more",
    ];
    for header in wrong {
        let mut client = TcpClient::connect(address(&broke)).await;
        client.write(header).await;
        let mut rest = Vec::new();
        // It may be a reset: what was written is not read any more.
        let ended = soon(client.0.read_to_end(&mut rest)).await;
        assert!(ended.is_err() || rest.is_empty(), "{rest:?}");
    }
    assert_eq!(bad_input(&broke, "proxy_header"), 4);
    assert_eq!(broke.stats().connected, 0);
    stop(broke, ()).await;
}

#[tokio::test]
async fn a_client_that_claims_to_be_a_proxy_is_no_client() {
    let proxies = TrustedProxies::proxy_protocol(["10.0.0.0/8"]).expect("a network");
    let broke = echo(ws().behind(proxies)).start().await.expect("it starts");
    let before = b"PROXY TCP4 203.0.113.9 192.0.2.1 77 80\r\n";
    let (_, head) = handshake(&broke, before, "Host: x\r\n").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(broke.stats().connected, 0);
    stop(broke, ()).await;
}

#[tokio::test]
async fn the_first_frame_over_tcp_is_for_admission_alone() {
    let endpoint = TcpEndpoint::bind("127.0.0.1:0")
        .codec(JsonCodec::to_logic("echo"))
        .ask_first_frame();
    let broke = echo(endpoint)
        .on_connect(
            async |request: ConnectRequest| match request.first_frame.as_deref() {
                Some(b"open sesame") => Ok(Admission::anonymous()),
                _ => Err(Refusal::unauthorized("say the word")),
            },
        )
        .start()
        .await
        .expect("it starts");
    let mut client = TcpClient::connect(address(&broke)).await;
    client.send("open sesame").await;
    client.send(r#"{"payload":"hi"}"#).await;
    assert!(client.next_json().await["welcome"].is_object());
    assert_eq!(client.next_json().await["payload"], "hi");

    let mut stranger = TcpClient::connect(address(&broke)).await;
    stranger.send("open barley").await;
    assert_eq!(stranger.next_json().await["error"]["code"], "unauthorized");
    assert_eq!(stranger.next_json().await["close"]["code"], 4004);

    let mut long = TcpClient::connect(address(&broke)).await;
    long.write(1_000_000_u32.to_be_bytes()).await;
    assert_eq!(
        long.next_json().await["error"]["message"],
        "the first frame is too long"
    );
    assert_eq!(long.next_json().await["close"]["code"], 4004);
    assert_eq!(bad_input(&broke, "first_frame"), 1);
    stop(broke, (client, stranger, long)).await;
}

#[tokio::test]
async fn who_says_nothing_at_the_door_is_sent_away() {
    let hasty = |endpoint: TcpEndpoint| {
        endpoint.configure(|options| options.handshake_timeout = Duration::from_millis(200))
    };
    let proxies = TrustedProxies::proxy_protocol(["127.0.0.1"]).expect("an address");
    for (endpoint, begin) in [
        (tcp().behind(proxies), &b"PROXY TCP4 203.0.113.9 "[..]),
        (tcp().ask_first_frame(), b"\0\0\0\x05open"),
    ] {
        let broke = echo(hasty(endpoint)).start().await.expect("it starts");
        let mut silent = TcpClient::connect(address(&broke)).await;
        silent.write(begin).await;
        silent.rest().await;
        assert_eq!(
            (bad_input(&broke, "handshake"), broke.stats().connected),
            (1, 0)
        );
        stop(broke, silent).await;
    }
}
