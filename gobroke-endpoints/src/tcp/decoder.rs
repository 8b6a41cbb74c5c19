//! Frames from a client: [`FrameDecoder`].

use std::sync::Arc;

use gobroke_core::CloseReason;

use super::encoder::frame_unless_empty;
use crate::{
    codec::{Codec, Frame, FrameError, Inbound},
    stream::{ControlRate, Decoder, Intake, Limits, Partial},
};

/// Cuts the stream at the announced lengths. A frame that came whole in one read is decoded where it stands.
#[derive(Debug)]
pub(crate) struct FrameDecoder {
    codec: Arc<dyn Codec>,
    max_message: usize,
    /// What there is of a length that was cut.
    head: [u8; 4],
    head_len: u8,
    /// The length of the frame that has begun.
    length: Option<usize>,
    partial: Partial,
    controls: ControlRate,
    /// How many frames were complete, modulo 2^32.
    count: u32,
}

impl FrameDecoder {
    pub(super) fn new(codec: Arc<dyn Codec>, limits: &Limits) -> Self {
        Self {
            codec,
            max_message: limits.max_message,
            head: [0; 4],
            head_len: 0,
            length: None,
            partial: Partial::new(limits.budget.clone()),
            controls: ControlRate::new(limits.control_frames),
            count: 0,
        }
    }

    /// The length of the next frame, of bytes that may begin in its middle; and what stands behind it.
    fn length<'a>(&mut self, bytes: &'a mut [u8]) -> (Option<u32>, &'a mut [u8]) {
        let known = usize::from(self.head_len);
        let taken = bytes.len().min(4 - known);
        let (head, rest) = bytes.split_at_mut(taken);
        self.head[known..known + taken].copy_from_slice(head);
        if known + taken < 4 {
            self.head_len += taken as u8;
            return (None, rest);
        }
        self.head_len = 0;
        (Some(u32::from_be_bytes(self.head)), rest)
    }

    fn too_big(&self, length: u32, intake: &mut impl Intake) -> CloseReason {
        intake.last_words(&FrameError::new(
            "too_big",
            format!(
                "a frame of {length} bytes is announced, and {} are the most; send less at a time",
                self.max_message
            ),
        ));
        CloseReason::TooBig
    }
}

