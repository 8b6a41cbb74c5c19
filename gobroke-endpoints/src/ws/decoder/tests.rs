//! The rules that the Autobahn fuzzing client checks (sections 1 to 7 and 10), on the decoder alone. The numbers are
//! those of its cases.

use gobroke_core::Message;

use super::*;
use crate::{
    codec::{JsonCodec, RawCodec},
    stream::{ReceiveBudget, testing::Kept},
};

mod text;

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CONTINUED: u8 = 0x0;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame, complete.
fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    raw_frame(0x80 | opcode, payload.as_ref())
}

/// A client's frame that others continue.
fn part(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    raw_frame(opcode, payload.as_ref())
}

fn raw_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
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
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

fn close_frame(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    frame(CLOSE, [&code.to_be_bytes()[..], reason.as_ref()].concat())
}

const MAX: usize = 200_000;

fn decoder(codec: impl Codec) -> (MessageDecoder, ReceiveBudget) {
    let budget = ReceiveBudget::new(1 << 30);
    let codec: Arc<dyn Codec> = Arc::new(codec);
    let encoder = Arc::new(FrameEncoder::new(Arc::clone(&codec), None));
    let limits = Limits {
        max_message: MAX,
        budget: budget.clone(),
        control_frames: u32::MAX,
    };
    (MessageDecoder::new(codec, encoder, &limits), budget)
}

/// What came of a stream, cut into pieces of this size.
fn decoded(codec: impl Codec, stream: &[u8], piece: usize) -> (Kept, Result<(), CloseReason>) {
    let (mut decoder, budget) = decoder(codec);
    let mut kept = Kept::default();
    let mut result = Ok(());
    for piece in stream.chunks(piece) {
        result = decoder.decode(&mut piece.to_vec(), &mut kept);
        if result.is_err() {
            break;
        }
    }
    drop(decoder);
    assert_eq!(budget.used(), 0, "memory is given back");
    (kept, result)
}

/// What came of a stream, the same however it was cut.
#[track_caller]
fn decoded_any_way(stream: &[u8]) -> (Kept, Result<(), CloseReason>) {
    let (whole, result) = decoded(RawCodec::new(), stream, stream.len().max(1));
    for piece in [1, 2, 3, 5, 7, 13, 14, 64, 997] {
        // Byte for byte only where that does not take all day.
        if stream.len() / piece > 100_000 {
            continue;
        }
        let (cut, cut_result) = decoded(RawCodec::new(), stream, piece);
        assert_eq!(
            said(&whole.messages),
            said(&cut.messages),
            "pieces of {piece}"
        );
        assert_eq!(whole.answers, cut.answers, "pieces of {piece}");
        assert_eq!(result, cut_result, "pieces of {piece}");
    }
    (whole, result)
}

fn said(messages: &[Message]) -> Vec<(Format, Vec<u8>)> {
    messages
        .iter()
        .map(|message| (message.format(), message.payload().to_vec()))
        .collect()
}

fn text(text: &str) -> (Format, Vec<u8>) {
    (Format::Text, text.as_bytes().to_vec())
}

#[track_caller]
fn is_good(frames: &[Vec<u8>], messages: &[(Format, Vec<u8>)], answers: &[Vec<u8>]) {
    let (kept, result) = decoded_any_way(&frames.concat());
    assert_eq!(result, Ok(()));
    assert_eq!(said(&kept.messages), messages);
    assert_eq!(kept.answers, answers);
}

#[track_caller]
fn is_closed(frames: &[Vec<u8>], code: u16) -> Kept {
    let (kept, result) = decoded_any_way(&frames.concat());
    let reason = result.expect_err("a close");
    assert_eq!(reason.code(), code, "{reason}");
    kept
}

#[test]
fn section_1_framing_messages_of_all_lengths_in_both_kinds() {
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, MAX] {
        let payload = vec![b'*'; length];
        let bytes = vec![0xfe; length];
        is_good(&[frame(TEXT, &payload)], &[(Format::Text, payload)], &[]);
        is_good(&[frame(BINARY, &bytes)], &[(Format::Binary, bytes)], &[]);
    }
}

#[test]
fn section_2_pings_are_answered_with_their_payload_in_order() {
    is_good(&[frame(PING, "")], &[], &[vec![0x8a, 0]]);
    is_good(&[frame(PING, "Hello")], &[], &[b"\x8a\x05Hello".to_vec()]);
    is_good(&[frame(PING, [0xfe; 125])], &[], &[pong(&[0xfe; 125])]);
    let pings: Vec<_> = (0..10_u8).map(|n| frame(PING, [n])).collect();
    let pongs: Vec<_> = (0..10_u8).map(|n| vec![0x8a, 1, n]).collect();
    is_good(&pings, &[], &pongs);
    // 2.5: too long.
    is_closed(&[raw_frame(0x80 | PING, &[0xfe; 126])], 1002);
}

