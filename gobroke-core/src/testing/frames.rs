//! How messages look on a test client's wire: a length, a kind, a JSON head, and the payload as it is.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    Client, ClientId, CloseReason, Encoder, ErrorFrame, Format, Message, MessageId, Metadata, Name,
    Source,
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

#[derive(Serialize, Deserialize)]
enum Head {
    Welcome(ClientId),
    Message {
        id: MessageId,
        client: Option<ClientId>,
        logic: Option<Name>,
        text: bool,
        metadata: Metadata,
    },
    Error {
        code: String,
        message: String,
    },
    Ping,
    Close {
        code: u16,
        reason: String,
    },
}

/// Writes what [`TestClient`](super::TestClient) reads.
#[derive(Debug)]
pub(crate) struct TestEncoder;

fn write(head: &Head, payload: &[u8], out: &mut Vec<u8>) {
    // Strings and numbers always have a JSON form.
    let head = serde_json::to_vec(head).unwrap_or_default();
    out.extend_from_slice(&(head.len() as u32).to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
}

impl Encoder for TestEncoder {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        let (client, logic) = match message.source() {
            Source::Client(client) => (Some(*client), None),
            Source::Logic(logic) => (None, Some(logic.clone())),
            Source::Server => (None, None),
        };
        let text = message.format() == Format::Text;
        let head = Head::Message {
            id: message.id(),
            client,
            logic,
            text,
            metadata: message.metadata().clone(),
        };
        write(&head, message.payload(), out);
    }

    fn welcome(&self, client: &Client, _: &Name, out: &mut Vec<u8>) {
        write(&Head::Welcome(client.id()), &[], out);
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        let head = Head::Error {
            code: error.code.to_owned(),
            message: error.message.to_owned(),
        };
        write(&head, &[], out);
    }

    fn ping(&self, out: &mut Vec<u8>) {
        write(&Head::Ping, &[], out);
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        write(
            &Head::Close {
                code: reason.code(),
                reason: reason.text().to_owned(),
            },
            &[],
            out,
        );
    }
}

/// Takes whole frames off the front of the buffer.
pub(crate) fn decode(buffer: &mut Vec<u8>, frames: &mut VecDeque<Received>) {
    let mut at = 0;
    while let Some((frame, length)) = decode_one(&buffer[at..]) {
        frames.push_back(frame);
        at += length;
    }
    buffer.drain(..at);
}

fn decode_one(bytes: &[u8]) -> Option<(Received, usize)> {
    let number = |at: usize| {
        let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes) as usize)
    };
    let (head, payload) = (number(0)?, number(4)?);
    let length = 8 + head + payload;
    let frame = bytes.get(8..length)?;
    let (head, payload) = frame.split_at(head);
    let received = match serde_json::from_slice(head).ok()? {
        Head::Welcome(client) => Received::Welcome(client),
        Head::Error { code, message } => Received::Error { code, message },
        Head::Ping => Received::Ping,
        Head::Close { code, reason } => Received::Close { code, reason },
        Head::Message {
            id,
            client,
            logic,
            text,
            metadata,
        } => {
            let mut message = Message::new(payload.to_vec()).with_message_id(id);
            let source = client.map(Source::Client).or(logic.map(Source::Logic));
            message.set_source(source.unwrap_or_default());
            if !metadata.is_empty() {
                *message.metadata_mut() = metadata;
            }
            Received::Message(Box::new(message.with_format(if text {
                Format::Text
            } else {
                Format::Binary
            })))
        }
    };
    Some((received, length))
}
