//! Section 6: text is UTF-8.

use crate::{
    case::{bad, fragments, good, run, text, whole},
    common::websocket::{CONTINUED, LAST, TEXT, frame},
};

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
