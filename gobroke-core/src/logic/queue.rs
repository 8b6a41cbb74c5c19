//! [`Queue`]: what waits for a module.

use std::{collections::VecDeque, pin::pin, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{greeting::Greeted, module::Slice, run::first_poll};
use crate::{Client, CloseReason, Message, delivery::room::Room};

/// What waits for a module.
pub(crate) enum Item {
    Message(Message),
    Joined(Client, Greeted),
    Left(Client, CloseReason),
}

impl Item {
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Message(message) => message.weight(),
            Self::Joined(..) | Self::Left(..) => size_of::<Self>(),
        }
    }

    pub(super) fn hops(&self) -> u8 {
        match self {
            Self::Message(message) => message.hops(),
            Self::Joined(..) | Self::Left(..) => 0,
        }
    }
}

/// The messages that wait for a worker, or for a dispatched module from other logic.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Counts what waits and what is handled now.
    pub(crate) room: Arc<Room>,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    closed: bool,
}

/// Why a module takes no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Full,
    /// It has been removed.
    Closed,
}

impl Queue {
    pub(super) fn new(messages: usize, bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            room: Arc::new(Room::new(messages, bytes)),
        })
    }

    /// Takes room for a message that is appended later.
    pub(super) fn reserve(&self, weight: usize) -> Result<Reserved<'_>, NoRoom> {
        if !self.room.reserve(weight) {
            return Err(NoRoom::Full);
        }
        let reserved = Reserved {
            queue: self,
            weight,
            used: false,
        };
        // Either this sees the close, or the task that serves the queue sees the room taken, and waits for the message.
        match self.waiting.lock().closed {
            true => Err(NoRoom::Closed),
            false => Ok(reserved),
        }
    }

    /// Appends a message, or leaves it in its place.
    pub(super) fn offer(&self, place: &mut Option<Message>) -> Result<(), NoRoom> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(NoRoom::Closed);
        }
        let weight = place.as_ref().map_or(0, Message::weight);
        if !self.room.reserve(weight) {
            return Err(NoRoom::Full);
        }
        waiting.items.extend(place.take().map(Item::Message));
        let first = waiting.items.len() == 1;
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Appends an item for which room was taken.
    fn push(&self, item: Item) {
        let mut waiting = self.waiting.lock();
        waiting.items.push_back(item);
        let first = waiting.items.len() == 1;
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
    }

    /// Appends what must not be refused.
    pub(super) fn force(&self, item: Item) {
        self.room.force(item.weight());
        self.push(item);
    }

    /// The next items, some at a time; `None` once it is closed and empty. After a wait begins a new slice.
    pub(super) async fn take(
        &self,
        batch: &mut VecDeque<Item>,
        most: usize,
        slice: &mut Slice,
    ) -> Option<()> {
        loop {
            let closed = {
                let mut waiting = self.waiting.lock();
                if waiting.items.len() <= most {
                    std::mem::swap(&mut waiting.items, batch);
                } else {
                    batch.extend(waiting.items.drain(..most));
                }
                if !batch.is_empty() {
                    return Some(());
                }
                waiting.closed
            };
            if closed {
                if self.room.entries() == 0 {
                    return None;
                }
                // Somebody has taken room and appends in a moment, or gives it back.
                tokio::task::yield_now().await;
                continue;
            }
            let mut arrived = pin!(self.arrived.notified());
            // One that is there already is no wait: others feed it without a pause.
            if first_poll(&mut arrived).is_pending() {
                arrived.await;
                *slice = Slice::begin();
            }
        }
    }

    /// Takes back what was taken and not begun, to the front: its room was never given back.
    pub(super) fn give_back(&self, batch: &mut VecDeque<Item>) {
        let mut waiting = self.waiting.lock();
        for item in batch.drain(..).rev() {
            waiting.items.push_front(item);
        }
    }

    /// Waits until it is closed and empty. Cancel-safe.
    pub(super) async fn done(&self) {
        loop {
            let arrived = self.arrived.notified();
            {
                let waiting = self.waiting.lock();
                if waiting.closed && waiting.items.is_empty() && self.room.entries() == 0 {
                    return;
                }
            }
            arrived.await;
        }
    }

    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_one();
    }
}

/// Room taken in a module's queue; dropped without a message, it is given back.
pub(crate) struct Reserved<'a> {
    queue: &'a Queue,
    weight: usize,
    used: bool,
}

impl Reserved<'_> {
    pub(crate) fn commit(mut self, message: Message) {
        self.used = true;
        self.queue.push(Item::Message(message));
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.queue.room.release(1, self.weight);
        }
    }
}

/// An item that a worker has begun: its room is given back, also where its future is dropped in the middle.
pub(super) struct Handled<'a> {
    pub(super) queue: &'a Queue,
    pub(super) weight: usize,
}

impl Drop for Handled<'_> {
    fn drop(&mut self) {
        self.queue.room.release(1, self.weight);
    }
}
