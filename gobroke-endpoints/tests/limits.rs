//! How many connections an endpoint takes, of all and of one address: the same over every transport.

#![cfg(all(feature = "ws", feature = "tcp", feature = "udp", feature = "http"))]

mod common;

use std::net::{Ipv4Addr, SocketAddr};

use common::{TcpClient, echo, soon, stop, websocket::request};
use gobroke_core::{Broke, CloseReason, EndpointOptions};
use gobroke_endpoints::{
    HttpEndpoint, JsonCodec, TcpEndpoint, TrustedProxies, UdpEndpoint, WebSocketEndpoint,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, UdpSocket},
};

const TRANSPORTS: [&str; 4] = ["ws", "tcp", "http", "udp"];

/// An endpoint of each kind, with the same options.
async fn start(change: fn(&mut EndpointOptions)) -> Broke {
    let codec = || JsonCodec::to_logic("echo");
    let at = "127.0.0.1:0";
    let tcp = TcpEndpoint::bind(at).codec(codec()).configure(change);
    let http = HttpEndpoint::bind(at).codec(codec()).configure(change);
    let udp = UdpEndpoint::bind(at).codec(codec()).configure(change);
    let ws = WebSocketEndpoint::bind(at).codec(codec());
    let builder = echo(ws.configure(change)).endpoint(tcp);
    let broke = builder.endpoint(http).endpoint(udp).start().await;
    broke.expect("it starts")
}

/// A connection that was let in.
#[derive(Debug)]
enum Inside {
    Stream { _stream: TcpClient },
    Datagrams { _socket: UdpSocket },
}

/// Tries to connect from an address of this machine; says what the answer was where that is no.
async fn connect(broke: &Broke, transport: &str, from: Ipv4Addr) -> Result<Inside, String> {
    let to = broke.address(transport).expect("it listens");
    if transport == "udp" {
        return datagrams(to, from).await;
    }
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("an address");
    let mut stream = TcpClient(soon(socket.connect(to)).await.expect("a connection"));
    match transport {
        "ws" => stream.write(request("")).await,
        "http" => {
            stream
                .write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
        }
        _ => {}
    }
    let answer = if transport == "tcp" {
        stream.next_json().await.to_string()
    } else {
        let mut status = [0; 12];
        soon(stream.0.read_exact(&mut status))
            .await
            .expect("an answer");
        String::from_utf8_lossy(&status).into_owned()
    };
    let is_inside =
        answer.contains("welcome") || answer.ends_with("101") || answer.ends_with("200");
    is_inside
        .then_some(Inside::Stream { _stream: stream })
        .ok_or(answer)
}

async fn datagrams(to: SocketAddr, from: Ipv4Addr) -> Result<Inside, String> {
    let socket = UdpSocket::bind((from, 0)).await.expect("a socket");
    let mut answer = [0; 200];
    let hello = b"\x01GB01a client";
    soon(socket.send_to(hello, to)).await.expect("it sends");
    let length = soon(socket.recv(&mut answer)).await.expect("a cookie");
    let connect = [b"\x03", &hello[1..], &answer[9..length]].concat();
    soon(socket.send_to(&connect, to)).await.expect("it sends");
    soon(socket.recv(&mut answer)).await.expect("an answer");
    match answer[0] {
        0x04 => Ok(Inside::Datagrams { _socket: socket }),
        0x05 => Err(u16::from_be_bytes([answer[9], answer[10]]).to_string()),
        other => panic!("{other}"),
    }
}

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[tokio::test]
async fn an_endpoint_takes_as_many_as_it_may_over_every_transport() {
    let broke = start(|options| options.max_connections = 2).await;
    let busy = CloseReason::Busy.code().to_string();
    for transport in TRANSPORTS {
        let one = connect(&broke, transport, HOME).await.expect("a first");
        let two = connect(&broke, transport, ELSEWHERE)
            .await
            .expect("a second");
        let refused = connect(&broke, transport, HOME).await.expect_err("a third");
        let says = match transport {
            "tcp" => "unavailable",
            "udp" => &busy,
            _ => "503",
        };
        assert!(refused.contains(says), "{transport}: {refused}");
        drop((one, two));
    }
    assert_eq!(broke.stats().refused, 4);
    stop(broke, ()).await;
}

#[tokio::test]
async fn an_address_takes_no_more_than_its_share_over_every_transport() {
    let broke = start(|options| options.max_connections_per_address = Some(1)).await;
    let busy = CloseReason::Busy.code().to_string();
    for transport in TRANSPORTS {
        let one = connect(&broke, transport, HOME).await.expect("a first");
        let refused = connect(&broke, transport, HOME)
            .await
            .expect_err("a second");
        let says = match transport {
            "tcp" => "too_many",
            "udp" => &busy,
            _ => "429",
        };
        assert!(refused.contains(says), "{transport}: {refused}");
        let other = connect(&broke, transport, ELSEWHERE).await;
        drop((one, other.expect("another address has its own share")));
    }
    stop(broke, ()).await;
}

#[tokio::test]
async fn a_network_of_ipv6_takes_the_share_of_one_address() {
    let proxies = TrustedProxies::proxy_protocol(["127.0.0.1"]).expect("an address");
    let tcp = TcpEndpoint::bind("127.0.0.1:0")
        .codec(JsonCodec::to_logic("echo"))
        .behind(proxies)
        .configure(|options| options.max_connections_per_address = Some(1));
    let broke = echo(tcp).start().await.expect("it starts");
    let mut clients = Vec::new();
    for (from, is_inside) in [
        ("2001:db8::1", true),
        ("2001:db8::ffff:ffff:ffff:2", false),
        ("2001:db8:0:1::1", true),
    ] {
        let mut client = TcpClient::connect(common::address(&broke)).await;
        client
            .write(format!("PROXY TCP6 {from} ::1 5 80\r\n"))
            .await;
        let answer = client.next_json().await;
        assert_eq!(answer["welcome"].is_object(), is_inside, "{from}: {answer}");
        clients.push(client);
    }
    stop(broke, clients).await;
}
