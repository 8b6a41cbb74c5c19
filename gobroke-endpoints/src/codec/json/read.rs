//! What a client of the JSON codec writes.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use gobroke_core::{Format, Message, MessageId, Metadata, Name, Target, Targets};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::JsonCodec;
use crate::codec::{Frame, FrameError, Inbound, payload};

/// A frame whose fields are found but not looked into: so one that is wrong can be named, with the id of the message.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    to: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload_base64: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ping: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pong: Option<&'a RawValue>,
}

/// A field that is there, if only with `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct To {
    logic: Vec<String>,
    clients: Vec<String>,
    groups: Vec<String>,
}

impl JsonCodec {
    pub(super) fn read(&self, frame: Frame<'_>) -> Result<Inbound, FrameError> {
        let text = frame
            .text()
            .ok_or_else(|| FrameError::bad_frame("the frame is not UTF-8; write JSON in UTF-8"))?;
        let fields = fields(text)?;
        if fields.payload.is_none() && fields.payload_base64.is_none() {
            if fields.ping.is_some() {
                return Ok(Inbound::Ping);
            }
            if fields.pong.is_some() {
                return Ok(Inbound::Pong);
            }
        }
        let id = fields.id.map(id).transpose()?;
        self.message(&fields, id)
            .map(Inbound::Message)
            .map_err(|error| error.about(id))
    }

    fn message(&self, fields: &Fields<'_>, id: Option<MessageId>) -> Result<Message, FrameError> {
        let (payload, format) = payload(fields)?;
        let mut message = Message::new(payload).with_format(format);
        if let Some(id) = id {
            message = message.with_message_id(id);
        }
        match fields.to {
            Some(to) => *message.targets_mut() = self.targets(to)?,
            None => {
                if let Some(logic) = &self.default_logic {
                    message.targets_mut().add(Target::Logic(logic.clone()));
                }
            }
        }
        if let Some(metadata) = fields.metadata {
            *message.metadata_mut() = object::<Metadata>(metadata).map_err(|_| {
                FrameError::bad_frame(
                    r#""metadata" must be a JSON object, such as {"trace": 7}; or leave it out"#,
                )
            })?;
        }
        Ok(message)
    }

    fn targets(&self, to: &RawValue) -> Result<Targets, FrameError> {
        let to: To = object(to).map_err(|why| {
            FrameError::bad_frame(format!(
                r#""to" must be an object with lists of texts, such as {{"logic": ["chat"]}} ({why}); or leave it out"#
            ))
        })?;
        let count = to.logic.len() + to.clients.len() + to.groups.len();
        if count == 0 {
            return Err(FrameError::bad_frame(
                r#""to" names nobody: add "logic", "clients" or "groups", or leave "to" out"#,
            ));
        }
        if count > self.max_targets {
            return Err(FrameError::not_allowed(format!(
                r#""to" names {count} targets, and {} are the most: send several frames, or address a group"#,
                self.max_targets
            )));
        }
        let mut targets = Targets::default();
        for logic in &to.logic {
            targets.add(Target::Logic(self.allowed_logic(logic)?));
        }
        if !self.clients && !to.clients.is_empty() {
            return Err(FrameError::not_allowed(
                "clients may not be addressed here; address a logic module that passes it on",
            ));
        }
        for client in &to.clients {
            targets.add(Target::Client(client.parse().map_err(|_| {
                FrameError::bad_frame(format!(
                    "{} in \"to.clients\" is not a client's id, a UUID",
                    excerpt(client)
                ))
            })?));
        }
        if !self.groups && !to.groups.is_empty() {
            return Err(FrameError::not_allowed(
                "groups may not be addressed here; address a logic module that passes it on",
            ));
        }
        for group in to.groups {
            targets.add(Target::Group(group.into()));
        }
        Ok(targets)
    }

    fn allowed_logic(&self, logic: &str) -> Result<Name, FrameError> {
        self.logic
            .iter()
            .find(|allowed| **allowed == *logic)
            .cloned()
            .ok_or_else(|| {
                let names: Vec<&str> = self.logic.iter().map(Name::as_str).collect();
                FrameError::not_allowed(match names.as_slice() {
                    [] => "no logic module may be addressed here; leave \"to\" out".to_owned(),
                    names => format!(
                        "logic module {} may not be addressed here; these may: {}",
                        excerpt(logic),
                        names.join(", ")
                    ),
                })
            })
    }
}

fn fields(text: &str) -> Result<Fields<'_>, FrameError> {
    // A struct would be read from an array as well.
    let kind = match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => return serde_json::from_str(text).map_err(|why| not_json(&why)),
        None => "it is empty",
        Some(_) => match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => "it is another kind of value",
            Err(why) => return Err(not_json(&why)),
        },
    };
    Err(FrameError::bad_frame(format!(
        r#"a frame must be a JSON object, such as {{"payload": "hello"}}; {kind}"#
    )))
}