#[test]
fn section_2_pongs_that_nobody_asked_for_are_passed_over() {
    is_good(&[frame(PONG, "")], &[], &[]);
    is_good(
        &[frame(PONG, "x"), frame(PING, "y"), frame(PONG, "z")],
        &[],
        &[b"\x8a\x01y".to_vec()],
    );
}

#[test]
fn section_3_reserved_bits_close_the_connection_behind_what_was_good() {
    for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        let kept = is_closed(
            &[
                frame(TEXT, "good"),
                raw_frame(0x80 | bits | TEXT, b"bad"),
                frame(PING, ""),
            ],
            1002,
        );
        assert_eq!(
            (said(&kept.messages), kept.answers.len()),
            (vec![text("good")], 0)
        );
        is_closed(&[raw_frame(0x80 | bits | PING, b"bad")], 1002);
        is_closed(&[raw_frame(0x80 | bits | CLOSE, b"")], 1002);
    }
}

#[test]
fn section_4_reserved_opcodes_close_the_connection() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let kept = is_closed(
            &[frame(TEXT, "good"), frame(opcode, ""), frame(PING, "")],
            1002,
        );
        assert_eq!(
            (said(&kept.messages), kept.answers.len()),
            (vec![text("good")], 0)
        );
        is_closed(&[frame(opcode, "with a payload")], 1002);
    }
}

#[test]
fn section_5_fragments_are_joined_and_control_frames_may_stand_between() {
    is_good(
        &[part(TEXT, "ab"), frame(CONTINUED, "cd")],
        &[text("abcd")],
        &[],
    );
    is_good(
        &[part(TEXT, ""), part(CONTINUED, ""), frame(CONTINUED, "")],
        &[text("")],
        &[],
    );
    is_good(
        &[part(TEXT, ""), part(CONTINUED, "x"), frame(CONTINUED, "")],
        &[text("x")],
        &[],
    );
    is_good(
        &[
            part(BINARY, "a"),
            frame(PING, "1"),
            part(CONTINUED, "b"),
            frame(PING, "2"),
            frame(CONTINUED, "c"),
        ],
        &[(Format::Binary, b"abc".to_vec())],
        &[b"\x8a\x011".to_vec(), b"\x8a\x012".to_vec()],
    );
    is_good(
        &[
            part(TEXT, "a"),
            frame(CONTINUED, "b"),
            part(TEXT, "c"),
            frame(CONTINUED, "d"),
            frame(TEXT, "e"),
        ],
        &[text("ab"), text("cd"), text("e")],
        &[],
    );
}

#[test]
fn section_5_fragments_out_of_place_close_the_connection() {
    // 5.1, 5.2: a control frame is never cut.
    is_closed(&[part(PING, "a"), frame(CONTINUED, "b")], 1002);
    is_closed(&[part(PONG, "a"), frame(CONTINUED, "b")], 1002);
    is_closed(&[part(CLOSE, ""), frame(CONTINUED, "")], 1002);
    // 5.9 to 5.14: a continuation of nothing.
    is_closed(&[frame(CONTINUED, "a")], 1002);
    is_closed(&[part(CONTINUED, "a"), frame(TEXT, "b")], 1002);
    is_closed(
        &[
            part(TEXT, "a"),
            frame(CONTINUED, "b"),
            frame(CONTINUED, "c"),
        ],
        1002,
    );
    // 5.18: a message within another.
    is_closed(&[part(TEXT, "a"), frame(TEXT, "b")], 1002);
    is_closed(&[part(TEXT, "a"), part(BINARY, "b")], 1002);
}

#[test]
fn section_7_closes_are_told_with_their_code() {
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        is_closed(&[close_frame(code, "")], code);
        is_closed(&[close_frame(code, "why not")], code);
    }
    // 7.3.1: none is said.
    let (_, result) = decoded_any_way(&frame(CLOSE, ""));
    assert_eq!(result, Err(CloseReason::Peer(1005)));
    // 7.3.5, 7.3.6: the longest reason, and a longer one.
    is_closed(&[close_frame(1000, [b'*'; 123])], 1000);
    is_closed(&[close_frame(1000, [b'*'; 124])], 1002);
}

