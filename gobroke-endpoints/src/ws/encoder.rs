//! Frames to a client: [`FrameEncoder`].

use std::sync::Arc;

use gobroke_core::{Client, CloseReason, Encoder, ErrorFrame, Format, Message, Name};

use super::deflate::Agreed;
use super::frame::{COMPRESSED, LARGEST_CONTROL, Opcode, header, header_len, write_header};
use crate::codec::Codec;

/// Puts what the codec writes into frames, and writes control frames itself.
#[derive(Debug)]
pub(super) struct FrameEncoder {
    codec: Arc<dyn Codec>,
    /// The only kind of frames that the codec speaks, if it is one.
    pub(super) format: Option<Format>,
    /// How messages are compressed, if they are.
    pub(super) deflate: Option<Agreed>,
}

impl FrameEncoder {
    pub(super) fn new(codec: Arc<dyn Codec>, deflate: Option<Agreed>) -> Self {
        let format = codec.format();
        Self {
            codec,
            format,
            deflate,
        }
    }

    /// Appends a frame of the codec's own with what `write` appends, and none where that is nothing.
    fn own(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        let opcode = match self.format {
            Some(Format::Text) => Opcode::Text,
            _ => Opcode::Binary,
        };
        if data(opcode, 126, out, write) == 0 {
            out.truncate(start);
        }
    }

    /// The answer to the codec's own ping; empty where it has none.
    pub(super) fn own_pong(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.own(&mut out, |out| self.codec.pong(out));
        out
    }
}

impl Encoder for FrameEncoder {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        let opcode = match self.format.unwrap_or_else(|| message.format()) {
            Format::Text if self.format.is_some() => Opcode::Text,
            // Logic may call text what is none, and its receivers would have to close (RFC 6455, section 8.1).
            Format::Text if std::str::from_utf8(message.payload()).is_ok() => Opcode::Text,
            _ => Opcode::Binary,
        };
        let hint = self.codec.size_hint(message);
        match self.deflate {
            None => {
                data(opcode, hint, out, |out| self.codec.encode(message, out));
            }
            Some(agreed) => {
                let mut plain = Vec::with_capacity(hint);
                self.codec.encode(message, &mut plain);
                compressed(agreed, opcode, &plain, out);
            }
        }
    }

    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        self.own(out, |out| self.codec.welcome(client, instance, out));
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        self.own(out, |out| self.codec.error(error, out));
    }

    fn ping(&self, out: &mut Vec<u8>) {
        write_header(Opcode::Ping, 0, out);
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        let code = reason.code();
        // Codes that stand for something that was not sent (RFC 6455, section 7.4.1).
        if matches!(code, 1005 | 1006 | 1015) {
            return write_header(Opcode::Close, 0, out);
        }
        // A peer's close is answered with its code alone.
        let text = match reason {
            CloseReason::Peer(_) => "",
            reason => shortened(reason.text(), LARGEST_CONTROL - 2),
        };
        write_header(Opcode::Close, 2 + text.len(), out);
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

/// Appends a data frame with what `write` appends; says how much that was. The header is guessed from `hint`; after a
/// wrong guess it is written again, and the payload moved where its size was wrong too.
fn data(opcode: Opcode, hint: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    let guess = header_len(hint);
    out.reserve(guess + hint);
    write_header(opcode, hint, out);
    write(out);
    let length = out.len() - start - guess;
    if length != hint {
        correct(opcode, start, guess, out);
    }
    length
}

/// Puts the right header at `start` in the place of a wrong one.
#[cold]
fn correct(opcode: Opcode, start: usize, guess: usize, out: &mut Vec<u8>) {
    let length = out.len() - start - guess;
    let (header, size) = header(opcode, length);
    if size > guess {
        out.resize(out.len() + size - guess, 0);
    }
    if size != guess {
        out.copy_within(start + guess..start + guess + length, start + size);
        out.truncate(start + size + length);
    }
    out[start..start + size].copy_from_slice(&header[..size]);
}

/// Appends a data frame with a message, compressed where that makes it shorter.
fn compressed(agreed: Agreed, opcode: Opcode, message: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut shorter = false;
    data(opcode, message.len(), out, |out| {
        shorter = agreed.deflate(message, out);
        if !shorter {
            out.extend_from_slice(message);
        }
    });
    if shorter {
        out[start] |= COMPRESSED;
    }
}

/// As much of a text as fits into `most` bytes.
fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// A pong that answers a ping with this payload.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + payload.len());
    write_header(Opcode::Pong, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{JsonCodec, RawCodec};

    fn raw() -> FrameEncoder {
        FrameEncoder::new(Arc::new(RawCodec::new()), None)
    }

    fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = b"earlier".to_vec();
        write(&mut out);
        out.split_off(7)
    }

    #[test]
    fn text_goes_out_as_text_and_bytes_as_binary() {
        let text = encoded(|out| raw().message(&Message::text("hi"), out));
        assert_eq!(text, b"\x81\x02hi");
        let binary = encoded(|out| raw().message(&Message::new("hi"), out));
        assert_eq!(binary, b"\x82\x02hi");
        let no_text = Message::new(&b"\xff"[..]).with_format(Format::Text);
        assert_eq!(encoded(|out| raw().message(&no_text, out)), b"\x82\x01\xff");
        let json = FrameEncoder::new(Arc::new(JsonCodec::new()), None);
        assert_eq!(
            encoded(|out| json.message(&Message::new("1"), out))[0],
            0x81
        );
    }

    #[test]
    fn a_wrong_guess_of_the_length_moves_the_payload() {
        for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000] {
            for hint in [0, 126, 0x1_0000] {
                let frame = encoded(|out| {
                    assert_eq!(
                        data(Opcode::Binary, hint, out, |out| out
                            .resize(out.len() + length, 7)),
                        length
                    );
                });
                let mut right = Vec::new();
                write_header(Opcode::Binary, length, &mut right);
                right.resize(right.len() + length, 7);
                assert!(frame == right, "{length} bytes where {hint} were guessed");
            }
        }
    }

    #[test]
    fn a_close_says_its_code_and_as_much_of_the_reason_as_fits() {
        let close = |reason| encoded(|out| raw().close(&reason, out));
        assert_eq!(close(CloseReason::GoingAway), b"\x88\x0c\x03\xe9going away");
        assert_eq!(close(CloseReason::Normal), b"\x88\x02\x03\xe8");
        assert_eq!(close(CloseReason::Peer(4999)), b"\x88\x02\x13\x87");
        assert_eq!(close(CloseReason::Peer(1005)), b"\x88\x00");
        let long = close(CloseReason::Kicked("ü".repeat(100).into()));
        assert_eq!((long.len(), long[1]), (2 + 2 + 122, 124));
        assert!(std::str::from_utf8(&long[4..]).is_ok());
    }

    #[test]
    fn raw_has_no_frames_of_its_own_and_json_has() {
        let error = ErrorFrame {
            code: "busy",
            message: "later",
            id: None,
        };
        assert_eq!(encoded(|out| raw().error(&error, out)), b"");
        assert!(raw().own_pong().is_empty());
        let json = FrameEncoder::new(Arc::new(JsonCodec::new()), None);
        assert_eq!(json.own_pong(), b"\x81\x0b{\"pong\":{}}");
        let frame = encoded(|out| json.error(&error, out));
        assert_eq!(
            &frame[2..],
            br#"{"error":{"code":"busy","message":"later"}}"#
        );
    }
}