impl Decoder for FrameDecoder {
    fn decode(
        &mut self,
        mut bytes: &mut [u8],
        intake: &mut impl Intake,
    ) -> Result<(), CloseReason> {
        loop {
            let length = match self.length {
                Some(length) => length,
                None => {
                    let (announced, rest) = self.length(bytes);
                    bytes = rest;
                    let Some(announced) = announced else {
                        return Ok(());
                    };
                    match usize::try_from(announced) {
                        Ok(length) if length <= self.max_message => *self.length.insert(length),
                        _ => return Err(self.too_big(announced, intake)),
                    }
                }
            };
            let (chunk, rest) = bytes.split_at_mut(bytes.len().min(length - self.partial.len()));
            bytes = rest;
            if chunk.len() == length {
                if hand_on(&*self.codec, chunk, intake) {
                    self.controls.count()?;
                }
            } else {
                self.partial.extend(chunk, length)?;
                if self.partial.len() < length {
                    return Ok(());
                }
                let control = hand_on(&*self.codec, self.partial.bytes(), intake);
                self.partial.clear();
                if control {
                    self.controls.count()?;
                }
            }
            self.length = None;
            self.count = self.count.wrapping_add(1);
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    fn begun(&self) -> Option<u32> {
        (self.head_len > 0 || self.length.is_some()).then_some(self.count)
    }

    fn forget(&mut self) {
        self.partial.clear();
    }

    fn end(&self) -> CloseReason {
        match self.begun() {
            Some(_) => CloseReason::ConnectionLost,
            None => CloseReason::Peer(1000),
        }
    }
}

/// Says whether it is a control frame of the codec's.
fn hand_on(codec: &dyn Codec, frame: &[u8], intake: &mut impl Intake) -> bool {
    match codec.decode(Frame::Binary(frame)) {
        Ok(Inbound::Message(message)) => intake.message(message),
        Ok(Inbound::Ping) => {
            let mut answer = Vec::new();
            frame_unless_empty(&mut answer, |out| codec.pong(out));
            if !answer.is_empty() {
                intake.answer(answer);
            }
            return true;
        }
        Ok(Inbound::Pong) => return true,
        Err(error) => intake.error(&error),
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::{JsonCodec, RawCodec},
        stream::{ReceiveBudget, testing::Kept},
    };

    fn decoder(codec: impl Codec) -> (FrameDecoder, ReceiveBudget) {
        let budget = ReceiveBudget::new(1 << 20);
        let limits = Limits {
            max_message: 1000,
            budget: budget.clone(),
            control_frames: u32::MAX,
        };
        (FrameDecoder::new(Arc::new(codec), &limits), budget)
    }

    fn payloads(kept: &Kept) -> Vec<&[u8]> {
        kept.messages
            .iter()
            .map(|message| message.payload().as_ref())
            .collect()
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_was_cut() {
        let stream = b"\0\0\0\x05hello\0\0\0\0\0\0\0\x03you";
        for size in 1..=stream.len() {
            let (mut decoder, budget) = decoder(RawCodec::new());
            let mut kept = Kept::default();
            for piece in stream.chunks(size) {
                decoder
                    .decode(&mut piece.to_vec(), &mut kept)
                    .expect("good frames");
            }
            assert_eq!(
                payloads(&kept),
                [&b"hello"[..], b"", b"you"],
                "pieces of {size}"
            );
            assert_eq!(
                (decoder.begun(), decoder.end()),
                (None, CloseReason::Peer(1000))
            );
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn the_largest_frame_is_taken_and_one_byte_more_is_not() {
        let (mut decoder, _) = decoder(JsonCodec::to_logic("chat"));
        let mut kept = Kept::default();
        let payload = "x".repeat(1000 - r#"{"payload":""}"#.len());
        let frame = format!(r#"{{"payload":"{payload}"}}"#);
        let mut bytes = [&1000_u32.to_be_bytes(), frame.as_bytes()].concat();
        decoder.decode(&mut bytes, &mut kept).expect("the largest");
        assert_eq!(kept.messages.len(), 1);
        assert_eq!(
            decoder.decode(&mut 1001_u32.to_be_bytes(), &mut kept),
            Err(CloseReason::TooBig)
        );
        assert_eq!(kept.errors[0].code(), "too_big");
    }

    #[test]
    fn four_gigabytes_that_are_announced_are_not_allocated() {
        let (mut decoder, budget) = decoder(RawCodec::new());
        assert_eq!(
            decoder.decode(&mut [0xff; 4], &mut Kept::default()),
            Err(CloseReason::TooBig)
        );
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_is_cut_off_is_a_lost_connection() {
        let (mut decoder, budget) = decoder(RawCodec::new());
        let mut kept = Kept::default();
        decoder
            .decode(&mut [0, 0], &mut kept)
            .expect("half a length");
        assert_eq!(
            (decoder.begun(), decoder.end()),
            (Some(0), CloseReason::ConnectionLost)
        );
        decoder
            .decode(&mut [0, 2, 1], &mut kept)
            .expect("half a frame");
        assert_eq!(
            (decoder.begun(), decoder.end()),
            (Some(0), CloseReason::ConnectionLost)
        );
        assert!(budget.used() > 0);
        drop(decoder);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_bad_frame_is_told_and_the_next_one_is_read() {
        let (mut decoder, _) = decoder(JsonCodec::to_logic("chat"));
        let mut kept = Kept::default();
        let frames = [
            &b"[]"[..],
            b"\xff",
            br#"{"ping":{}}"#,
            br#"{"pong":{}}"#,
            br#"{"payload":1}"#,
        ];
        for frame in frames {
            let mut bytes = [&(frame.len() as u32).to_be_bytes(), frame].concat();
            decoder
                .decode(&mut bytes, &mut kept)
                .expect("the connection stays");
        }
        assert!(kept.errors.iter().all(|error| error.code() == "bad_frame"));
        assert_eq!(kept.errors.len(), 2);
        assert_eq!(kept.answers, [b"\0\0\0\x0b{\"pong\":{}}".to_vec()]);
        assert_eq!(payloads(&kept), [b"1"]);
    }
}
