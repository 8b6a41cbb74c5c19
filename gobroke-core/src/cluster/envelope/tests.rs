use std::borrow::Cow;

use serde_json::json;

use super::{bytes::put_bytes, *};
use crate::{
    ClientId, CloseReason, Format, Message, Name, Source, Target, Targets,
    cluster::{Registration, seed::Seed},
    delivery::Overflow,
};

fn origin() -> InstanceId {
    InstanceId::new("instance-1", Incarnation::new(1_700_000_000_000_000, 7))
}

fn writer() -> Writer {
    Writer {
        id: origin(),
        version: VERSION,
    }
}

/// Anything that can travel, by seed.
fn content(seed: &mut Seed) -> Content {
    let names = |seed: &mut Seed| {
        (0..seed.below(4))
            .map(|i| Name::from(format!("group-{i}")))
            .collect()
    };
    match seed.below(8) {
        0 => Content::Vain(names(seed)),
        1 => Content::Gained(names(seed)),
        2 => Content::Forget,
        3 => Content::Replaced {
            client: ClientId::new(),
            registration: Registration::new(seed.next(), 3),
        },
        4 => Content::NotHere(cargo(seed)),
        _ => Content::Cargo(cargo(seed)),
    }
}

fn cargo(seed: &mut Seed) -> Cargo {
    let load = if seed.per_mille(600) {
        Load::Message(message(seed))
    } else {
        Load::Command {
            source: source(seed),
            client: ClientId::new(),
            command: command(seed),
        }
    };
    Cargo {
        redirected: seed.per_mille(500),
        native: seed.per_mille(500),
        load,
    }
}

fn source(seed: &mut Seed) -> Source {
    match seed.below(3) {
        0 => Source::Server,
        1 => Source::Client(ClientId::new()),
        _ => Source::Logic("chat".into()),
    }
}

fn message(seed: &mut Seed) -> Message {
    let mut message = Message::new(vec![b'x'; seed.below(300) as usize]);
    message.set_source(source(seed));
    message.set_hops(seed.below(33) as u8);
    let mut list = Vec::new();
    if seed.per_mille(300) {
        list.push(Target::All);
    }
    list.extend((0..seed.below(4)).map(|_| Target::Client(ClientId::new())));
    list.extend((0..seed.below(3)).map(|i| Target::Group(format!("group-{i}").into())));
    list.extend((0..seed.below(2)).map(|i| Target::Logic(format!("logic-{i}").into())));
    let except = (0..seed.below(3)).map(|_| ClientId::new()).collect();
    *message.targets_mut() = Targets::from_lists(list, except);
    if seed.per_mille(300) {
        message = message.with_metadata("trace", json!({"id": 7, "on": [true, null]}));
    }
    if seed.per_mille(300) {
        message = message.with_tag("priority", "high").with_tag("ü", 1.5);
    }
    match seed.below(6) {
        0 => message.with_overflow(Overflow::Disconnect),
        1 => message.with_overflow(Overflow::DropOldest),
        2 => message.with_overflow(Overflow::DropNewest),
        3 => message.with_format(Format::Text),
        _ => message,
    }
}

fn command(seed: &mut Seed) -> Command {
    match seed.below(5) {
        0 => Command::Join("lobby".into()),
        1 => Command::Leave("lobby".into()),
        2 => Command::SetMetadata {
            key: "name".into(),
            value: Some(json!(["Ann", 3])),
        },
        3 => Command::SetMetadata {
            key: "name".into(),
            value: None,
        },
        _ => Command::Disconnect(reasons()[seed.below(reasons().len() as u64) as usize].clone()),
    }
}

fn reasons() -> Vec<CloseReason> {
    let why = || Cow::Borrowed("why not");
    vec![
        CloseReason::Normal,
        CloseReason::GoingAway,
        CloseReason::ProtocolError(why()),
        CloseReason::Unsupported(why()),
        CloseReason::InvalidPayload(why()),
        CloseReason::PolicyViolation(why()),
        CloseReason::TooBig,
        CloseReason::Internal,
        CloseReason::Busy,
        CloseReason::SlowConsumer,
        CloseReason::Idle,
        CloseReason::Kicked(why()),
        CloseReason::Replaced,
        CloseReason::Refused(why()),
        CloseReason::TokenExpired,
        CloseReason::ConnectionLost,
        CloseReason::Peer(4321),
    ]
}

