//! What is done to the server: [`carry_out`].

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use flate2::{Compression, write::DeflateEncoder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
};

use crate::common::{
    TcpClient, soon,
    websocket::{BINARY, CONTINUED, LAST, PING, TEXT, WebSocket, frame, request},
};

pub(crate) const SLOW_HEADS: u64 = 100;
pub(crate) const SLOW_BODIES: u64 = 20;
pub(crate) const NEVER_READ: u64 = 5;
pub(crate) const OF_EACH: u64 = 10;
const DATAGRAMS: u64 = 500;
/// More than the server may have when it may have few.
const MORE_THAN_A_FEW: usize = 200;

/// How many connections are being opened at a time: a listener keeps no more than it is told to.
const AT_A_TIME: usize = 64;

/// Does what it was started for.
pub(crate) async fn carry_out(order: &str) {
    let mut words = order.split(' ');
    let what = words.next().expect("what to do");
    let silent = words.next().and_then(|word| word.parse().ok());
    let silent: u64 = silent.expect("a number");
    let addresses: Vec<SocketAddr> = words
        .map(|word| word.parse().expect("an address"))
        .collect();
    let &[ws, hasty, tcp, http, udp] = &addresses[..] else {
        panic!("five addresses, not {order:?}");
    };
    if what == "exhaust" {
        return exhaust(hasty);
    }
    let mut attacks = JoinSet::new();
    for _ in 0..SLOW_HEADS {
        attacks.spawn(crawl(hasty));
        attacks.spawn(crawl(http));
    }
    for _ in 0..SLOW_BODIES {
        attacks.spawn(dawdle(http));
    }
    let opening = Arc::new(Semaphore::new(AT_A_TIME));
    for number in 0..silent {
        attacks.spawn(say_nothing(hasty, number % 2 == 0, Arc::clone(&opening)));
    }
    for _ in 0..NEVER_READ {
        attacks.spawn(never_read(hasty));
    }
    for flood in floods().map(Arc::<[u8]>::from) {
        for _ in 0..OF_EACH {
            attacks.spawn(pour(ws, Arc::clone(&flood)));
        }
    }
    for _ in 0..OF_EACH {
        attacks.spawn(announce_too_much(tcp));
        for address in [ws, tcp, http] {
            attacks.spawn(reset_in_every_state(address));
        }
    }
    for last in 2..6 {
        attacks.spawn(spoof(udp, Ipv4Addr::new(127, 0, 0, last)));
    }
    while let Some(attacked) = attacks.join_next().await {
        attacked.expect("an attack is carried out");
    }
}

/// Opens more connections than there are file descriptors for at the other end, and holds them until told to stop.
fn exhaust(address: SocketAddr) {
    let connect = |_| std::net::TcpStream::connect(address).expect("the system accepts it");
    let held: Vec<_> = (0..MORE_THAN_A_FEW).map(connect).collect();
    let mut told = Vec::new();
    std::io::stdin()
        .read_to_end(&mut told)
        .expect("the end of it");
    drop(held);
}

fn floods() -> [Vec<u8>; 5] {
    let mut bomb = DeflateEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 8 << 20]).expect("memory");
    bomb.flush().expect("memory");
    [
        frame(LAST | PING, "x").repeat(10_000),
        [frame(TEXT, ""), frame(CONTINUED, "x").repeat(140_000)].concat(),
        b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x82\xff\x80\0\0\0\0\0\0\0".to_vec(),
        frame(LAST | 0x40 | BINARY, bomb.get_ref()),
    ]
}

async fn pour(address: SocketAddr, flood: Arc<[u8]>) {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut client = WebSocket::open_with(address, offer).await;
    // It is hung up on before all of it is out.
    let _ = soon(client.stream.0.write_all(&flood)).await;
    until_end(client.stream).await;
}

async fn announce_too_much(address: SocketAddr) {
    let mut client = TcpClient::connect(address).await;
    client.write([0xff; 4]).await;
    until_end(client).await;
}

/// Reads until the server has enough.
async fn until_end(mut client: TcpClient) {
    let mut rest = Vec::new();
    // A reset ends it as well.
    let _ = soon(client.0.read_to_end(&mut rest)).await;
}

async fn say_nothing(address: SocketAddr, after_the_handshake: bool, opening: Arc<Semaphore>) {
    let permit = opening.acquire().await.expect("it is not closed");
    let client = if after_the_handshake {
        WebSocket::open(address).await.stream
    } else {
        TcpClient::connect(address).await
    };
    drop(permit);
    until_end(client).await;
}

/// A request that comes byte by byte, until the server has enough.
async fn crawl(address: SocketAddr) {
    let mut client = TcpClient::connect(address).await;
    for byte in request("").into_bytes() {
        if client.0.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A body that comes byte by byte, for a session that is there.
async fn dawdle(address: SocketAddr) {
    let mut events = TcpClient::connect(address).await;
    events
        .write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let mut came = Vec::new();
    let token = loop {
        soon(events.0.read_buf(&mut came)).await.expect("more");
        let text = String::from_utf8_lossy(&came);
        let data = text.split_once("data: ").map(|(_, data)| data);
        if let Some((token, _)) = data.and_then(|data| data.split_once('\n')) {
            break token.to_owned();
        }
    };
    let mut client = TcpClient::connect(address).await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\ngobroke-session: {token}\r\nContent-Length: 1000\r\n\r\n"
    );
    client.write(head).await;
    for _ in 0..1000 {
        if client.0.write_all(b"x").await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks and asks and never reads an answer, until the server has enough.
async fn never_read(address: SocketAddr) {
    let mut client = WebSocket::open(address).await;
    let message = frame(LAST | BINARY, vec![7; 64 << 10]);
    let asking = async { while client.stream.0.write_all(&message).await.is_ok() {} };
    soon(asking).await;
}

/// Connections that are reset, each a step further than the one before.
async fn reset_in_every_state(address: SocketAddr) {
    let handshake = request("");
    let hello = frame(LAST | TEXT, "hello");
    let begun = frame(TEXT, "a message that never ends");
    let states = [
        Vec::new(),
        handshake.as_bytes()[..40].to_vec(),
        handshake.clone().into_bytes(),
        [handshake.as_bytes(), &hello[..3]].concat(),
        [handshake.as_bytes(), &begun].concat(),
        [handshake.as_bytes(), &hello.repeat(100)].concat(),
        [handshake.as_bytes(), &frame(LAST | 0x8, "")].concat(),
    ];
    for bytes in states {
        let mut socket = soon(TcpStream::connect(address))
            .await
            .expect("a connection");
        socket.set_zero_linger().expect("a socket");
        // TCP clients are cut at the first four letters.
        let _ = socket.write_all(&bytes).await;
        drop(socket);
    }
}

/// Datagrams from an address that does not listen to the answers.
async fn spoof(server: SocketAddr, from: Ipv4Addr) {
    let socket = UdpSocket::bind((from, 0)).await.expect("a socket");
    let nonce = b"nobody's";
    let kinds: [Vec<u8>; 4] = [
        [b"\x01GB01", &nonce[..]].concat(),
        [b"\x03GB01", &nonce[..], &[7; 20]].concat(),
        [b"\x10", &nonce[..], b"a frame"].concat(),
        b"what is this?".to_vec(),
    ];
    for _ in 0..DATAGRAMS {
        for datagram in &kinds {
            soon(socket.send_to(datagram, server))
                .await
                .expect("it sends");
        }
        tokio::task::yield_now().await;
    }
}
