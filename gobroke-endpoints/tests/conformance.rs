//! What the Autobahn fuzzing client asks of a server, over real sockets. The numbers are those of its cases; 12.* and
//! 13.* (compression) stand in `deflate.rs`.

#![cfg(feature = "ws")]

mod common;

use std::net::SocketAddr;

use common::{
    address, echo, soon, stop,
    websocket::{BINARY, CLOSE, CONTINUED, LAST, PING, PONG, TEXT, WebSocket, close, frame},
};
use futures_util::{StreamExt, stream};
use gobroke_endpoints::{RawCodec, WebSocketEndpoint};
use tokio::io::AsyncWriteExt;

/// What a server answers: the first byte of a frame, and its payload.
type Answer = (u8, Vec<u8>);

/// A case: what the client writes, each piece in a write of its own, what it is answered, and how it is closed.
struct Case {
    id: String,
    writes: Vec<Vec<u8>>,
    answers: Vec<Answer>,
    ends: Ends,
}

enum Ends {
    /// The client closes with 1000 once it has all answers, and is answered with that.
    Cleanly,
    /// The server closes with this code; the client has closed, or broken a rule.
    With(u16),
    /// The client's close says nothing, and neither does the answer.
    Silently,
}

fn case(id: impl Into<String>, frames: &[Vec<u8>], answers: &[Answer], ends: Ends) -> Case {
    Case {
        id: id.into(),
        writes: vec![frames.concat()],
        answers: answers.to_vec(),
        ends,
    }
}

/// A case that ends well.
fn good(id: impl Into<String>, frames: &[Vec<u8>], answers: &[Answer]) -> Case {
    case(id, frames, answers, Ends::Cleanly)
}

/// A case in which the client breaks a rule.
fn bad(id: impl Into<String>, frames: &[Vec<u8>], answers: &[Answer], code: u16) -> Case {
    case(id, frames, answers, Ends::With(code))
}

impl Case {
    /// The same bytes in pieces of this size.
    fn chopped(mut self, size: usize) -> Self {
        let bytes = self.writes.concat();
        self.writes = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        self
    }

