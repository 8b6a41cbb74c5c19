//! [`Room`]: how full a queue is, and a way to wait until it is less so.

use std::sync::{
    Arc,
    atomic::{
        AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};

use tokio::sync::Notify;

/// How full a queue is, counted in entries and bytes, each with a bound.
///
/// Senders reserve and never wait; doors and workers wait, before a turn begins, until the queues that their last turn
/// fed are below half. So accepted messages meet no full queue in normal life.
#[derive(Debug)]
pub(crate) struct Room {
    entries: AtomicUsize,
    bytes: AtomicUsize,
    max_entries: usize,
    max_bytes: usize,
    eased: Notify,
    /// How many wait for room for an entry that did not fit: they are woken by every release.
    wanting: AtomicUsize,
}

impl Room {
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_entries,
            max_bytes,
            eased: Notify::new(),
            wanting: AtomicUsize::new(0),
        }
    }

    /// Takes room for one entry, or says that there is none. An entry larger than the bound fits an empty queue.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let entries = self.entries.fetch_add(1, Relaxed);
        let held = self.bytes.fetch_add(bytes, Relaxed);
        if entries < self.max_entries && (held == 0 || held + bytes <= self.max_bytes) {
            return true;
        }
        self.release(1, bytes);
        false
    }

    /// Takes room past the bound: for what must not be refused (joins, leaves, closings).
    pub(crate) fn force(&self, bytes: usize) {
        self.entries.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Whether an entry of this size would be taken now.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        let held = self.bytes.load(Relaxed);
        self.entries.load(Relaxed) < self.max_entries
            && (held == 0 || held + bytes <= self.max_bytes)
    }

    pub(crate) fn release(&self, entries: usize, bytes: usize) {
        let before = self.entries.fetch_sub(entries, Relaxed);
        let held = self.bytes.fetch_sub(bytes, Relaxed);
        // Only the release that crosses the quarter wakes; a waiter looks again after it has enrolled.
        let above = before > self.max_entries / 4 || held > self.max_bytes / 4;
        if (above && self.is_eased()) || self.wanting.load(SeqCst) > 0 {
            self.eased.notify_waiters();
        }
    }

    /// Whether it is at a quarter or below. Who waits goes on only here, not at the half: else each message that
    /// leaves would wake all who wait, for room for one.
    fn is_eased(&self) -> bool {
        self.entries.load(Relaxed) <= self.max_entries / 4
            && self.bytes.load(Relaxed) <= self.max_bytes / 4
    }

    /// Whether it is above half.
    pub(crate) fn is_pressed(&self) -> bool {
        self.entries.load(Relaxed) > self.max_entries / 2
            || self.bytes.load(Relaxed) > self.max_bytes / 2
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Waits until it is at a quarter or below. Cancel-safe.
    pub(crate) async fn eased(&self) {
        self.eased_for(0).await;
    }

    /// Waits until an entry of this size fits; with 0, until it is at a quarter or below. Cancel-safe.
    pub(crate) async fn eased_for(&self, bytes: usize) {
        let _wanting = (bytes > 0).then(|| Wanting::enroll(&self.wanting));
        loop {
            let mut eased = std::pin::pin!(self.eased.notified());
            eased.as_mut().enable();
            let eased_now = match bytes {
                0 => self.is_eased(),
                bytes => self.fits(bytes),
            };
            if eased_now {
                return;
            }
            eased.await;
        }
    }
}

struct Wanting<'a>(&'a AtomicUsize);

impl<'a> Wanting<'a> {
    fn enroll(wanting: &'a AtomicUsize) -> Self {
        wanting.fetch_add(1, SeqCst);
        Self(wanting)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// What a turn has to wait for before the next one: a queue that it found above half, or without room.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub(crate) room: Arc<Room>,
    /// The entry that found no room; 0 for none.
    pub(crate) bytes: usize,
    /// Whether it is logic's. Only the door waits for logic, and not for ever: logic that waited for logic could wait
    /// in a circle.
    pub(crate) logic: bool,
}

impl Want {
    pub(crate) fn is_pressing(&self) -> bool {
        self.bytes > 0 || self.room.is_pressed()
    }

    /// Cancel-safe.
    pub(crate) async fn eased(&self) {
        self.room.eased_for(self.bytes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_at_the_bound_and_counts_nothing_for_it() {
        let room = Room::new(2, 100);
        assert!(room.reserve(60));
        assert!(!room.reserve(60), "bytes");
        assert!(room.reserve(40));
        assert!(!room.reserve(0), "entries");
        assert_eq!((room.entries(), room.bytes()), (2, 100));
    }

    #[test]
    fn one_entry_above_the_bound_fits_an_empty_queue() {
        let room = Room::new(2, 100);
        assert!(room.reserve(1000));
        assert!(!room.reserve(1));
    }

    #[tokio::test]
    async fn who_found_no_room_goes_on_when_there_is_enough() {
        let room = Arc::new(Room::new(100, 10_000));
        assert!(room.reserve(1000) && room.reserve(1000));
        assert!(
            !room.reserve(8500),
            "it does not fit, though a fifth is in use"
        );
        let want = Want {
            room: room.clone(),
            bytes: 8500,
            logic: true,
        };
        let waiter = tokio::spawn(async move { want.eased().await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        room.release(1, 1000);
        waiter.await.expect("it ends");
    }

    #[tokio::test]
    async fn who_waits_goes_on_at_a_quarter() {
        let room = std::sync::Arc::new(Room::new(4, 1000));
        (0..4).for_each(|_| assert!(room.reserve(1)));
        let waiter = tokio::spawn({
            let room = room.clone();
            async move { room.eased().await }
        });
        tokio::task::yield_now().await;
        room.release(2, 2);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        room.release(1, 1);
        waiter.await.expect("it ends");
    }
}
