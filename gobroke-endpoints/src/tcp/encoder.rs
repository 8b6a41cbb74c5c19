//! Frames to a client: [`FrameEncoder`].

use std::sync::Arc;

use gobroke_core::{Client, CloseReason, Encoder, ErrorFrame, Message, Name};

use crate::codec::Codec;

/// Puts the length in front of what the codec writes.
#[derive(Debug)]
pub(super) struct FrameEncoder {
    codec: Arc<dyn Codec>,
}

impl FrameEncoder {
    pub(super) fn new(codec: Arc<dyn Codec>) -> Self {
        Self { codec }
    }
}

impl Encoder for FrameEncoder {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        frame(out, |out| self.codec.encode(message, out));
    }

    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        frame_unless_empty(out, |out| self.codec.welcome(client, instance, out));
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        frame_unless_empty(out, |out| self.codec.error(error, out));
    }

    fn ping(&self, out: &mut Vec<u8>) {
        frame_unless_empty(out, |out| self.codec.ping(out));
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        frame_unless_empty(out, |out| self.codec.close(reason, out));
    }
}

/// Appends a frame with what `write` appends.
fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = out.len() - start - 4;
    match u32::try_from(length) {
        Ok(length) => out[start..start + 4].copy_from_slice(&length.to_be_bytes()),
        // It has no length that could be written; without it the stream stays whole.
        Err(_) => {
            tracing::error!(
                length,
                "a frame of 4 GiB or more cannot be sent over TCP; it is left out"
            );
            out.truncate(start);
        }
    }
}

/// The same, and no frame where `write` appends nothing.
pub(super) fn frame_unless_empty(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    frame(out, write);
    if out.len() == start + 4 {
        out.truncate(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{JsonCodec, RawCodec};

    #[test]
    fn a_frame_stands_behind_its_length() {
        let mut out = b"earlier".to_vec();
        let encoder = FrameEncoder::new(Arc::new(RawCodec::new()));
        encoder.message(&Message::new("hello"), &mut out);
        encoder.message(&Message::new(""), &mut out);
        assert_eq!(out, b"earlier\0\0\0\x05hello\0\0\0\0");
    }

    #[test]
    fn raw_has_frames_for_messages_alone() {
        let mut out = Vec::new();
        let encoder = FrameEncoder::new(Arc::new(RawCodec::new()));
        encoder.ping(&mut out);
        encoder.error(
            &ErrorFrame {
                code: "busy",
                message: "later",
                id: None,
            },
            &mut out,
        );
        encoder.close(&CloseReason::GoingAway, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn json_says_pings_errors_and_closes() {
        let mut out = Vec::new();
        let encoder = FrameEncoder::new(Arc::new(JsonCodec::new()));
        encoder.ping(&mut out);
        assert_eq!(out, b"\0\0\0\x0b{\"ping\":{}}");
        out.clear();
        encoder.close(&CloseReason::GoingAway, &mut out);
        assert_eq!(
            &out[4..],
            br#"{"close":{"code":1001,"reason":"going away"}}"#
        );
    }
}
