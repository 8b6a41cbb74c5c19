//! What the Autobahn fuzzing client asks of a server, over real sockets. The numbers are those of its cases; 6.* are in
//! `text.rs`, and 12.* and 13.* (compression) in `../deflate.rs`.

#![cfg(feature = "ws")]

mod case;
#[path = "../common/mod.rs"]
mod common;
mod text;

use common::{
    address, echo, soon,
    websocket::{BINARY, CLOSE, CONTINUED, LAST, PING, PONG, TEXT, WebSocket, close, frame},
};
use gobroke_endpoints::{RawCodec, WebSocketEndpoint};

use self::case::{Ends, bad, binary, case, fragments, good, pong, run, text, whole};

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
