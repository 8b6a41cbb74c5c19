//! Messages from a client: [`MessageDecoder`].

use std::sync::Arc;

use gobroke_core::{CloseReason, Format};

use super::{
    deflate::Agreed,
    encoder::{FrameEncoder, pong},
    frame::{Header, LONGEST, Opcode, Whole, broken, unmask},
};
use crate::{
    codec::{Codec, Frame, Inbound},
    stream::{ControlRate, Decoder, Intake, Limits, Partial},
};

/// How many frames one message may be cut into. Without a bound empty ones could come for ever.
const MOST_FRAGMENTS: u32 = 1 << 17;

/// Unmasks frames, joins fragments, answers pings, and checks what RFC 6455 asks of a client (sections 5 to 8).
///
/// A message that came whole in one read is decoded where it stands; what is cut is copied once.
/// Text is checked as it arrives, so a wrong byte ends the connection before the message is complete.
///
/// What a frame touches that came whole comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct MessageDecoder {
    codec: Arc<dyn Codec>,
    encoder: Arc<FrameEncoder>,
    max_message: usize,
    /// How many messages were complete, modulo 2^32.
    count: u32,
    /// The message whose first frame has come, and how many have.
    kind: Option<Format>,
    head_len: u8,
    /// The frame whose payload has begun; its `length` is what is still to come, its mask what that begins with.
    frame: Option<Header>,
    /// What there is of a header that was cut.
    head: [u8; LONGEST],
    /// Whether it is compressed, and how.
    compressed: Option<Agreed>,
    fragments: u32,
    partial: Partial,
    /// How much of `partial` is known to be UTF-8, for text.
    valid: usize,
    controls: ControlRate,
    /// What there is of a control frame's payload that was cut.
    control: Vec<u8>,
}

impl MessageDecoder {
    pub(super) fn new(codec: Arc<dyn Codec>, encoder: Arc<FrameEncoder>, limits: &Limits) -> Self {
        Self {
            codec,
            encoder,
            max_message: limits.max_message,
            count: 0,
            kind: None,
            head_len: 0,
            frame: None,
            head: [0; LONGEST],
            compressed: None,
            fragments: 0,
            partial: Partial::new(limits.budget.clone()),
            valid: 0,
            controls: ControlRate::new(limits.control_frames),
            control: Vec::new(),
        }
    }

