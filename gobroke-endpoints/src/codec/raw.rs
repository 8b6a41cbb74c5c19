//! [`RawCodec`]: a frame is a payload.

use gobroke_core::{Format, Message, Name, Target, Targets};

use super::{Codec, Frame, FrameError, Inbound, payload};

/// A frame is a payload, nothing more: all messages of all clients go to the same targets.
///
/// Nothing can be wrong with a frame, so there are no error frames; and there is nowhere to write a ping, a welcome or
/// a close, so there are none but the transport's own (WebSocket has them, TCP has not).
///
/// Payloads of up to 256 bytes share pages of 1 KiB with those around them: a message that is kept for long keeps its page,
/// unless its payload is copied.
///
/// ```
/// use gobroke_endpoints::codec::RawCodec;
/// let codec = RawCodec::to_logic("chat");
/// ```
#[derive(Clone, Debug, Default)]
pub struct RawCodec {
    targets: Targets,
}

impl RawCodec {
    /// Messages with no target yet: receive middleware gives them one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Messages to a logic module.
    pub fn to_logic(logic: impl Into<Name>) -> Self {
        Self::to_targets(Target::Logic(logic.into()))
    }

    /// Messages to these targets.
    pub fn to_targets(targets: impl Into<Targets>) -> Self {
        Self {
            targets: targets.into(),
        }
    }
}

impl Codec for RawCodec {
    fn decode(&self, frame: Frame<'_>) -> Result<Inbound, FrameError> {
        let format = match frame {
            Frame::Text(_) => Format::Text,
            Frame::Binary(_) => Format::Binary,
        };
        let mut message = Message::new(payload::copy(frame.bytes())).with_format(format);
        *message.targets_mut() = self.targets.clone();
        Ok(message.into())
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        out.extend_from_slice(message.payload());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(codec: &RawCodec, frame: Frame<'_>) -> Message {
        match codec.decode(frame) {
            Ok(Inbound::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_frame_becomes_the_payload_and_keeps_its_kind() {
        let codec = RawCodec::to_logic("chat");
        let text = message(&codec, Frame::Text("hé"));
        assert_eq!(
            (text.payload().as_ref(), text.format()),
            ("hé".as_bytes(), Format::Text)
        );
        let binary = message(&codec, Frame::Binary(&[0xff]));
        assert_eq!(
            (binary.payload().as_ref(), binary.format()),
            (&[0xff][..], Format::Binary)
        );
        assert_eq!(text.targets().as_slice(), &[Target::Logic("chat".into())]);
    }

    #[test]
    fn without_targets_the_message_has_none() {
        assert!(
            message(&RawCodec::new(), Frame::Binary(b"x"))
                .targets()
                .is_empty()
        );
    }
}
