//! Compression over real sockets: what the Autobahn fuzzing client asks of it (12.* and 13.*), and what it does not.

#![cfg(feature = "deflate")]

mod common;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use common::{
    address, bad_input, echo, soon, stop,
    websocket::{BINARY, CLOSE, CONTINUED, LAST, PING, PONG, TEXT, WebSocket, frame},
};
use flate2::{Compression, write::DeflateEncoder};
use gobroke_core::{Broke, Message};
use gobroke_endpoints::{
    RawCodec, WebSocketEndpoint,
    codec::{Codec, Frame, FrameError, Inbound},
};

/// The bit that says that a message is compressed.
const COMPRESSED: u8 = 0x40;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

fn raw() -> WebSocketEndpoint {
    WebSocketEndpoint::bind("127.0.0.1:0")
        .codec(RawCodec::to_logic("echo"))
        .deflate()
        .max_control_frames(10_000)
}

async fn start(endpoint: WebSocketEndpoint) -> Broke {
    echo(endpoint).start().await.expect("it starts")
}

/// A message as a client compresses it, without what a flush ends with.
fn compressed(message: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).expect("memory");
    encoder.flush().expect("memory");
    let mut bytes = encoder.get_ref().clone();
    assert!(bytes.ends_with(&[0, 0, 0xff, 0xff]));
    bytes.truncate(bytes.len() - 4);
    bytes
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    let mut inflater = flate2::Decompress::new(false);
    let whole = [bytes, &[0, 0, 0xff, 0xff]].concat();
    inflater
        .decompress_vec(&whole, &mut out, flate2::FlushDecompress::Sync)
        .expect("it is compressed");
    out
}

#[tokio::test]
async fn section_12_and_13_messages_come_back_whatever_was_offered_and_however_they_are_cut() {
    let broke = start(raw().configure(|options| options.outbox_bytes = 16 << 20)).await;
    for offer in [
        "permessage-deflate",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=15; client_max_window_bits=9",
        "permessage-deflate; no_such_thing, permessage-deflate; server_max_window_bits=12",
    ] {
        let lines = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        let mut client = WebSocket::open_with(address(&broke), &lines).await;
        let agreed = "sec-websocket-extensions: permessage-deflate; \
            server_no_context_takeover; client_no_context_takeover";
        assert!(client.head.contains(agreed), "{offer}: {}", client.head);
        for length in [
            0, 16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, 65_536, 131_072,
        ] {
            let text = "{\"price\": 17, \"name\": \"a name\"}, ".repeat(4096);
            let message = &text.as_bytes()[..length];
            let bytes = compressed(message);
            for size in [bytes.len().max(1), 7, 256] {
                let mut frames = Vec::new();
                let mut first = COMPRESSED | TEXT;
                for piece in bytes.chunks(size) {
                    frames.extend(frame(first, piece));
                    // Control frames are not compressed, and may stand between.
                    frames.extend(frame(LAST | PONG, ""));
                    first = CONTINUED;
                }
                frames.extend(frame(LAST | first, ""));
                if bytes.len().div_ceil(size) > 50 {
                    continue;
                }
                client.write(frames).await;
                let (first, answer) = client.next().await.expect("an answer");
                if length < 64 {
                    assert_eq!((first, &answer[..]), (LAST | TEXT, message));
                } else {
                    assert_eq!(first, LAST | COMPRESSED | TEXT, "{length} bytes");
                    assert!(answer.len() < length);
                    assert!(inflated(&answer) == message, "{offer}, {length} bytes");
                }
            }
        }
    }
    stop(broke, ()).await;
}

#[tokio::test]
async fn compression_is_for_those_who_ask_where_it_is_on() {
    let broke = start(raw()).await;
    let long = "so it goes, ".repeat(100);
    let mut plain = WebSocket::open(address(&broke)).await;
    assert!(!plain.head.contains("extensions"));
    let mut asked = WebSocket::open_with(address(&broke), OFFER).await;
    // Who asked may still send what is not compressed.
    asked.write(frame(LAST | TEXT, &long)).await;
    let (first, answer) = asked.next().await.expect("an answer");
    assert_eq!(first, LAST | COMPRESSED | TEXT);
    assert_eq!(inflated(&answer), long.as_bytes());
    broke
        .send(Message::text(long.clone()).to_all())
        .expect("it goes");
    assert_eq!(
        asked.next().await.expect("a message").0,
        LAST | COMPRESSED | TEXT
    );
    assert_eq!(
        plain.next().await.expect("a message"),
        (LAST | TEXT, long.into())
    );
    // Who did not ask may not.
    plain
        .write(frame(LAST | COMPRESSED | TEXT, compressed(b"Hello")))
        .await;
    let (first, close) = plain.next().await.expect("a close");
    assert_eq!(
        (first, &close[..2]),
        (LAST | CLOSE, &1002_u16.to_be_bytes()[..])
    );
    stop(broke, asked).await;

    let off = WebSocketEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"));
    let broke = start(off).await;
    let client = WebSocket::open_with(address(&broke), OFFER).await;
    assert!(!client.head.contains("extensions"));
    stop(broke, client).await;
}