    /// The header of the next frame, of bytes that may begin in its middle; and what stands behind it.
    #[inline]
    fn header<'a>(
        &mut self,
        bytes: &'a mut [u8],
    ) -> Result<(Option<Header>, &'a mut [u8]), CloseReason> {
        if self.head_len == 0
            && let Some((header, size)) = self.parse(bytes)?
        {
            return Ok((Some(header), &mut bytes[size..]));
        }
        self.cut_header(bytes)
    }

    #[inline]
    fn parse(&self, bytes: &[u8]) -> Result<Option<(Header, usize)>, CloseReason> {
        let longest = self.max_message - self.partial.len();
        Header::parse(bytes, longest, self.encoder.deflate.is_some())
    }

    /// The same where the header did not come whole.
    #[cold]
    fn cut_header<'a>(
        &mut self,
        bytes: &'a mut [u8],
    ) -> Result<(Option<Header>, &'a mut [u8]), CloseReason> {
        let known = usize::from(self.head_len);
        let taken = bytes.len().min(LONGEST - known);
        self.head[known..known + taken].copy_from_slice(&bytes[..taken]);
        match self.parse(&self.head[..known + taken])? {
            Some((header, size)) => {
                self.head_len = 0;
                Ok((Some(header), &mut bytes[size - known..]))
            }
            // All of it is kept: a header that is not complete is shorter than the longest.
            None => {
                self.head_len += taken as u8;
                Ok((None, &mut []))
            }
        }
    }

    /// Whether a data frame may come here (section 5.4), and of the kind that the codec speaks.
    fn begin(&mut self, header: &Header) -> Result<(), CloseReason> {
        let format = match (header.opcode, self.kind) {
            (Opcode::Continuation, Some(format)) => format,
            (Opcode::Continuation, None) => return Err(broken("a continuation continues nothing")),
            (Opcode::Text, None) => Format::Text,
            (Opcode::Binary, None) => Format::Binary,
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(broken(
                    "a message begins before the one before it has ended",
                ));
            }
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(()),
        };
        match (self.encoder.format, format) {
            (Some(Format::Text), Format::Binary) => {
                return Err(CloseReason::Unsupported(
                    "binary frames are not taken here; send text".into(),
                ));
            }
            (Some(Format::Binary), Format::Text) => {
                return Err(CloseReason::Unsupported(
                    "text frames are not taken here; send binary".into(),
                ));
            }
            _ => {}
        }
        if header.opcode != Opcode::Continuation {
            self.compressed = self.encoder.deflate.filter(|_| header.compressed);
        }
        self.kind = Some(format);
        self.fragments += 1;
        if self.fragments > MOST_FRAGMENTS {
            return Err(CloseReason::PolicyViolation(
                "a message is cut into too many frames".into(),
            ));
        }
        Ok(())
    }

    /// Takes a piece of a data frame's payload, already unmasked.
    fn data(
        &mut self,
        header: Header,
        piece: &[u8],
        intake: &mut impl Intake,
    ) -> Result<(), CloseReason> {
        let complete = header.last && header.length == 0;
        if complete && self.partial.len() == 0 {
            if self.complete(piece, intake)? {
                self.controls.count()?;
            }
        } else {
            self.partial
                .extend(piece, self.partial.len() + piece.len() + header.length)?;
            if self.kind == Some(Format::Text) && self.compressed.is_none() {
                self.check_text(complete)?;
            }
            if complete {
                let control = self.complete(self.partial.bytes(), intake)?;
                self.partial.clear();
                if control {
                    self.controls.count()?;
                }
            }
        }
        if complete {
            self.kind = None;
            self.fragments = 0;
            self.valid = 0;
            self.count = self.count.wrapping_add(1);
        }
        Ok(())
    }

    /// Whether what came since the last time goes on as UTF-8 does (section 8.1). A character may be cut, unless
    /// the text ends there.
    fn check_text(&mut self, complete: bool) -> Result<(), CloseReason> {
        match std::str::from_utf8(&self.partial.bytes()[self.valid..]) {
            Ok(text) => self.valid += text.len(),
            Err(error) if error.error_len().is_none() && !complete => {
                self.valid += error.valid_up_to();
            }
            Err(_) => return Err(not_text()),
        }
        Ok(())
    }

    /// Takes the whole payload of a message; says whether it is a control frame of the codec's.
    fn complete(&self, message: &[u8], intake: &mut impl Intake) -> Result<bool, CloseReason> {
        let inflated;
        let message = match self.compressed {
            None => message,
            Some(agreed) => {
                inflated = agreed.inflate(message, self.max_message)?;
                &inflated
            }
        };
        self.hand_on(self.kind.unwrap_or_default(), message, intake)
    }

    /// Hands a message to the codec; says whether it is a control frame of the codec's. Always inline: as a call it costs
    /// each frame of the short way 20 instructions.
    #[inline(always)]
    fn hand_on(
        &self,
        format: Format,
        message: &[u8],
        intake: &mut impl Intake,
    ) -> Result<bool, CloseReason> {
        let frame = match format {
            Format::Text => Frame::Text(std::str::from_utf8(message).map_err(|_| not_text())?),
            Format::Binary => Frame::Binary(message),
        };
        match self.codec.decode(frame) {
            Ok(Inbound::Message(message)) => intake.message(message),
            Ok(Inbound::Ping) => {
                let answer = self.encoder.own_pong();
                if !answer.is_empty() {
                    intake.answer(answer);
                }
                return Ok(true);
            }
            Ok(Inbound::Pong) => return Ok(true),
            Err(error) => intake.error(&error),
        }
        Ok(false)
    }

    /// Takes a piece of a control frame's payload, already unmasked.
    fn control(
        &mut self,
        header: Header,
        piece: &[u8],
        intake: &mut impl Intake,
    ) -> Result<(), CloseReason> {
        if header.length > 0 {
            self.control.extend_from_slice(piece);
            return Ok(());
        }
        let kept = std::mem::take(&mut self.control);
        self.controls.count()?;
        let payload = if kept.is_empty() {
            piece
        } else {
            &[&kept, piece].concat()
        };
        match header.opcode {
            Opcode::Ping => intake.answer(pong(payload)),
            Opcode::Close => return Err(closed_by_peer(payload)),
            _ => {}
        }
        Ok(())
    }

    /// Takes one frame of any kind, or what is there of it; gives what stands behind.
    #[inline(never)]
    fn frame<'a>(
        &mut self,
        bytes: &'a mut [u8],
        intake: &mut impl Intake,
    ) -> Result<&'a mut [u8], CloseReason> {
        let (mut header, bytes) = match self.frame.take() {
            Some(header) => (header, bytes),
            None => match self.header(bytes)? {
                (Some(header), rest) => {
                    self.begin(&header)?;
                    (header, rest)
                }
                (None, rest) => return Ok(rest),
            },
        };
        let (piece, rest) = bytes.split_at_mut(bytes.len().min(header.length));
        unmask(header.mask, piece);
        let taken = piece.len();
        header.length -= taken;
        if header.opcode.is_control() {
            self.control(header, piece, intake)?;
        } else {
            self.data(header, piece, intake)?;
        }
        if header.length > 0 {
            header.mask.rotate_left(taken % 4);
            self.frame = Some(header);
        }
        Ok(rest)
    }
}