fn not_json(why: &serde_json::Error) -> FrameError {
    FrameError::bad_frame(format!(
        r#"the frame is not a JSON object such as {{"payload": "hello"}}: {why}"#
    ))
}

fn id(raw: &RawValue) -> Result<MessageId, FrameError> {
    let text = serde_json::from_str::<String>(raw.get()).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        FrameError::bad_frame(format!(
            r#""id" must be a UUID in a text, and {} is none; or leave it out, and the message gets one"#,
            excerpt(raw.get())
        ))
    })
}

fn payload(fields: &Fields<'_>) -> Result<(Bytes, Format), FrameError> {
    match (fields.payload, fields.payload_base64) {
        (Some(json), None) => Ok((payload::copy(json.get().as_bytes()), Format::Text)),
        (None, Some(base64)) => {
            let bytes = serde_json::from_str::<String>(base64.get()).ok();
            let bytes = bytes.and_then(|text| STANDARD.decode(text).ok()).ok_or_else(|| {
                FrameError::bad_frame(r#""payload_base64" must be base64 with padding (RFC 4648, section 4) in a text"#)
            })?;
            Ok((bytes.into(), Format::Binary))
        }
        (None, None) => Err(FrameError::bad_frame(
            r#""payload" is missing: write what you send there, any JSON value, such as {"payload": "hello"}"#,
        )),
        (Some(_), Some(_)) => Err(FrameError::bad_frame(
            r#"a frame has "payload" or "payload_base64", and this one has both"#,
        )),
    }
}

/// Reads an object, and nothing else: a struct would be read from an array as well.
fn object<T: DeserializeOwned>(raw: &RawValue) -> Result<T, String> {
    if !raw.get().starts_with('{') {
        return Err("it is not an object".to_owned());
    }
    serde_json::from_str(raw.get()).map_err(|why| shortened(&why.to_string()).to_owned())
}

/// What the client wrote, cut to what fits in an error message.
fn excerpt(text: &str) -> String {
    format!("{:?}", shortened(text))
}

/// What it begins with, a line at most: what a client wrote may be long, and stands in errors of `serde_json` too.
fn shortened(text: &str) -> &str {
    const LONGEST: usize = 80;
    text.char_indices()
        .nth(LONGEST)
        .map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use gobroke_core::ClientId;

    use super::*;

    fn read(codec: &JsonCodec, text: &str) -> Result<Message, FrameError> {
        codec.read(Frame::Text(text)).map(|inbound| match inbound {
            Inbound::Message(message) => message,
            other => panic!("{other:?}"),
        })
    }

    fn open() -> JsonCodec {
        JsonCodec::to_logic("chat")
            .allow_logic(["rooms"])
            .allow_clients(true)
            .allow_groups(true)
    }

    #[test]
    fn a_frame_with_a_payload_alone_goes_to_the_default_logic() {
        let message = read(
            &JsonCodec::to_logic("chat"),
            r#" {"payload" : {"a": [1, 2.50]} } "#,
        )
        .expect("a message");
        assert_eq!(message.payload().as_ref(), br#"{"a": [1, 2.50]}"#);
        assert_eq!(message.format(), Format::Text);
        assert_eq!(
            message.targets().as_slice(),
            &[Target::Logic("chat".into())]
        );
        assert!(message.metadata().is_empty());
    }

    #[test]
    fn everything_that_a_frame_says_is_in_the_message() {
        let (id, client) = (MessageId::new(), ClientId::new());
        let text = format!(
            r#"{{"id":"{id}","to":{{"logic":["rooms","chat"],"clients":["{client}"],"groups":["l\u0061b"]}},
                "payload":null,"metadata":{{"k":[1]}},"other":{{}}}}"#
        );
        let message = read(&open(), &text).expect("a message");
        assert_eq!(message.id(), id);
        let targets = [
            Target::Logic("rooms".into()),
            Target::Logic("chat".into()),
            Target::Client(client),
            Target::Group("lab".into()),
        ];
        assert_eq!(message.targets().as_slice(), &targets);
        assert_eq!(message.payload().as_ref(), b"null");
        assert_eq!(message.metadata()["k"], serde_json::json!([1]));
    }

    #[test]
    fn bytes_come_as_base64() {
        let message = read(&open(), r#"{"payload_base64":"/wA="}"#).expect("a message");
        assert_eq!(
            (message.payload().as_ref(), message.format()),
            (&[0xff, 0][..], Format::Binary)
        );
    }

    #[test]
    fn pings_and_pongs_are_told_from_messages() {
        assert!(matches!(
            open().read(Frame::Text(r#"{"ping":{}}"#)),
            Ok(Inbound::Ping)
        ));
        assert!(matches!(
            open().read(Frame::Binary(br#"{"pong":null}"#)),
            Ok(Inbound::Pong)
        ));
        assert!(matches!(
            open().read(Frame::Text(r#"{"ping":{},"payload":1}"#)),
            Ok(Inbound::Message(_))
        ));
    }

    #[test]
    fn what_is_no_frame_is_told_with_what_to_do() {
        let cases = [
            ("", "it is empty"),
            ("  ", "it is empty"),
            ("[]", "another kind of value"),
            (r#"["x", null, 1]"#, "another kind of value"),
            ("7", "another kind of value"),
            (r#""text""#, "another kind of value"),
            ("null", "another kind of value"),
            ("hello", "not a JSON object"),
            ("{", "not a JSON object"),
            (r#"{"payload":1"#, "not a JSON object"),
            (r#"{"payload":1} x"#, "not a JSON object"),
            (r#"{"payload":1}{"payload":2}"#, "not a JSON object"),
            (r#"{"payload":1,"payload":2}"#, "duplicate field"),
            (r#"{"payload":01}"#, "not a JSON object"),
            ("{}", "\"payload\" is missing"),
            (r#"{"playload":1}"#, "\"payload\" is missing"),
            (r#"{"payload":1,"payload_base64":""}"#, "has both"),
            (r#"{"payload_base64":"!"}"#, "must be base64"),
            (r#"{"payload_base64":7}"#, "must be base64"),
            (r#"{"id":7,"payload":1}"#, "\"id\" must be a UUID"),
            (r#"{"id":"x","payload":1}"#, "\"id\" must be a UUID"),
            (r#"{"id":null,"payload":1}"#, "\"id\" must be a UUID"),
            (r#"{"to":[],"payload":1}"#, "not an object"),
            (r#"{"to":null,"payload":1}"#, "not an object"),
            (r#"{"to":{},"payload":1}"#, "names nobody"),
            (r#"{"to":{"logic":"chat"},"payload":1}"#, "lists of texts"),
            (r#"{"to":{"logic":[1]},"payload":1}"#, "lists of texts"),
            (
                r#"{"to":{"clients":["x"]},"payload":1}"#,
                "not a client's id",
            ),
            (r#"{"metadata":[],"payload":1}"#, "\"metadata\" must be"),
        ];
        for (frame, says) in cases {
            let error = read(&open(), frame).expect_err(frame);
            assert_eq!(error.code(), "bad_frame", "{frame}");
            assert!(
                error.message().contains(says),
                "{frame}: {}",
                error.message()
            );
        }
        let error = open()
            .read(Frame::Binary(b"{\"payload\":\"\xff\"}"))
            .expect_err("not UTF-8");
        assert_eq!(error.code(), "bad_frame");
    }

    #[test]
    fn what_is_not_listed_may_not_be_addressed() {
        let closed = JsonCodec::to_logic("chat");
        let client = ClientId::new();
        let many = vec![r#""g""#; 257].join(",");
        let cases = [
            (
                &closed,
                r#"{"logic":["rooms"]}"#.to_owned(),
                "these may: chat",
            ),
            (
                &closed,
                r#"{"logic":["chat", "rooms"]}"#.to_owned(),
                "these may: chat",
            ),
            (
                &closed,
                format!(r#"{{"clients":["{client}"]}}"#),
                "clients may not",
            ),
            (
                &closed,
                r#"{"groups":["lobby"]}"#.to_owned(),
                "groups may not",
            ),
            (
                &open(),
                r#"{"logic":["admin"]}"#.to_owned(),
                "these may: chat, rooms",
            ),
            (
                &JsonCodec::new(),
                r#"{"logic":["chat"]}"#.to_owned(),
                "no logic module",
            ),
            (
                &open(),
                format!(r#"{{"groups":[{many}]}}"#),
                "256 are the most",
            ),
        ];
        for (codec, to, says) in cases {
            let error = read(codec, &format!(r#"{{"payload":1,"to":{to}}}"#)).expect_err(&to);
            assert_eq!(error.code(), "not_allowed", "{to}");
            assert!(error.message().contains(says), "{to}: {}", error.message());
        }
    }

    #[test]
    fn an_error_names_the_message_where_its_id_was_good() {
        let id = MessageId::new();
        let error = read(&open(), &format!(r#"{{"id":"{id}","to":3,"payload":1}}"#))
            .expect_err("a bad frame");
        assert_eq!(error.id(), Some(id));
    }

    #[test]
    fn an_error_repeats_no_more_than_a_line_of_the_frame() {
        let long = "ü".repeat(5000);
        let fields = [
            format!(r#""id":"{long}""#),
            format!(r#""to":{{"logic":"{long}"}}"#),
            format!(r#""to":{{"logic":["{long}"]}}"#),
            format!(r#""to":{{"clients":["{long}"]}}"#),
        ];
        for field in fields {
            let error =
                read(&open(), &format!(r#"{{{field},"payload":1}}"#)).expect_err("a bad frame");
            assert!(error.message().len() < 400, "{}", error.message());
        }
    }
}
