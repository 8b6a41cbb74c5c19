//! How messages look on a test client's wire: a length (u32, big endian), a kind, and the rest by kind, laid like
//! envelopes between instances.
//!
//! ```text
//! welcome   client 16              error   code · words
//! message   flags u8 · id 16 · source · [metadata] · payload
//! ping      nothing                close   code · reason
//! ```

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::{
    Client, ClientId, CloseReason, Encoder, ErrorFrame, Format, Message, MessageId, Name,
    cluster::envelope::{
        bytes::{DecodeError, Problem, Reader, put_bytes, put_uuid, put_varint},
        parts::{json, put_json, put_source, source},
    },
};

/// A frame that came to a test client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Received {
    /// The first: who the client is.
    Welcome(ClientId),
    /// A message.
    Message(Box<Message>),
    /// An error about something that the client sent.
    Error {
        /// The code.
        code: String,
        /// The words.
        message: String,
    },
    /// A ping.
    Ping,
    /// The close.
    Close {
        /// The code; see [`CloseReason`].
        code: u16,
        /// The words.
        reason: String,
    },
}

const WELCOME: u8 = 1;
const MESSAGE: u8 = 2;
const ERROR: u8 = 3;
const PING: u8 = 4;
const CLOSE: u8 = 5;

const TEXT: u8 = 1;
const METADATA: u8 = 2;

/// How long a frame's length is.
const LENGTH: usize = 4;

/// Writes what [`TestClient`](super::TestClient) reads.
#[derive(Debug)]
pub(crate) struct TestEncoder;

/// Lays a frame of this kind; `rest` appends what follows.
fn lay(out: &mut Vec<u8>, kind: u8, rest: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    out.push(kind);
    rest(out);
    let length = (out.len() - at - LENGTH) as u32;
    out[at..at + LENGTH].copy_from_slice(&length.to_be_bytes());
}

impl Encoder for TestEncoder {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        lay(out, MESSAGE, |out| {
            let text = u8::from(message.format() == Format::Text) * TEXT;
            let metadata = u8::from(!message.metadata().is_empty()) * METADATA;
            out.push(text | metadata);
            put_uuid(out, message.id().as_uuid());
            put_source(out, message.source());
            if !message.metadata().is_empty() {
                put_json(out, message.metadata());
            }
            out.extend_from_slice(message.payload());
        });
    }

    fn welcome(&self, client: &Client, _: &Name, out: &mut Vec<u8>) {
        lay(out, WELCOME, |out| put_uuid(out, client.id().as_uuid()));
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        lay(out, ERROR, |out| {
            put_bytes(out, error.code.as_bytes());
            put_bytes(out, error.message.as_bytes());
        });
    }

    fn ping(&self, out: &mut Vec<u8>) {
        lay(out, PING, |_| {});
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        lay(out, CLOSE, |out| {
            put_varint(out, reason.code().into());
            put_bytes(out, reason.text().as_bytes());
        });
    }
}

/// Takes whole frames off the front of the buffer. Ends where something cannot be read, which this encoder never
/// writes.
pub(crate) fn decode(buffer: &mut Vec<u8>, frames: &mut VecDeque<Received>) {
    let mut whole = 0;
    while let Some(length) = buffer[whole..].first_chunk::<LENGTH>() {
        let end = whole + LENGTH + u32::from_be_bytes(*length) as usize;
        if end > buffer.len() {
            break;
        }
        whole = end;
    }
    let rest = buffer.split_off(whole);
    let mut bytes = Bytes::from(std::mem::replace(buffer, rest));
    while !bytes.is_empty() {
        let length = bytes.get_u32() as usize;
        let Ok(frame) = decode_one(&bytes.split_to(length)) else {
            return;
        };
        frames.push_back(frame);
    }
}

fn decode_one(frame: &Bytes) -> Result<Received, DecodeError> {
    let mut reader = Reader::new(frame);
    Ok(match reader.byte("kind")? {
        WELCOME => Received::Welcome(reader.client("client")?),
        MESSAGE => {
            let flags = reader.byte("flags")?;
            let id = MessageId::from(reader.uuid("message id")?);
            let source = source(&mut reader)?;
            let metadata = (flags & METADATA != 0)
                .then(|| json(&mut reader, "metadata"))
                .transpose()?;
            let mut message = Message::with_id(id, reader.rest());
            message.set_source(source);
            if let Some(metadata) = metadata {
                *message.metadata_mut() = metadata;
            }
            let format = match flags & TEXT {
                0 => Format::Binary,
                _ => Format::Text,
            };
            Received::Message(Box::new(message.with_format(format)))
        }
        ERROR => Received::Error {
            code: reader.str("code")?.to_owned(),
            message: reader.str("words")?.to_owned(),
        },
        PING => Received::Ping,
        CLOSE => Received::Close {
            code: reader.varint("code")? as u16,
            reason: reader.str("reason")?.to_owned(),
        },
        other => return reader.fail("kind", Problem::Unknown(other.into())),
    })
}
