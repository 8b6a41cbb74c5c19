//! [`Dialect`]: how messages look on the wire to each kind of server.

use std::{
    io::{self, Read, Write},
    ops::Range,
};

use gobroke_bench::Mode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    WebSocket,
    /// The same over TLS.
    SecureWebSocket,
    /// Engine.IO 4 and Socket.IO 5 over WebSocket, the payload as a string.
    SocketIo,
    /// Four bytes of length and the payload.
    Tcp,
    /// The same over TLS.
    SecureTcp,
    Nats,
}

/// The key of RFC 6455, section 1.2: the answer to it is not checked here.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// What stands before a payload of Socket.IO, and behind it.
const EVENT: &[u8] = b"42[\"message\",\"";
const EVENT_END: &[u8] = b"\"]";

impl Dialect {
    /// Whether it is spoken over TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::SecureWebSocket | Self::SecureTcp)
    }

    /// Says who it is, and gives back what came behind the answer.
    pub fn shake_hands(
        self,
        stream: &mut (impl Read + Write),
        room: usize,
        mode: Mode,
    ) -> io::Result<Vec<u8>> {
        match self {
            Self::WebSocket | Self::SecureWebSocket => upgrade(stream, &format!("/{room}")),
            Self::SocketIo => {
                let path = format!("/socket.io/?EIO=4&transport=websocket&room={room}");
                let mut begun = upgrade(stream, &path)?;
                expect_frame(stream, &mut begun, b"0{")?;
                let mut frame = Vec::new();
                write_frame(1, b"40", &mut frame);
                stream.write_all(&frame)?;
                expect_frame(stream, &mut begun, b"40")?;
                Ok(begun)
            }
            Self::Tcp | Self::SecureTcp => Ok(Vec::new()),
            Self::Nats => {
                let echo = mode.includes_sender();
                // The server is pedantic unless it is told not to be; its clients tell it.
                let hello = format!(
                    "CONNECT {{\"verbose\":false,\"pedantic\":false,\"echo\":{echo}}}\r\nSUB m 1\r\nPING\r\n"
                );
                stream.write_all(hello.as_bytes())?;
                let mut answer = Vec::new();
                while !answer.ends_with(b"PONG\r\n") {
                    read_some(stream, &mut answer)?;
                }
                Ok(Vec::new())
            }
        }
    }

    /// Appends a message as a client writes it.
    pub fn put(self, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::WebSocket | Self::SecureWebSocket => write_frame(2, payload, out),
            Self::SocketIo => {
                let event = [EVENT, payload, EVENT_END].concat();
                write_frame(1, &event, out);
            }
            Self::Tcp | Self::SecureTcp => {
                out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
                out.extend_from_slice(payload);
            }
            Self::Nats => {
                out.extend_from_slice(format!("PUB m {}\r\n", payload.len()).as_bytes());
                out.extend_from_slice(payload);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// The first message that is whole: where its payload is, and where it ends.
    pub fn next(self, input: &[u8]) -> Option<(Range<usize>, usize)> {
        match self {
            Self::WebSocket | Self::SecureWebSocket => frame(input),
            Self::SocketIo => {
                let (payload, end) = frame(input)?;
                match input[payload.clone()].starts_with(EVENT) {
                    true => Some((
                        payload.start + EVENT.len()..payload.end - EVENT_END.len(),
                        end,
                    )),
                    false => Some((0..0, end)),
                }
            }
            Self::Tcp | Self::SecureTcp => {
                let length: [u8; 4] = input.get(..4)?.try_into().ok()?;
                let end = 4 + u32::from_be_bytes(length) as usize;
                (input.len() >= end).then_some((4..end, end))
            }
            Self::Nats => {
                let line = input.iter().position(|&byte| byte == b'\n')? + 1;
                if !input.starts_with(b"MSG ") {
                    return Some((0..0, line));
                }
                let words = std::str::from_utf8(&input[..line]).ok()?;
                let length: usize = words.trim_end().rsplit(' ').next()?.parse().ok()?;
                let end = line + length + 2;
                (input.len() >= end).then_some((line..line + length, end))
            }
        }
    }
}

/// The first frame of a server that is whole.
fn frame(input: &[u8]) -> Option<(Range<usize>, usize)> {
    let (start, length) = match *input.get(1)? {
        126 => (
            4,
            u16::from_be_bytes(input.get(2..4)?.try_into().ok()?) as usize,
        ),
        127 => (
            10,
            u64::from_be_bytes(input.get(2..10)?.try_into().ok()?) as usize,
        ),
        length => (2, length as usize),
    };
    let end = start + length;
    (input.len() >= end).then_some((start..end, end))
}

fn write_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..65536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
}

/// Asks for a WebSocket; gives back what came behind the answer.
fn upgrade(stream: &mut (impl Read + Write), path: &str) -> io::Result<Vec<u8>> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    loop {
        read_some(stream, &mut answer)?;
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        if !answer.starts_with(b"HTTP/1.1 101") {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            return Err(io::Error::other(format!("no WebSocket: {answer}")));
        }
        return Ok(answer.split_off(end + 4));
    }
}

/// Reads up to a frame that begins so.
fn expect_frame(stream: &mut impl Read, begun: &mut Vec<u8>, begin: &[u8]) -> io::Result<()> {
    loop {
        while let Some((payload, end)) = frame(begun) {
            let found = begun[payload].starts_with(begin);
            begun.drain(..end);
            if found {
                return Ok(());
            }
        }
        read_some(stream, begun)?;
    }
}

fn read_some(stream: &mut impl Read, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => {
            into.extend_from_slice(&buffer[..length]);
            Ok(())
        }
    }
}
