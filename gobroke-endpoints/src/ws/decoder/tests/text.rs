//! Section 6: text is UTF-8.

use super::*;

#[test]
fn section_6_text_is_utf_8_wherever_it_is_cut() {
    let greek =
        "κόσμε\u{10ffff}\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{fffd}Hello-µ@ßöäüàá-UTF-8!!";
    is_good(&[frame(TEXT, greek)], &[text(greek)], &[]);
    for cut in 0..=greek.len() {
        let (first, second) = greek.as_bytes().split_at(cut);
        is_good(
            &[part(TEXT, first), frame(CONTINUED, second)],
            &[text(greek)],
            &[],
        );
    }
    let single: Vec<_> = greek.bytes().map(|byte| part(CONTINUED, [byte])).collect();
    is_good(
        &[vec![part(TEXT, "")], single, vec![frame(CONTINUED, "")]].concat(),
        &[text(greek)],
        &[],
    );
}

#[test]
fn section_6_what_is_not_utf_8_closes_the_connection() {
    let cases: [&[u8]; 20] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\x80",
        b"\xbf",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xc0\x80",
        b"\xe0\x80\xaf",
        b"\xe0\x9f\xbf",
        b"\xf0\x80\x80\xaf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"good\xce",
        b"good\xf0\x9f\x98",
    ];
    for bytes in cases {
        is_closed(&[frame(TEXT, bytes)], 1007);
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            is_closed(&[part(TEXT, first), frame(CONTINUED, second)], 1007);
        }
        // Binary may be anything.
        is_good(
            &[frame(BINARY, bytes)],
            &[(Format::Binary, bytes.to_vec())],
            &[],
        );
    }
}

#[test]
fn section_6_4_a_wrong_byte_is_told_before_the_message_is_complete() {
    let (mut decoder, _) = decoder(RawCodec::new());
    let mut kept = Kept::default();
    decoder
        .decode(
            &mut part(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4"),
            &mut kept,
        )
        .expect("good so far");
    let reason = decoder
        .decode(&mut part(CONTINUED, b"\x90"), &mut kept)
        .expect_err("no such character");
    assert_eq!(reason.code(), 1007);
    // And before the frame is.
    let (mut decoder, _) = super::tests::decoder(RawCodec::new());
    let mut cut = frame(TEXT, b"\xf4\x90\x80\x80 and more");
    cut.truncate(6 + 2);
    assert_eq!(
        decoder
            .decode(&mut cut, &mut kept)
            .expect_err("no such character")
            .code(),
        1007
    );
}