fn encoded(content: &Content) -> Bytes {
    let mut out = Vec::new();
    content.encode(&mut out);
    out.into()
}

/// A frame of any kind, by seed.
fn frame(seed: &mut Seed) -> Bytes {
    let mut at = |end| Position {
        number: seed.below(end),
        cargo: seed.below(end),
    };
    let (first, second, third) = (at(100), at(1 << 40), at(3));
    let ranges: Vec<_> = (0..seed.below(4))
        .map(|i| (i * 10 + 1, i * 10 + 5))
        .collect();
    let place = Position {
        number: second.number + 1,
        ..second
    };
    match seed.below(6) {
        0 => hello(&writer()),
        1 => gone(&writer(), seed.next(), Line::All, first.number),
        2 => repair(&writer(), seed.next(), Line::Pair, &ranges),
        3 => {
            let base = seed.per_mille(500).then_some(Base {
                all: third,
                pair: 9,
            });
            let told = Mark {
                question: seed.per_mille(500),
                answer: [None, Some(Line::Pair), Some(Line::All)][seed.below(3) as usize],
                pair: first,
                all: second,
                base,
                seen_pair: third,
                seen_all: second,
            };
            mark(&writer(), seed.next(), &told)
        }
        kind => {
            let content = content(seed);
            let (target, after) = match kind {
                4 => (Some(seed.next()), After::All(first.number)),
                _ => (None, After::Pairs(ranges)),
            };
            numbered(
                &writer(),
                target,
                place,
                content.is_cargo(),
                &after,
                |out| content.encode(out),
            )
        }
    }
}

#[test]
fn every_content_comes_back_as_it_was() {
    let mut seed = Seed::new(1);
    for _ in 0..5_000 {
        let content = content(&mut seed);
        let bytes = encoded(&content);
        let read = Content::decode(&bytes).unwrap();
        // A second writing shows all that travels; what is printed shows all that is there.
        assert_eq!(encoded(&read), bytes, "{content:?}");
        assert_eq!(shown(&read), shown(&content));
    }
}

/// All of it in words.
fn shown(content: &Content) -> String {
    let (Content::Cargo(cargo) | Content::NotHere(cargo)) = content else {
        return format!("{content:?}");
    };
    let Load::Message(message) = &cargo.load else {
        return format!("{content:?}");
    };
    let except: Vec<_> = message.targets().excluded().collect();
    format!(
        "{} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {except:?}",
        cargo.redirected,
        cargo.native,
        message.id(),
        message.source(),
        message.hops(),
        message.format(),
        message.overflow(),
        message.metadata(),
        message.tags(),
        message.payload(),
        message.targets().as_slice(),
    )
}

#[test]
fn every_close_reason_travels() {
    for reason in reasons() {
        let content = Content::Cargo(Cargo {
            redirected: false,
            native: true,
            load: Load::Command {
                source: Source::Server,
                client: ClientId::new(),
                command: Command::Disconnect(reason.clone()),
            },
        });
        let Ok(Content::Cargo(Cargo {
            load: Load::Command { command, .. },
            ..
        })) = Content::decode(&encoded(&content))
        else {
            panic!("{reason:?} is no command any more")
        };
        assert_eq!(command, Command::Disconnect(reason));
    }
}

