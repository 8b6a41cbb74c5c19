//! What a client of the JSON codec reads.

use base64::{Engine, engine::general_purpose::STANDARD};
use gobroke_core::{ClientId, CloseReason, ErrorFrame, Message, MessageId, Name, Source};
use serde::{Serialize, de::IgnoredAny};

pub(super) fn message(message: &Message, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"id":"#);
    message_id(message.id(), out);
    match message.source() {
        Source::Client(id) => {
            out.extend_from_slice(br#","from":{"client":"#);
            client_id(*id, out);
            out.push(b'}');
        }
        Source::Logic(name) => {
            out.extend_from_slice(br#","from":{"logic":"#);
            json(name, out);
            out.push(b'}');
        }
        Source::Server => {}
    }
    payload(message.payload(), out);
    if !message.metadata().is_empty() {
        out.extend_from_slice(br#","metadata":"#);
        json(message.metadata(), out);
    }
    out.push(b'}');
}

pub(super) fn welcome(client: ClientId, instance: &Name, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"welcome":{"client":"#);
    client_id(client, out);
    out.extend_from_slice(br#","instance":"#);
    json(instance, out);
    out.extend_from_slice(b"}}");
}

pub(super) fn error(error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"error":{"code":"#);
    json(error.code, out);
    out.extend_from_slice(br#","message":"#);
    json(error.message, out);
    if let Some(id) = error.id {
        out.extend_from_slice(br#","id":"#);
        message_id(id, out);
    }
    out.extend_from_slice(b"}}");
}

pub(super) fn close(reason: &CloseReason, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"close":{"code":"#);
    json(&reason.code(), out);
    out.extend_from_slice(br#","reason":"#);
    json(reason.text(), out);
    out.extend_from_slice(b"}}");
}

/// The payload as it is where it is one JSON value in UTF-8, else in base64. What is not checked here could end the
/// frame and begin another one in its place.
fn payload(payload: &[u8], out: &mut Vec<u8>) {
    let text = std::str::from_utf8(payload)
        .ok()
        .filter(|text| is_json(text));
    match text {
        Some(text) => {
            out.extend_from_slice(br#","payload":"#);
            out.extend_from_slice(text.as_bytes());
        }
        None => {
            out.extend_from_slice(br#","payload_base64":""#);
            let start = out.len();
            // Four characters for each three bytes begun.
            out.resize(start + payload.len().div_ceil(3) * 4, 0);
            let written = STANDARD
                .encode_slice(payload, &mut out[start..])
                .unwrap_or(0);
            out.truncate(start + written);
            out.push(b'"');
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn message_id(id: MessageId, out: &mut Vec<u8>) {
    uuid(id.as_uuid().hyphenated().encode_lower(&mut [0; 36]), out);
}

fn client_id(id: ClientId, out: &mut Vec<u8>) {
    uuid(id.as_uuid().hyphenated().encode_lower(&mut [0; 36]), out);
}

fn uuid(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Appends a value that always has a JSON form: a text, a number, a map with text keys.
fn json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use gobroke_core::Message;
    use serde_json::{Value, json};

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = b"earlier".to_vec();
        write(&mut out);
        assert_eq!(&out[..7], b"earlier");
        serde_json::from_slice(&out[7..]).expect("JSON")
    }

    #[test]
    fn a_payload_that_is_json_goes_out_as_it_came() {
        let mut out = Vec::new();
        message(&Message::new(r#"{"a" : 1.50}"#), &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.ends_with(r#","payload":{"a" : 1.50}}"#), "{text}");
    }

    #[test]
    fn a_payload_that_is_not_one_json_value_goes_out_as_base64() {
        for payload in [
            &b"hello"[..],
            b"",
            b"1,\"x\":2",
            b"\"\xff\"",
            b"{}{}",
            b"[1",
            b"\"a\nb\"",
        ] {
            let value = written(|out| message(&Message::new(payload.to_vec()), out));
            assert_eq!(
                value["payload_base64"],
                STANDARD.encode(payload),
                "{payload:?}"
            );
            assert_eq!(value.get("payload"), None);
        }
    }

    #[test]
    fn a_message_says_its_id_and_metadata() {
        let sent = Message::new("1").with_metadata("k\"", "v");
        let value = written(|out| message(&sent, out));
        assert_eq!(
            value,
            json!({"id": sent.id().to_string(), "payload": 1, "metadata": {"k\"": "v"}})
        );
    }

    #[test]
    fn names_and_texts_are_escaped() {
        let id = ClientId::new();
        let value = written(|out| welcome(id, &"a\"b".into(), out));
        assert_eq!(
            value,
            json!({"welcome": {"client": id.to_string(), "instance": "a\"b"}})
        );
        let about = Some(MessageId::new());
        let frame = ErrorFrame {
            code: "c",
            message: "\"
",
            id: about,
        };
        let value = written(|out| error(&frame, out));
        assert_eq!(
            value,
            json!({"error": {"code": "c", "message": "\"\n", "id": about.map(|id| id.to_string())}})
        );
        let value = written(|out| close(&CloseReason::TooBig, out));
        assert_eq!(
            value,
            json!({"close": {"code": 1009, "reason": "message too big"}})
        );
    }
}