#[tokio::test]
async fn a_bomb_is_closed_when_it_grows_above_the_limit() {
    const LIMIT: usize = 100_000;
    let broke = start(raw().configure(|options| options.max_message = LIMIT)).await;
    let mut client = WebSocket::open_with(address(&broke), OFFER).await;
    let largest = compressed(&vec![0; LIMIT]);
    client
        .write(frame(LAST | COMPRESSED | BINARY, largest))
        .await;
    let (_, answer) = client.next().await.expect("an answer");
    assert_eq!(inflated(&answer).len(), LIMIT);
    // A thousand times what it is.
    let bomb = compressed(&vec![0; 64 << 20]);
    assert!(bomb.len() < LIMIT);
    client.write(frame(LAST | COMPRESSED | BINARY, bomb)).await;
    let (first, close) = client.next().await.expect("a close");
    assert_eq!(
        (first, &close[..2]),
        (LAST | CLOSE, &1009_u16.to_be_bytes()[..])
    );
    assert_eq!(bad_input(&broke, "too_big"), 1);
    stop(broke, client).await;
}

#[tokio::test]
async fn what_is_not_compressed_as_agreed_is_closed_with_the_right_code() {
    let broke = start(raw()).await;
    let hello = compressed(b"Hello");
    let cases: [(&str, Vec<u8>, u16); 6] = [
        (
            "no blocks",
            frame(LAST | COMPRESSED | TEXT, b"\xff\xff\xff"),
            1007,
        ),
        (
            "no UTF-8",
            frame(LAST | COMPRESSED | TEXT, compressed(b"\xff")),
            1007,
        ),
        (
            "a compressed ping",
            frame(LAST | COMPRESSED | PING, &hello),
            1002,
        ),
        (
            "another reserved bit",
            frame(LAST | COMPRESSED | 0x20 | TEXT, &hello),
            1002,
        ),
        (
            "a compressed continuation",
            [
                frame(TEXT, ""),
                frame(LAST | COMPRESSED | CONTINUED, &hello),
            ]
            .concat(),
            1002,
        ),
        (
            "a block that goes back before the message",
            frame(LAST | COMPRESSED | TEXT, b"\x02\x61\x00"),
            1007,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut client = WebSocket::open_with(address(&broke), OFFER).await;
        client.write(bytes).await;
        let (first, close) = client.next().await.expect("a close");
        assert_eq!(first, LAST | CLOSE, "{what}");
        assert_eq!(close[..2], code.to_be_bytes(), "{what}");
    }
    stop(broke, ()).await;
}

/// Raw payloads; counts how often one is encoded.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<AtomicUsize>);

impl Codec for Counting {
    fn decode(&self, _: Frame<'_>) -> Result<Inbound, FrameError> {
        Err(FrameError::bad_frame("say nothing"))
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        self.0.fetch_add(1, Relaxed);
        out.extend_from_slice(message.payload());
    }
}

#[tokio::test]
async fn a_message_for_many_is_compressed_once_for_all_of_them() {
    let codec = Counting::default();
    let endpoint = WebSocketEndpoint::bind("127.0.0.1:0")
        .codec(codec.clone())
        .deflate();
    let broke = echo(endpoint).lanes(1).start().await.expect("it starts");
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(WebSocket::open_with(address(&broke), OFFER).await);
    }
    soon(async {
        while broke.stats().clients < 50 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let long = "so it goes, ".repeat(100);
    broke
        .send(Message::text(long.clone()).to_all())
        .expect("it goes");
    for client in &mut clients {
        let (first, bytes) = client.next().await.expect("a message");
        assert_eq!(first, LAST | COMPRESSED | TEXT);
        assert_eq!(inflated(&bytes), long.as_bytes());
    }
    assert_eq!(codec.0.load(Relaxed), 1);
    stop(broke, clients).await;
}
