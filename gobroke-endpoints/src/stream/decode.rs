//! From bytes to messages: [`Decoder`], and the [`Intake`] that takes what it finds.

use gobroke_core::{Batch, CloseReason, Gate, Message};

use crate::codec::FrameError;

/// Cuts what came into frames, and frames into messages. One for each connection, without I/O.
pub(crate) trait Decoder: Send + 'static {
    /// Takes all the bytes, which it may change, and hands on what they say. What is not complete yet it keeps.
    ///
    /// # Errors
    /// Why nothing more is read: the peer's close, or what the peer did wrong.
    fn decode(&mut self, bytes: &mut [u8], intake: &mut impl Intake) -> Result<(), CloseReason>;

    /// The number of the message that has begun and is not complete; the next one has another number.
    fn begun(&self) -> Option<u32>;

    /// Gives back the memory of a message that will not be completed.
    fn forget(&mut self);

    /// What it means that the stream ends here.
    fn end(&self) -> CloseReason;
}

/// What takes a decoder's findings, in order.
pub(crate) trait Intake {
    fn message(&mut self, message: Message);
    /// A frame that goes back to the client, behind all that went before.
    fn answer(&mut self, frame: Vec<u8>);
    /// What the client did wrong. The connection stays.
    fn error(&mut self, error: &FrameError);
    /// What the client did wrong, told before a close that is counted itself.
    fn last_words(&mut self, error: &FrameError);
}

/// The router's door, on the way to which errors are counted.
pub(crate) struct Door<'a> {
    pub(crate) gate: &'a Gate,
    pub(crate) batch: &'a mut Batch,
}

impl Intake for Door<'_> {
    #[inline]
    fn message(&mut self, message: Message) {
        self.batch.push(message);
    }

    fn answer(&mut self, frame: Vec<u8>) {
        self.batch.push_frame(frame);
    }

    fn error(&mut self, error: &FrameError) {
        self.gate.count_bad_input(error.code());
        self.last_words(error);
    }

    fn last_words(&mut self, error: &FrameError) {
        self.batch
            .push_error(error.code(), error.message().to_owned(), error.id());
    }
}

/// Under which name a close by the decoder is counted as bad input; `None` where the peer did nothing wrong.
pub(super) fn misdeed(reason: &CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::ProtocolError(_) => Some("protocol_error"),
        CloseReason::Unsupported(_) => Some("unsupported"),
        CloseReason::InvalidPayload(_) => Some("invalid_payload"),
        CloseReason::PolicyViolation(_) => Some("policy_violation"),
        CloseReason::TooBig => Some("too_big"),
        _ => None,
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod testing {
    //! An intake that keeps what it is handed.

    use gobroke_core::Message;

    use super::Intake;
    use crate::codec::FrameError;

    #[derive(Debug, Default)]
    pub(crate) struct Kept {
        pub(crate) messages: Vec<Message>,
        pub(crate) answers: Vec<Vec<u8>>,
        pub(crate) errors: Vec<FrameError>,
    }

    impl Intake for Kept {
        fn message(&mut self, message: Message) {
            self.messages.push(message);
        }

        fn answer(&mut self, frame: Vec<u8>) {
            self.answers.push(frame);
        }

        fn error(&mut self, error: &FrameError) {
            self.errors.push(error.clone());
        }

        fn last_words(&mut self, error: &FrameError) {
            self.errors.push(error.clone());
        }
    }
}