impl Decoder for MessageDecoder {
    fn decode(
        &mut self,
        mut bytes: &mut [u8],
        intake: &mut impl Intake,
    ) -> Result<(), CloseReason> {
        loop {
            // In few steps where nothing has begun: then there is no state to look at or to keep.
            if self.begun().is_none() {
                while let Some(frame) = Whole::parse(bytes, self.max_message)
                    && self.encoder.format.is_none_or(|only| only == frame.format)
                {
                    let (whole, rest) = bytes.split_at_mut(frame.payload.end);
                    bytes = rest;
                    let payload = &mut whole[frame.payload.start..];
                    unmask(frame.mask, payload);
                    if self.hand_on(frame.format, payload, intake)? {
                        self.controls.count()?;
                    }
                    self.count = self.count.wrapping_add(1);
                }
            }
            if bytes.is_empty() {
                return Ok(());
            }
            bytes = self.frame(bytes, intake)?;
        }
    }

    fn begun(&self) -> Option<u32> {
        (self.head_len > 0 || self.frame.is_some() || self.kind.is_some()).then_some(self.count)
    }

    fn forget(&mut self) {
        self.partial.clear();
    }

    fn end(&self) -> CloseReason {
        // A close would have come before the end (section 7.1.5).
        CloseReason::ConnectionLost
    }
}

#[cold]
fn not_text() -> CloseReason {
    CloseReason::InvalidPayload("a text message is not UTF-8".into())
}

/// What a close frame says (section 5.5.1); 1005 where it says nothing.
fn closed_by_peer(payload: &[u8]) -> CloseReason {
    match payload.split_first_chunk() {
        None if payload.is_empty() => CloseReason::Peer(1005),
        None => broken("a close frame has half a code"),
        Some((code, reason)) => {
            let code = u16::from_be_bytes(*code);
            if !may_be_sent(code) {
                broken(format!("{code} is no code that a close frame may have"))
            } else if std::str::from_utf8(reason).is_err() {
                CloseReason::InvalidPayload("the reason of a close is not UTF-8".into())
            } else {
                CloseReason::Peer(code)
            }
        }
    }
}

/// The codes of section 7.4, and those that are registered since.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests;
