//! [`Batch`]: what one read gave a connection, in order.

use std::{cell::Cell, collections::VecDeque};

use bytes::Bytes;

use crate::{Message, MessageId, id};

/// What one read gave a connection, in order: messages, and control frames that answer in that order.
///
/// An endpoint fills it, [`Incoming::receive`](crate::Incoming::receive) takes from it. It holds no memory while it is
/// empty: its buffer goes back to the thread, so an idle connection has none.
#[derive(Default)]
pub struct Batch {
    items: VecDeque<Inbound>,
    /// When its first item came, in milliseconds since 1970.
    began: u64,
}

/// One thing that came.
pub(crate) enum Inbound {
    /// Whoever takes the message out leaves the place empty: it is moved once, from here to where it stays.
    Message(Option<Message>),
    Frame(Bytes),
    Error {
        code: &'static str,
        message: String,
        id: Option<MessageId>,
    },
}

/// A buffer of more items than this is not kept.
const SPARE: usize = 1024;

thread_local! {
    /// The buffer of the last batch that was emptied on this thread.
    static SPARED: Cell<VecDeque<Inbound>> = const { Cell::new(VecDeque::new()) };
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// When the read was that filled it, in milliseconds since 1970.
    pub(crate) fn began(&self) -> u64 {
        self.began
    }

    /// Appends a message.
    #[inline]
    pub fn push(&mut self, mut message: Message) {
        message.take_came_back();
        self.prepare();
        self.items.push_back(Inbound::Message(Some(message)));
    }

    /// Appends an encoded control frame for the client itself (a pong): it goes out behind what the messages before it
    /// caused at once.
    pub fn push_frame(&mut self, frame: impl Into<Bytes>) {
        self.prepare();
        self.items.push_back(Inbound::Frame(frame.into()));
    }

    /// Appends an error for the client itself, in the encoder's form: what it sent could not be read, or is not
    /// allowed. See [`ErrorFrame`](crate::ErrorFrame).
    pub fn push_error(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        id: Option<MessageId>,
    ) {
        self.prepare();
        self.items.push_back(Inbound::Error {
            code,
            message: message.into(),
            id,
        });
    }

    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// For one more item.
    fn prepare(&mut self) {
        if self.items.is_empty() {
            self.began = id::now();
        }
        if self.items.capacity() == 0 {
            self.items = SPARED.take();
        }
    }

    /// An item, where it stands: by its place behind the first.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Inbound> {
        self.items.get_mut(index)
    }

    /// Drops the first items.
    pub(crate) fn drop_first(&mut self, count: usize) {
        if count < self.items.len() {
            self.items.drain(..count);
            return;
        }
        self.items.clear();
        if self.items.capacity() > 0 {
            let spare = std::mem::take(&mut self.items);
            if spare.capacity() <= SPARE {
                SPARED.set(spare);
            }
        }
    }

    /// Puts a message back that has been through the middleware, and waits for room.
    pub(crate) fn put_back(&mut self, mut message: Message) {
        message.come_back();
        self.put_back_as_it_is(message);
    }

    /// Puts a message back that was not touched.
    pub(crate) fn put_back_as_it_is(&mut self, message: Message) {
        if self.items.capacity() == 0 {
            self.items = SPARED.take();
        }
        self.items.push_front(Inbound::Message(Some(message)));
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_batch_holds_no_memory() {
        let mut batch = Batch::new();
        batch.push(Message::new("x"));
        assert!(batch.items.capacity() > 0);
        batch.push(Message::new("y"));
        batch.drop_first(1);
        assert_eq!(batch.len(), 1);
        batch.drop_first(1);
        assert_eq!(batch.items.capacity(), 0);
    }
}