#[test]
fn a_frame_says_who_sent_it_and_where_it_belongs() {
    let place = Position {
        number: 300,
        cargo: 200,
    };
    let after = After::Pairs(vec![(7, 9), (8, 1 << 40)]);
    let bytes = numbered(&writer(), None, place, true, &after, |out| {
        put_bytes(out, b"abc");
    });
    let frame = Frame::decode(&bytes).unwrap();
    assert_eq!(
        (frame.origin, frame.incarnation),
        ("instance-1", origin().incarnation)
    );
    let Body::Numbered(read) = frame.body else {
        panic!("it has a number")
    };
    assert_eq!(
        (read.line, read.number, read.before, read.cargo),
        (Line::All, 300, 200, true)
    );
    assert_eq!(
        (read.after, read.content.as_ref()),
        (after, b"\x03abc".as_slice())
    );
}

#[test]
fn a_small_message_stays_small() {
    let message = Message::new(vec![0; 128]).to_client(ClientId::new());
    let content = Content::Cargo(Cargo {
        redirected: false,
        native: true,
        load: Load::Message(message),
    });
    let place = Position {
        number: 1_000_000,
        cargo: 1_000_000,
    };
    let bytes = numbered(&writer(), Some(1), place, true, &After::All(0), |out| {
        content.encode(out);
    });
    assert!(
        bytes.len() <= 128 + 96,
        "{} bytes for a payload of 128",
        bytes.len()
    );
}

#[test]
fn what_is_cut_off_or_too_long_is_an_error_that_says_where() {
    let mut seed = Seed::new(2);
    for _ in 0..300 {
        let bytes = encoded(&content(&mut seed));
        for length in 0..bytes.len() {
            let error = Content::decode(&bytes.slice(..length))
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("byte "), "{error}");
        }
        let longer = Bytes::from([&bytes[..], b"!"].concat());
        Content::decode(&longer).unwrap_err();
    }
}

#[test]
fn no_bytes_make_it_panic_or_allocate_what_they_announce() {
    let mut seed = Seed::new(3);
    for _ in 0..20_000 {
        let noise: Vec<u8> = (0..seed.below(200)).map(|_| seed.next() as u8).collect();
        let mut bytes = if seed.per_mille(300) {
            noise
        } else {
            frame(&mut seed).to_vec()
        };
        for _ in 0..seed.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = seed.below(bytes.len() as u64) as usize;
            match seed.below(4) {
                0 => bytes[at] = seed.next() as u8,
                1 => bytes[at] ^= 1 << seed.below(8),
                2 => bytes.truncate(at),
                _ => bytes.insert(at, 0xff),
            }
        }
        let bytes = Bytes::from(bytes);
        let content = match Frame::decode(&bytes) {
            Ok(Frame {
                body: Body::Numbered(numbered),
                ..
            }) => numbered.content,
            _ => bytes,
        };
        // What can be read can be written and read again.
        if let Ok(content) = Content::decode(&content) {
            Content::decode(&encoded(&content)).unwrap();
        }
    }
    // The largest list of clients that a few bytes can announce.
    let mut bytes = vec![VERSION, REPAIR];
    put_instance(&mut bytes, &origin());
    bytes.extend_from_slice(&[0; 8]);
    bytes.push(PAIR);
    put_varint(&mut bytes, u64::MAX);
    let error = Frame::decode(&bytes.into()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("ranges: 18446744073709551615 bytes announced, 0 left"),
        "{error}"
    );
}

#[test]
fn another_version_is_refused_by_name() {
    let mut bytes = hello(&writer()).to_vec();
    bytes[0] = 9;
    let error = Frame::decode(&bytes.into()).unwrap_err();
    assert_eq!(error.to_string(), "byte 1: version: 9 is not known here");
}

#[test]
fn a_frame_says_in_which_version_it_is_written() {
    let older = Writer {
        version: 0,
        ..writer()
    };
    assert_eq!((hello(&older)[0], hello(&writer())[0]), (0, VERSION));
}

#[test]
fn deep_json_is_an_error() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let mut bytes = vec![1, 8, 0];
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&[0, 0]);
    put_bytes(&mut bytes, deep.as_bytes());
    put_bytes(&mut bytes, b"payload");
    let error = Content::decode(&bytes.into()).unwrap_err().to_string();
    assert!(error.contains("metadata: not a JSON object"), "{error}");
}
