//! Events to a client: [`EventEncoder`].

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use gobroke_core::{Client, CloseReason, Encoder, ErrorFrame, Format, Message, Name};
use serde::Serialize;

use crate::codec::Codec;

/// Puts what the codec writes into events (of the HTML standard, section 9.2). Their ids are each session's own.
#[derive(Debug)]
pub(super) struct EventEncoder {
    codec: Arc<dyn Codec>,
}

impl EventEncoder {
    pub(super) fn new(codec: Arc<dyn Codec>) -> Self {
        Self { codec }
    }

    /// Appends an event with what `write` appends, and none where that is nothing.
    fn own(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        write(&mut frame);
        if !frame.is_empty() {
            self.event(&frame, out);
        }
    }

    fn event(&self, frame: &[u8], out: &mut Vec<u8>) {
        match std::str::from_utf8(frame) {
            // The codec's text has its own syntax, to which one end of a line is as good as another.
            Ok(text) if self.codec.format() == Some(Format::Text) || !text.contains('\r') => {
                lines(text, out);
            }
            // An event has no other bytes, and no carriage return that would come back as one.
            _ => {
                out.extend_from_slice(b"event: binary\n");
                lines(&STANDARD.encode(frame), out);
            }
        }
    }
}

impl Encoder for EventEncoder {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        let mut frame = Vec::with_capacity(self.codec.size_hint(message));
        self.codec.encode(message, &mut frame);
        self.event(&frame, out);
    }

    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        self.own(out, |out| self.codec.welcome(client, instance, out));
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        self.own(out, |out| self.codec.error(error, out));
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Close<'a> {
            code: u16,
            reason: &'a str,
        }
        let close = Close {
            code: reason.code(),
            reason: reason.text(),
        };
        out.extend_from_slice(b"event: close\n");
        // A number and a text: that does not fail.
        lines(&serde_json::to_string(&close).unwrap_or_default(), out);
    }
}

/// Appends the lines of a text as an event's data, and its end.
fn lines(text: &str, out: &mut Vec<u8>) {
    let text = text.replace("\r\n", "\n");
    for line in text.split(['\n', '\r']) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{JsonCodec, RawCodec};

    fn event(codec: impl Codec, payload: &'static [u8]) -> String {
        let mut out = Vec::new();
        EventEncoder::new(Arc::new(codec)).message(&Message::new(payload), &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn text_is_data_line_by_line_and_bytes_are_base64() {
        assert_eq!(event(RawCodec::new(), b"hello"), "data: hello\n\n");
        assert_eq!(event(RawCodec::new(), b""), "data: \n\n");
        assert_eq!(
            event(RawCodec::new(), b"a\n\nb\n"),
            "data: a\ndata: \ndata: b\ndata: \n\n"
        );
        assert_eq!(
            event(RawCodec::new(), b"\xff\x00"),
            "event: binary\ndata: /wA=\n\n"
        );
        assert_eq!(
            event(RawCodec::new(), b"a\rb"),
            "event: binary\ndata: YQ1i\n\n"
        );
    }

    #[test]
    fn no_payload_can_write_a_field_or_an_event_of_its_own() {
        for payload in [
            &b"x\n\nevent: close\ndata: {}\n\n"[..],
            b"x\r\revent: close\r\r",
            b"id: 7",
        ] {
            for event in [
                event(RawCodec::new(), payload),
                event(JsonCodec::new(), payload),
            ] {
                let fields = event.trim_end_matches('\n').lines();
                let own = |line: &str| line.starts_with("data: ") || line == "event: binary";
                assert!(fields.clone().all(own), "{event:?}");
                assert_eq!(event.matches("\n\n").count(), 1, "{event:?}");
                assert!(!event.contains('\r'), "{event:?}");
            }
        }
        assert!(event(JsonCodec::new(), b"{\"a\":\r\n1}").contains("\ndata: 1}"));
    }

    #[test]
    fn a_close_says_its_code_and_reason() {
        let mut out = Vec::new();
        let encoder = EventEncoder::new(Arc::new(RawCodec::new()));
        encoder.close(&CloseReason::Kicked("be\nnice".into()), &mut out);
        assert_eq!(
            out,
            b"event: close\ndata: {\"code\":4002,\"reason\":\"be\\nnice\"}\n\n"
        );
        out.clear();
        encoder.ping(&mut out);
        assert!(out.is_empty());
    }
}
