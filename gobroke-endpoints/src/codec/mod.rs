//! What a frame means: [`Codec`], and the two that are here, [`RawCodec`] and [`JsonCodec`].
//!
//! An endpoint cuts the byte stream into frames; its codec says what a frame is for, and how a message looks to a
//! client. A codec of your own is a type with two methods:
//!
//! ```
//! use gobroke_core::Message;
//! use gobroke_endpoints::codec::{Codec, Frame, FrameError, Inbound};
//!
//! /// `to <group>: <text>`
//! #[derive(Debug)]
//! struct Lines;
//!
//! impl Codec for Lines {
//!     fn decode(&self, frame: Frame<'_>) -> Result<Inbound, FrameError> {
//!         let text = frame.text().ok_or_else(|| FrameError::bad_frame("write UTF-8"))?;
//!         let (group, text) = text
//!             .strip_prefix("to ")
//!             .and_then(|rest| rest.split_once(": "))
//!             .ok_or_else(|| FrameError::bad_frame("write `to <group>: <text>`"))?;
//!         Ok(Message::text(text).to_group(group).into())
//!     }
//!
//!     fn encode(&self, message: &Message, out: &mut Vec<u8>) {
//!         out.extend_from_slice(message.payload());
//!     }
//! }
//! ```

mod json;
mod payload;
mod raw;

use std::{borrow::Cow, fmt::Debug};

use gobroke_core::{Client, CloseReason, ErrorFrame, Format, Message, MessageId, Name};

pub use self::{json::JsonCodec, raw::RawCodec};

/// What the frames of an endpoint mean, from clients and to them.
///
/// It writes and reads what stands *in* a frame; length prefixes, masks and opcodes are the endpoint's.
/// All connections of an endpoint share one codec. It is called in the middle of deliveries: it must not block.
/// Where it panics, the client that it did so for is closed with [`CloseReason::Internal`] (1011).
///
/// The methods that append to `out` find earlier frames in it and leave those alone. Those with a default send no
/// frame where they append nothing.
pub trait Codec: Debug + Send + Sync + 'static {
    /// Reads one frame of a client. What it keeps it copies: the frame stands in a buffer that is used again at once.
    ///
    /// # Errors
    /// What the client did wrong. It is told so ([`Codec::error`]), the frame goes nowhere, the connection stays.
    fn decode(&self, frame: Frame<'_>) -> Result<Inbound, FrameError>;

    /// Appends what a client sees of a message.
    fn encode(&self, message: &Message, out: &mut Vec<u8>);

    /// About how many bytes [`Codec::encode`] will append: a right guess saves a copy. Default: the payload's length.
    fn size_hint(&self, message: &Message) -> usize {
        message.payload().len()
    }

    /// Which of the two kinds of frames it speaks, where a transport (WebSocket) tells text from binary. With one
    /// set, a client that sends the other is closed with code 1003. Default: both; text is answered with text.
    /// It is asked for each endpoint or connection, not for each frame, and must not change.
    fn format(&self) -> Option<Format> {
        None
    }

    /// The WebSocket subprotocol (RFC 6455, section 1.9) that names it. Default: none.
    fn subprotocol(&self) -> Option<&str> {
        None
    }

    /// Appends what a client is told first. Default: nothing.
    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        let _ = (client, instance, out);
    }

    /// Appends what a client is told that did something wrong. Default: nothing.
    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        let _ = (error, out);
    }

    /// Appends a question whether the client is still there, for transports that have none. Default: nothing, and
    /// then such a transport sends no pings.
    fn ping(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Appends the answer to [`Inbound::Ping`]. Default: nothing.
    fn pong(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Appends why the connection ends, for transports that have no way to say it. Default: nothing.
    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        let _ = (reason, out);
    }
}

/// One frame of a client, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Text: the transport says so, and it is UTF-8.
    Text(&'a str),
    /// Bytes: the transport says so, or does not tell the two apart.
    Binary(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// Its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// It as text; `None` where it is not UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        }
    }
}

/// What a client's frame says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Inbound {
    /// A message, to be routed.
    Message(Message),
    /// The client asks whether the server is there; answered with [`Codec::pong`].
    Ping,
    /// The client answers [`Codec::ping`].
    Pong,
}

impl From<Message> for Inbound {
    fn from(message: Message) -> Self {
        Self::Message(message)
    }
}

/// Why a client's frame goes nowhere. The client is told; the connection stays.
///
/// ```
/// use gobroke_endpoints::codec::FrameError;
/// let error = FrameError::bad_frame("write `say <text>`");
/// assert_eq!(error.code(), "bad_frame");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    code: &'static str,
    message: Cow<'static, str>,
    id: Option<MessageId>,
}

impl FrameError {
    /// An error with a code for programs (a word) and a message for people: what was wrong, and what to do.
    pub fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            id: None,
        }
    }

    /// `bad_frame`: the frame cannot be understood.
    pub fn bad_frame(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("bad_frame", message)
    }

    /// `not_allowed`: the frame is understood, but its client may not do this here.
    pub fn not_allowed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("not_allowed", message)
    }

    /// Says which message it is about, so that the client knows which of those it sent.
    #[must_use]
    pub fn about(mut self, id: Option<MessageId>) -> Self {
        self.id = id;
        self
    }

    /// The word that programs match on.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What was wrong, and what to do.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The message that it is about, where that had an id.
    pub fn id(&self) -> Option<MessageId> {
        self.id
    }
}
