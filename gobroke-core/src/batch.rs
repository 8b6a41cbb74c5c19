//! [`Batch`]: what one read gave a connection, in order.

use std::cell::Cell;

use bytes::Bytes;

use crate::{Message, MessageId, id};

/// What one read gave a connection, in order: messages, and control frames that answer in that order.
///
/// An endpoint fills it, [`Incoming::receive`](crate::Incoming::receive) takes from it. It holds no memory while it is
/// empty: its buffer goes back to the thread, so an idle connection has none.
#[derive(Default)]
pub struct Batch {
    items: Vec<Inbound>,
    /// How many of them are dropped: they stand in front until all are.
    dropped: usize,
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
    static SPARED: Cell<Vec<Inbound>> = const { Cell::new(Vec::new()) };
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
        self.items.push(Inbound::Message(Some(message)));
    }

    /// Appends an encoded control frame for the client itself (a pong): it goes out behind what the messages before it
    /// caused at once.
    pub fn push_frame(&mut self, frame: impl Into<Bytes>) {
        self.prepare();
        self.items.push(Inbound::Frame(frame.into()));
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
        self.items.push(Inbound::Error {
            code,
            message: message.into(),
            id,
        });
    }

    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.items.len() - self.dropped
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// For one more item.
    fn prepare(&mut self) {
        if self.items.len() == self.items.capacity() {
            self.make_room();
        }
    }

    /// For the first item, or one that does not fit.
    fn make_room(&mut self) {
        if self.items.is_empty() {
            self.began = id::now();
            self.swap_buffers();
        } else if self.dropped > self.items.len() / 2 {
            self.items.drain(..self.dropped);
            self.dropped = 0;
        }
    }

    /// An item, where it stands: by its place behind the first.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Inbound> {
        self.items.get_mut(self.dropped + index)
    }

    /// Drops the first items.
    pub(crate) fn drop_first(&mut self, count: usize) {
        let dropped = self.dropped + count;
        if dropped < self.items.len() {
            self.items[self.dropped..dropped].fill_with(|| Inbound::Message(None));
            self.dropped = dropped;
            return;
        }
        self.dropped = 0;
        self.items.clear();
        if (1..=SPARE).contains(&self.items.capacity()) {
            self.swap_buffers();
        }
        if self.items.capacity() > 0 {
            self.items = Vec::new();
        }
    }

    /// Takes the thread's buffer, or leaves it the batch's.
    fn swap_buffers(&mut self) {
        SPARED.with(|spared| spared.swap(Cell::from_mut(&mut self.items)));
    }

    /// Puts a message back that has been through the middleware, and waits for room.
    pub(crate) fn put_back(&mut self, mut message: Message) {
        message.come_back();
        self.put_back_as_it_is(message);
    }

    /// Puts a message back that was not touched.
    pub(crate) fn put_back_as_it_is(&mut self, message: Message) {
        let item = Inbound::Message(Some(message));
        if self.dropped > 0 {
            self.dropped -= 1;
            self.items[self.dropped] = item;
            return;
        }
        if self.items.is_empty() {
            self.swap_buffers();
        }
        self.items.insert(0, item);
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

    /// What it holds, by the payloads.
    fn held(batch: &mut Batch) -> Vec<String> {
        let payload = |item: &mut Inbound| match item {
            Inbound::Message(Some(message)) => String::from_utf8_lossy(message.payload()).into(),
            _ => "?".to_owned(),
        };
        (0..batch.len())
            .filter_map(|index| batch.get_mut(index).map(payload))
            .collect()
    }

    #[test]
    fn what_is_dropped_and_put_back_keeps_the_order() {
        let numbered = |number: usize| Message::new(number.to_string());
        let mut batch = Batch::new();
        let (mut first, mut next) = (0, 0);
        // More are added than dropped, so that it grows with a part of it dropped.
        for round in 0..200 {
            for _ in 0..round % 7 {
                batch.push(numbered(next));
                next += 1;
            }
            let dropped = batch.len().min(round % 6);
            batch.drop_first(dropped);
            first += dropped;
            if round % 3 == 0 && first > 0 {
                first -= 1;
                batch.put_back_as_it_is(numbered(first));
            }
            let expected: Vec<_> = (first..next).map(|number| number.to_string()).collect();
            assert_eq!(held(&mut batch), expected, "in round {round}");
            assert_eq!(
                (batch.len(), batch.is_empty()),
                (next - first, next == first)
            );
        }
        batch.drop_first(batch.len());
        assert_eq!((batch.items.capacity(), batch.dropped), (0, 0));
    }

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