    /// The same bytes, a frame a write.
    fn frame_wise(mut self, frames: &[Vec<u8>]) -> Self {
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
async fn run(cases: Vec<Case>) {
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

fn text(payload: impl AsRef<[u8]>) -> Answer {
    (LAST | TEXT, payload.as_ref().to_vec())
}

fn binary(payload: impl AsRef<[u8]>) -> Answer {
    (LAST | BINARY, payload.as_ref().to_vec())
}

fn pong(payload: impl AsRef<[u8]>) -> Answer {
    (LAST | PONG, payload.as_ref().to_vec())
}

/// A frame that no other continues.
fn whole(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(LAST | opcode, payload)
}

/// A message in frames with so much of it in each.
fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(size);
    let first = |number| if number == 0 { opcode } else { CONTINUED };
    let last = |number| if number + 1 == count { LAST } else { 0 };
    let pieces = payload.chunks(size).enumerate();
    pieces
        .map(|(number, piece)| frame(first(number) | last(number), piece))
        .collect()
}

#[tokio::test]
async fn section_1_messages_of_all_lengths_come_back() {
    let lengths = [0, 125, 126, 127, 128, 65_535, 65_536, 65_536];
    let mut cases = Vec::new();
    for (number, length) in (1..).zip(lengths) {
        let (stars, bytes) = (vec![b'*'; length], vec![0xfe; length]);
        let both = [
            good(
                format!("1.1.{number}"),
                &[whole(TEXT, &stars)],
                &[text(stars)],
            ),
            good(
                format!("1.2.{number}"),
                &[whole(BINARY, &bytes)],
                &[binary(bytes)],
            ),
        ];
        // The eighth is the seventh in pieces.
        cases.extend(both.map(|case| if number == 8 { case.chopped(997) } else { case }));
    }
    run(cases).await;
}

#[tokio::test]
async fn section_2_pings_are_answered_and_pongs_are_passed_over() {
    let payloads: Vec<_> = (0..10).map(|number| format!("payload-{number}")).collect();
    let pings: Vec<_> = payloads
        .iter()
        .map(|payload| whole(PING, payload))
        .collect();
    let pongs: Vec<_> = payloads.iter().map(pong).collect();
    let binary = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
    run(vec![
        good("2.1", &[whole(PING, "")], &[pong("")]),
        good(
            "2.2",
            &[whole(PING, "Hello, world!")],
            &[pong("Hello, world!")],
        ),
        good("2.3", &[whole(PING, binary)], &[pong(binary)]),
        good("2.4", &[whole(PING, [0xfe; 125])], &[pong([0xfe; 125])]),
        bad("2.5", &[whole(PING, [0xfe; 126])], &[], 1002),
        good("2.6", &[whole(PING, [0xfe; 125])], &[pong([0xfe; 125])]).chopped(1),
        good("2.7", &[whole(PONG, "")], &[]),
        good("2.8", &[whole(PONG, "unsolicited")], &[]),
        good(
            "2.9",
            &[whole(PONG, "unsolicited"), whole(PING, "x")],
            &[pong("x")],
        ),
        good("2.10", &pings, &pongs),
        good("2.11", &pings, &pongs).chopped(1),
    ])
    .await;
}

#[tokio::test]
async fn section_3_reserved_bits_fail_the_connection_behind_what_was_good() {
    let rsv = |bits: u8, opcode: u8, payload: &str| frame(LAST | bits << 4 | opcode, payload);
    let hello = || text("Hello");
    let three = |bits| {
        [
            whole(TEXT, "Hello"),
            rsv(bits, TEXT, "Hello"),
            whole(PING, ""),
        ]
    };
    run(vec![
        bad("3.1", &[rsv(1, TEXT, "Hello")], &[], 1002),
        bad("3.2", &three(2), &[hello()], 1002),
        bad("3.3", &three(3), &[hello()], 1002).frame_wise(&three(3)),
        bad("3.4", &three(4), &[hello()], 1002).chopped(1),
        bad("3.5", &[rsv(5, BINARY, "Hello")], &[], 1002),
        bad("3.6", &[rsv(6, PING, "Hello")], &[], 1002),
        bad("3.7", &[rsv(7, CLOSE, "")], &[], 1002),
    ])
    .await;
}

#[tokio::test]
async fn section_4_reserved_opcodes_fail_the_connection_behind_what_was_good() {
    let mut cases = Vec::new();
    for (section, opcodes) in [(1, [3, 4, 5, 6, 7]), (2, [11, 12, 13, 14, 15])] {
        for (number, opcode) in (1..).zip(opcodes) {
            let id = format!("4.{section}.{number}");
            let payload = if number % 2 == 0 { "reserved" } else { "" };
            let reserved = whole(opcode, payload);
            cases.push(match number {
                1 | 2 => bad(id, &[reserved], &[], 1002),
                _ => {
                    let frames = [whole(TEXT, "Hello"), reserved, whole(PING, "")];
                    let case = bad(id, &frames, &[text("Hello")], 1002);
                    if number == 5 { case.chopped(1) } else { case }
                }
            });
        }
    }
    run(cases).await;
}

#[tokio::test]
async fn section_5_fragments_are_joined_and_out_of_place_ones_fail_the_connection() {
    let (one, two) = (frame(TEXT, "fragment1"), whole(CONTINUED, "fragment2"));
    let both = [one.clone(), two.clone()];
    let with_ping = [one.clone(), whole(PING, "ping payload"), two.clone()];
    let ponged = [pong("ping payload"), text("fragment1fragment2")];
    let joined = [text("fragment1fragment2")];
    let lonely = |last| {
        [
            frame(last | CONTINUED, "non-continuation"),
            whole(TEXT, "Hello"),
        ]
    };
    let again = |last| {
        let three = [lonely(last)[..1].to_vec(), both.to_vec()].concat();
        [three.clone(), three].concat()
    };
    let five = [
        one.clone(),
        frame(CONTINUED, "fragment2"),
        whole(PING, "pongme 1!"),
        frame(CONTINUED, "fragment3"),
        frame(CONTINUED, "fragment4"),
        whole(PING, "pongme 2!"),
        whole(CONTINUED, "fragment5"),
    ];
    let all_five = [
        pong("pongme 1!"),
        pong("pongme 2!"),
        text("fragment1fragment2fragment3fragment4fragment5"),
    ];
    run(vec![
        bad("5.1", &[frame(PING, "fragment1"), two.clone()], &[], 1002),
        bad("5.2", &[frame(PONG, "fragment1"), two.clone()], &[], 1002),
        good("5.3", &both, &joined),
        good("5.4", &both, &joined).frame_wise(&both),
        good("5.5", &both, &joined).chopped(1),
        good("5.6", &with_ping, &ponged),
        good("5.7", &with_ping, &ponged).frame_wise(&with_ping),
        good("5.8", &with_ping, &ponged).chopped(1),
        bad("5.9", &lonely(LAST), &[], 1002),
        bad("5.10", &lonely(LAST), &[], 1002).frame_wise(&lonely(LAST)),
        bad("5.11", &lonely(LAST), &[], 1002).chopped(1),
        bad("5.12", &lonely(0), &[], 1002),
        bad("5.13", &lonely(0), &[], 1002).frame_wise(&lonely(0)),
        bad("5.14", &lonely(0), &[], 1002).chopped(1),
        bad(
            "5.15",
            &[
                both.to_vec(),
                vec![frame(CONTINUED, "fragment3"), whole(TEXT, "fragment4")],
            ]
            .concat(),
            &joined,
            1002,
        ),
        bad("5.16", &again(0), &[], 1002),
        bad("5.17", &again(LAST), &[], 1002),
        bad("5.18", &[one.clone(), whole(TEXT, "fragment2")], &[], 1002),
        good("5.19", &five, &all_five),
        good("5.20", &five, &all_five).frame_wise(&five),
    ])
    .await;
}

#[tokio::test]
async fn section_6_text_is_utf_8_however_it_is_cut() {
    let hello = "Hello-µ@ßöäüàá-UTF-8!!";
    let (front, back) = hello.split_at("Hello-µ@ßöä".len());
    let kosme = "κόσμε".as_bytes();
    let edited = [kosme, b"\xed\xa0\x80edited"].concat();
    let far = [kosme, b"\xf4\x90\x80\x80edited"].concat();
    let head = frame(LAST | TEXT, &far);
    run(vec![
        good("6.1.1", &[whole(TEXT, "")], &[text("")]),
        good(
            "6.1.2",
            &[frame(TEXT, ""), frame(CONTINUED, ""), whole(CONTINUED, "")],
            &[text("")],
        ),
        good(
            "6.1.3",
            &[
                frame(TEXT, ""),
                frame(CONTINUED, "middle"),
                whole(CONTINUED, ""),
            ],
            &[text("middle")],
        ),
        good("6.2.1", &[whole(TEXT, hello)], &[text(hello)]),
        good(
            "6.2.2",
            &[frame(TEXT, front), whole(CONTINUED, back)],
            &[text(hello)],
        ),
        good(
            "6.2.3",
            &fragments(TEXT, hello.as_bytes(), 1),
            &[text(hello)],
        ),
        good("6.2.4", &fragments(TEXT, kosme, 1), &[text(kosme)]),
        bad("6.3.1", &[whole(TEXT, &edited)], &[], 1007),
        bad("6.3.2", &fragments(TEXT, &edited, 1), &[], 1007),
        // What makes it wrong is enough; the rest is never sent.
        bad(
            "6.4.1",
            &[frame(TEXT, &far[..11]), frame(CONTINUED, &far[11..15])],
            &[],
            1007,
        ),
        bad(
            "6.4.2",
            &[frame(TEXT, &far[..12]), frame(CONTINUED, &far[12..13])],
            &[],
            1007,
        ),
        bad("6.4.3", &[head[..6 + 15].to_vec()], &[], 1007),
        bad("6.4.4", &[head[..6 + 13].to_vec()], &[], 1007),
    ])
    .await;
}

/// The sequences of 6.5 to 6.23, and whether they are UTF-8. They are those of Markus Kuhn's stress test.
fn sequences() -> Vec<(bool, Vec<Vec<u8>>)> {
    let listed = |valid, list: &[&[u8]]| (valid, list.iter().map(|bytes| bytes.to_vec()).collect());
    let lonely = |from: u8, to: u8| {
        (from..to)
            .flat_map(|start| [start, b' '])
            .collect::<Vec<u8>>()
    };
    let cut: [&[u8]; 10] = [
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xf8\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xfb\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf",
    ];
    let mut continuations: Vec<Vec<u8>> = vec![b"\x80".to_vec(), b"\xbf".to_vec()];
    continuations.extend((2..7).map(|length| {
        (0..length)
            .map(|index| if index % 2 == 0 { 0x80 } else { 0xbf })
            .collect()
    }));
    continuations.push((0x80..0xbf).collect());
    let mut no_characters: Vec<Vec<u8>> = Vec::new();
    for plane in 0..=16_u32 {
        for last in [0xfffe, 0xffff] {
            let character = char::from_u32(plane << 16 | last).expect("a scalar value");
            no_characters.push(character.to_string().into_bytes());
        }
    }
    vec![
        listed(
            true,
            &[
                b"hello$world",
                b"hello\xc2\xa2world",
                b"hello\xe2\x82\xacworld",
                b"hello\xf0\xa4\xad\xa2world",
                "κόσμε".as_bytes(),
            ],
        ),
        // 6.6, prefixes, is of both kinds: see below.
        (true, Vec::new()),
        listed(
            true,
            &[b"\0", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"],
        ),
        listed(
            false,
            &[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"],
        ),
        listed(
            true,
            &[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"],
        ),
        listed(
            false,
            &[
                b"\xf7\xbf\xbf\xbf",
                b"\xfb\xbf\xbf\xbf\xbf",
                b"\xfd\xbf\xbf\xbf\xbf\xbf",
            ],
        ),
        listed(
            true,
            &[
                b"\xed\x9f\xbf",
                b"\xee\x80\x80",
                b"\xef\xbf\xbd",
                b"\xf4\x8f\xbf\xbf",
            ],
        ),
        (false, continuations),
        (
            false,
            vec![
                lonely(0xc0, 0xdf),
                lonely(0xe0, 0xef),
                lonely(0xf0, 0xf7),
                lonely(0xf8, 0xfb),
                lonely(0xfc, 0xfd),
            ],
        ),
        listed(false, &cut),
        (false, vec![cut.concat()]),
        listed(false, &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
        listed(
            false,
            &[
                b"\xc0\xaf",
                b"\xe0\x80\xaf",
                b"\xf0\x80\x80\xaf",
                b"\xf8\x80\x80\x80\xaf",
                b"\xfc\x80\x80\x80\x80\xaf",
            ],
        ),
        listed(
            false,
            &[
                b"\xc1\xbf",
                b"\xe0\x9f\xbf",
                b"\xf0\x8f\xbf\xbf",
                b"\xf8\x87\xbf\xbf\xbf",
                b"\xfc\x83\xbf\xbf\xbf\xbf",
            ],
        ),
        listed(
            false,
            &[
                b"\xc0\x80",
                b"\xe0\x80\x80",
                b"\xf0\x80\x80\x80",
                b"\xf8\x80\x80\x80\x80",
                b"\xfc\x80\x80\x80\x80\x80",
            ],
        ),
        listed(
            false,
            &[
                b"\xed\xa0\x80",
                b"\xed\xad\xbf",
                b"\xed\xae\x80",
                b"\xed\xaf\xbf",
                b"\xed\xb0\x80",
                b"\xed\xbe\x80",
                b"\xed\xbf\xbf",
            ],
        ),
        listed(
            false,
            &[
                b"\xed\xa0\x80\xed\xb0\x80",
                b"\xed\xa0\x80\xed\xbf\xbf",
                b"\xed\xad\xbf\xed\xb0\x80",
                b"\xed\xad\xbf\xed\xbf\xbf",
                b"\xed\xae\x80\xed\xb0\x80",
                b"\xed\xae\x80\xed\xbf\xbf",
                b"\xed\xaf\xbf\xed\xb0\x80",
                b"\xed\xaf\xbf\xed\xbf\xbf",
            ],
        ),
        (true, no_characters),
        (
            true,
            (0xb9..=0xbf).map(|last| vec![0xef, 0xbf, last]).collect(),
        ),
    ]
}

#[tokio::test]
async fn section_6_5_to_23_every_sequence_of_the_stress_test_is_judged_rightly() {
    let mut cases = Vec::new();
    let mut judge = |id: String, valid: bool, bytes: &[u8]| {
        cases.push(match valid {
            true => good(id, &[whole(TEXT, bytes)], &[text(bytes)]),
            false => bad(id, &[whole(TEXT, bytes)], &[], 1007),
        });
    };
    for (section, (valid, sequences)) in (5..).zip(sequences()) {
        for (number, bytes) in (1..).zip(sequences) {
            judge(format!("6.{section}.{number}"), valid, &bytes);
        }
    }
    let kosme = "κόσμε";
    for end in 1..=kosme.len() {
        judge(
            format!("6.6.{end}"),
            kosme.is_char_boundary(end),
            &kosme.as_bytes()[..end],
        );
    }
    run(cases).await;
}

#[tokio::test]
async fn section_7_closes_are_answered_and_end_the_reading() {
    let normal = || close(1000, "");
    let large = "BAsd7&jh23".repeat(26_214);
    let mut cases = vec![
        good(
            "7.1.1",
            &[whole(TEXT, "Hello World!")],
            &[text("Hello World!")],
        ),
        bad("7.1.2", &[normal(), whole(CLOSE, "")], &[], 1000),
        bad("7.1.3", &[normal(), whole(PING, "")], &[], 1000),
        bad("7.1.4", &[normal(), whole(TEXT, "Hello World!")], &[], 1000),
        bad(
            "7.1.5",
            &[
                frame(TEXT, "fragment1"),
                normal(),
                whole(CONTINUED, "fragment2"),
            ],
            &[],
            1000,
        ),
        bad(
            "7.1.6",
            &[
                whole(TEXT, &large),
                whole(TEXT, "Hello World!"),
                normal(),
                whole(PING, ""),
            ],
            &[text(&large), text("Hello World!")],
            1000,
        ),
        case("7.3.1", &[whole(CLOSE, "")], &[], Ends::Silently),
        bad("7.3.2", &[whole(CLOSE, "a")], &[], 1002),
        bad("7.3.3", &[normal()], &[], 1000),
        bad("7.3.4", &[close(1000, "Hello World!")], &[], 1000),
        bad("7.3.5", &[close(1000, [b'*'; 123])], &[], 1000),
        bad("7.3.6", &[close(1000, [b'*'; 124])], &[], 1002),
        bad(
            "7.5.1",
            &[close(1000, b"\xce\xba\xed\xa0\x80edited")],
            &[],
            1007,
        ),
        bad("7.13.1", &[close(5000, "")], &[], 1002),
        bad("7.13.2", &[close(65_535, "")], &[], 1002),
    ];
    let may = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ];
    for (number, code) in (1..).zip(may) {
        cases.push(bad(format!("7.7.{number}"), &[close(code, "")], &[], code));
    }
    for (number, code) in (1..).zip([0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999]) {
        cases.push(bad(format!("7.9.{number}"), &[close(code, "")], &[], 1002));
    }
    run(cases).await;
}

#[tokio::test]
async fn section_9_large_messages_come_back_however_they_are_cut() {
    const MIB: usize = 1 << 20;
    let (stars, bytes) = (vec![b'*'; 16 * MIB], vec![0xfe; 16 * MIB]);
    let mut cases = Vec::new();
    let sizes = [MIB / 16, MIB / 4, MIB, 4 * MIB, 8 * MIB, 16 * MIB];
    for (number, size) in (1..).zip(sizes) {
        let (stars, bytes) = (&stars[..size], &bytes[..size]);
        cases.push(good(
            format!("9.1.{number}"),
            &[whole(TEXT, stars)],
            &[text(stars)],
        ));
        cases.push(good(
            format!("9.2.{number}"),
            &[whole(BINARY, bytes)],
            &[binary(bytes)],
        ));
    }
    let (four, four_bytes) = (&stars[..4 * MIB], &bytes[..4 * MIB]);
    let cuts = [64, 256, 1024, 4096, 16_384, 65_536, MIB / 4, MIB, 4 * MIB];
    for (number, cut) in (1..).zip(cuts) {
        let frames = fragments(TEXT, four, cut);
        cases.push(good(format!("9.3.{number}"), &frames, &[text(four)]));
        let frames = fragments(BINARY, four_bytes, cut);
        cases.push(good(
            format!("9.4.{number}"),
            &frames,
            &[binary(four_bytes)],
        ));
    }
    let (one, one_bytes) = (&stars[..MIB], &bytes[..MIB]);
    for (number, chop) in (1..).zip([64, 128, 256, 512, 1024, 2048]) {
        let case = good(format!("9.5.{number}"), &[whole(TEXT, one)], &[text(one)]);
        cases.push(case.chopped(chop));
        let case = good(
            format!("9.6.{number}"),
            &[whole(BINARY, one_bytes)],
            &[binary(one_bytes)],
        );
        cases.push(case.chopped(chop));
    }
    run(cases).await;
}

#[tokio::test]
async fn section_9_7_and_8_a_thousand_messages_come_back_one_by_one() {
    let endpoint = WebSocketEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("echo"));
    let broke = echo(endpoint).start().await.expect("it starts");
    for (number, length) in (1..).zip([0, 16, 64, 256, 1024, 4096]) {
        for (section, opcode, byte) in [(7, TEXT, b'*'), (8, BINARY, 0xfe)] {
            let mut client = WebSocket::open(address(&broke)).await;
            let payload = vec![byte; length];
            for _ in 0..1000 {
                client.write(whole(opcode, &payload)).await;
                let answer = client.next().await;
                assert_eq!(
                    answer,
                    Some((LAST | opcode, payload.clone())),
                    "case 9.{section}.{number}"
                );
            }
        }
    }
    soon(broke.stop()).await;
}

#[tokio::test]
async fn section_10_a_message_in_many_frames_comes_back_as_one() {
    let payload = [b'*'; 65_536];
    run(vec![good(
        "10.1.1",
        &fragments(TEXT, &payload, 1300),
        &[text(payload)],
    )])
    .await;
}
