//! A case of the suite, and how it is run: [`Case`].

use std::net::SocketAddr;

use futures_util::{StreamExt, stream};
use gobroke_endpoints::{RawCodec, WebSocketEndpoint};
use tokio::io::AsyncWriteExt;

use crate::common::{
    address, echo, soon, stop,
    websocket::{BINARY, CLOSE, CONTINUED, LAST, PONG, TEXT, WebSocket, close, frame},
};

/// What a server answers: the first byte of a frame, and its payload.
pub(crate) type Answer = (u8, Vec<u8>);

/// A case: what the client writes, each piece in a write of its own, what it is answered, and how it is closed.
pub(crate) struct Case {
    id: String,
    writes: Vec<Vec<u8>>,
    answers: Vec<Answer>,
    ends: Ends,
}

pub(crate) enum Ends {
    /// The client closes with 1000 once it has all answers, and is answered with that.
    Cleanly,
    /// The server closes with this code; the client has closed, or broken a rule.
    With(u16),
    /// The client's close says nothing, and neither does the answer.
    Silently,
}

pub(crate) fn case(
    id: impl Into<String>,
    frames: &[Vec<u8>],
    answers: &[Answer],
    ends: Ends,
) -> Case {
    Case {
        id: id.into(),
        writes: vec![frames.concat()],
        answers: answers.to_vec(),
        ends,
    }
}

/// A case that ends well.
pub(crate) fn good(id: impl Into<String>, frames: &[Vec<u8>], answers: &[Answer]) -> Case {
    case(id, frames, answers, Ends::Cleanly)
}

/// A case in which the client breaks a rule.
pub(crate) fn bad(
    id: impl Into<String>,
    frames: &[Vec<u8>],
    answers: &[Answer],
    code: u16,
) -> Case {
    case(id, frames, answers, Ends::With(code))
}

impl Case {
    /// The same bytes in pieces of this size.
    pub(crate) fn chopped(mut self, size: usize) -> Self {
        let bytes = self.writes.concat();
        self.writes = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        self
    }

    /// The same bytes, a frame a write.
    pub(crate) fn frame_wise(mut self, frames: &[Vec<u8>]) -> Self {
        self.writes = frames.to_vec();
        self
    }

    async fn run(self, address: SocketAddr) {
        let Self {
            id,
            writes,
            answers,
            ends,
        } = self;
        let mut client = WebSocket::open(address).await;
        for write in writes {
            // Who breaks a rule may be hung up on before the last piece is out.
            let written = soon(client.stream.0.write_all(&write)).await;
            assert!(
                written.is_ok() || matches!(ends, Ends::With(_)),
                "case {id}: {written:?}"
            );
        }
        for (number, answer) in answers.iter().enumerate() {
            let came = client.next().await;
            assert!(
                came.as_ref() == Some(answer),
                "case {id}, answer {number}: {}",
                came.map_or("the end".to_owned(), |(first, payload)| format!(
                    "{first:x} {}",
                    String::from_utf8_lossy(&payload)
                ))
            );
        }
        let code = match ends {
            Ends::Cleanly => {
                client.write(close(1000, "")).await;
                Some(1000)
            }
            Ends::With(code) => Some(code),
            Ends::Silently => None,
        };
        let (first, payload) = client
            .next()
            .await
            .unwrap_or_else(|| panic!("case {id}: no close frame"));
        assert_eq!(first, LAST | CLOSE, "case {id}: {payload:x?}");
        let said = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        assert_eq!(said, code, "case {id}");
        assert_eq!(client.next().await, None, "case {id}: nothing follows");
    }
}

/// Runs cases side by side, each on a connection of its own.
pub(crate) async fn run(cases: Vec<Case>) {
    let endpoint = WebSocketEndpoint::bind("127.0.0.1:0")
        .codec(RawCodec::to_logic("echo"))
        .configure(|options| {
            options.max_message = 16 << 20;
            options.outbox_bytes = 64 << 20;
            options.ping_interval = None;
        });
    // Two of the largest answers at a time would not fit into a lane as it is by default, and be refused as `Full`.
    let broke = echo(endpoint).lane_bytes(256 << 20);
    let broke = broke.start().await.expect("it starts");
    let address = address(&broke);
    stream::iter(cases)
        .for_each_concurrent(8, |case| case.run(address))
        .await;
    assert_eq!(broke.stats().logic_errors, 0, "every answer was sent");
    stop(broke, ()).await;
}

pub(crate) fn text(payload: impl AsRef<[u8]>) -> Answer {
    (LAST | TEXT, payload.as_ref().to_vec())
}

pub(crate) fn binary(payload: impl AsRef<[u8]>) -> Answer {
    (LAST | BINARY, payload.as_ref().to_vec())
}

pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Answer {
    (LAST | PONG, payload.as_ref().to_vec())
}

/// A frame that no other continues.
pub(crate) fn whole(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(LAST | opcode, payload)
}

/// A message in frames with so much of it in each.
pub(crate) fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(size);
    let first = |number| if number == 0 { opcode } else { CONTINUED };
    let last = |number| if number + 1 == count { LAST } else { 0 };
    let pieces = payload.chunks(size).enumerate();
    pieces
        .map(|(number, piece)| frame(first(number) | last(number), piece))
        .collect()
}