#[test]
fn section_7_what_follows_a_close_is_not_read() {
    let kept = is_closed(
        &[
            frame(TEXT, "a"),
            close_frame(1000, ""),
            frame(TEXT, "b"),
            frame(PING, ""),
        ],
        1000,
    );
    assert_eq!(
        (said(&kept.messages), kept.answers.len()),
        (vec![text("a")], 0)
    );
    // In the middle of a message, too.
    is_closed(
        &[
            part(TEXT, "a"),
            close_frame(1000, ""),
            frame(CONTINUED, "b"),
        ],
        1000,
    );
}

#[test]
fn section_7_wrong_closes_break_the_protocol() {
    // 7.3.2: half a code.
    is_closed(&[frame(CLOSE, "a")], 1002);
    // 7.9: codes that are not for sending.
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        is_closed(&[close_frame(code, "")], 1002);
        is_closed(&[close_frame(code, "why")], 1002);
    }
    // 7.5.1: a reason that is no text.
    is_closed(&[close_frame(1000, b"\xce\xba\xed\xa0\x80")], 1007);
}

#[test]
fn section_9_a_message_above_the_limit_is_closed_with_1009() {
    is_closed(&[frame(BINARY, vec![0; MAX + 1])], 1009);
    is_closed(&[part(BINARY, vec![0; MAX]), frame(CONTINUED, [0])], 1009);
    is_good(
        &[
            part(BINARY, vec![0; MAX - 1]),
            frame(PING, "x"),
            frame(CONTINUED, [0]),
        ],
        &[(Format::Binary, vec![0; MAX])],
        &[b"\x8a\x01x".to_vec()],
    );
}

#[test]
fn section_10_a_message_in_many_pieces_is_one() {
    let payload: Vec<u8> = (0..65_536).map(|n| b'a' + (n % 26) as u8).collect();
    let mut frames: Vec<_> = payload
        .chunks(1300)
        .map(|chunk| part(CONTINUED, chunk))
        .collect();
    frames[0][0] = TEXT;
    let last = frames.len() - 1;
    frames[last][0] |= 0x80;
    is_good(&frames, &[(Format::Text, payload)], &[]);
}

#[test]
fn a_frame_that_is_not_masked_closes_the_connection() {
    is_closed(&[b"\x81\x02hi".to_vec()], 1002);
}

#[test]
fn empty_fragments_cannot_come_for_ever() {
    let (mut decoder, _) = decoder(RawCodec::new());
    let mut kept = Kept::default();
    decoder
        .decode(&mut part(TEXT, ""), &mut kept)
        .expect("a fragment");
    let mut many = part(CONTINUED, "").repeat(1 << 14);
    let reason = (0..9)
        .find_map(|_| decoder.decode(&mut many.clone(), &mut kept).err())
        .expect("an end");
    many.clear();
    assert_eq!(reason.code(), 1008);
}

#[test]
fn memory_for_a_message_grows_with_what_came_and_is_given_back() {
    let (mut decoder, budget) = decoder(RawCodec::new());
    let mut kept = Kept::default();
    let mut announced = frame(BINARY, vec![0; MAX]);
    announced.truncate(20);
    decoder
        .decode(&mut announced, &mut kept)
        .expect("a beginning");
    assert!((1..=1024).contains(&budget.used()), "{}", budget.used());
    assert_eq!(
        (decoder.begun(), decoder.end()),
        (Some(0), CloseReason::ConnectionLost)
    );
    decoder
        .decode(&mut [0; MAX][6..], &mut kept)
        .expect("the rest");
    assert_eq!(
        (kept.messages.len(), budget.used(), decoder.begun()),
        (1, 0, None)
    );
}

#[test]
fn a_codec_of_text_takes_no_binary() {
    let (kept, result) = decoded(
        JsonCodec::to_logic("chat"),
        &frame(BINARY, r#"{"payload":1}"#),
        1000,
    );
    assert_eq!(
        (kept.messages.len(), result.expect_err("a close").code()),
        (0, 1003)
    );
}

#[test]
fn a_bad_frame_of_the_codec_is_told_and_the_connection_stays() {
    let frames = [
        frame(TEXT, "[]"),
        frame(TEXT, r#"{"ping":{}}"#),
        frame(TEXT, r#"{"payload":1}"#),
    ]
    .concat();
    let (kept, result) = decoded(JsonCodec::to_logic("chat"), &frames, 1000);
    assert_eq!(result, Ok(()));
    assert_eq!((kept.errors[0].code(), kept.errors.len()), ("bad_frame", 1));
    assert_eq!(kept.answers, [b"\x81\x0b{\"pong\":{}}".to_vec()]);
    assert_eq!(said(&kept.messages), [text("1")]);
}
