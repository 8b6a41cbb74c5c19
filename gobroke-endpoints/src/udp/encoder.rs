//! Frames to a client: [`DatagramEncoder`].

use std::sync::Arc;

use gobroke_core::{Client, CloseReason, Encoder, ErrorFrame, Message, Name};

use super::datagram::{CLOSE, FRAME, PING};
use crate::codec::Codec;

/// Writes what all receivers of a message have in common: the kind, and what the codec says. The session's task puts
/// the connection id between the two.
#[derive(Debug)]
pub(super) struct DatagramEncoder {
    codec: Arc<dyn Codec>,
}

impl DatagramEncoder {
    pub(super) fn new(codec: Arc<dyn Codec>) -> Self {
        Self { codec }
    }

    /// The answer to the codec's own ping; empty where it has none.
    pub(super) fn own_pong(&self) -> Vec<u8> {
        let mut out = Vec::new();
        own(&mut out, |out| self.codec.pong(out));
        out
    }
}

impl Encoder for DatagramEncoder {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        out.push(FRAME);
        self.codec.encode(message, out);
    }

    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        own(out, |out| self.codec.welcome(client, instance, out));
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        own(out, |out| self.codec.error(error, out));
    }

    fn ping(&self, out: &mut Vec<u8>) {
        out.push(PING);
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        out.push(CLOSE);
        out.extend_from_slice(&close(reason));
    }
}

/// What stands in a close behind the connection id: the code, and the reason as text.
pub(super) fn close(reason: &CloseReason) -> Vec<u8> {
    let text = match reason {
        // A peer's close is answered with its code alone.
        CloseReason::Peer(_) => "",
        reason => reason.text(),
    };
    [&reason.code().to_be_bytes(), text.as_bytes()].concat()
}

/// Appends a frame with what `write` appends, and none where that is nothing.
fn own(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(FRAME);
    write(out);
    if out.len() == start + 1 {
        out.truncate(start);
    }
}
