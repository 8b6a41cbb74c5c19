//! A WebSocket client that writes bytes by hand, so that it can do what a client must not.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use super::{TcpClient, soon};

pub(crate) const CONTINUED: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// What stands in the first byte of a frame that no other continues.
pub(crate) const LAST: u8 = 0x80;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame with this first byte.
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = Vec::with_capacity(14 + payload.len());
    bytes.push(first);
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    bytes.extend(masked.map(|(byte, key)| byte ^ key));
    bytes
}

/// A client's close frame.
pub(crate) fn close(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    frame(
        LAST | CLOSE,
        [&code.to_be_bytes()[..], reason.as_ref()].concat(),
    )
}

/// The request that opens a WebSocket, with these lines (each with its end) among the headers.
pub(crate) fn request(lines: &str) -> String {
    format!(
        "GET /any?x=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
    )
}

/// A client whose handshake is done.
pub(crate) struct WebSocket {
    pub(crate) stream: TcpClient,
    /// The head of the answer to its handshake, in lower case.
    pub(crate) head: String,
}

impl WebSocket {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::open_with(address, "").await
    }

    /// Opens one with further lines among the request's headers.
    pub(crate) async fn open_with(address: SocketAddr, lines: &str) -> Self {
        let mut stream = TcpClient::connect(address).await;
        stream.0.set_nodelay(true).expect("a socket");
        stream.write(request(lines)).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.0.read_u8()).await.expect("more of the head"));
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        Self { stream, head }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write(bytes).await;
    }

    /// The next frame of the server, its first byte and its payload; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        soon(async {
            let socket = &mut self.stream.0;
            let first = socket.read_u8().await.ok()?;
            let length = match socket.read_u8().await.expect("a length") {
                126 => u64::from(socket.read_u16().await.expect("a length")),
                127 => socket.read_u64().await.expect("a length"),
                masked @ 128.. => panic!("a server does not mask: {masked}"),
                length => u64::from(length),
            };
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            socket
                .read_exact(&mut payload)
                .await
                .expect("a whole frame");
            Some((first, payload))
        })
        .await
    }
}
