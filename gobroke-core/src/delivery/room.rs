//! [`Room`]: how full a queue is, and a way to wait until it is less so.

use std::sync::Arc;

use crate::sync::{
    Notify,
    atomic::{
        AtomicUsize,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

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
    /// Whether who waits goes on as soon as there is room for one; else at a quarter, since each message that leaves
    /// would wake all who wait, for room for one.
    eager: bool,
    eased: Notify,
    /// How many wait for room for an entry that did not fit, though little was held: every release wakes them.
    wanting: AtomicUsize,
}

impl Room {
    /// Room where who waits goes on as soon as there is some: for handlers under way, which may take long.
    pub(crate) fn eager(max_entries: usize) -> Self {
        Self {
            eager: true,
            ..Self::new(max_entries, usize::MAX)
        }
    }

    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_entries,
            max_bytes,
            eager: false,
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
        // Either this sees who waits, or the one who waits sees what is left.
        fence(SeqCst);
        let crossed = before > self.low(self.max_entries) || held > self.low(self.max_bytes);
        if (crossed || self.wanting.load(Relaxed) > 0) && self.is_eased() {
            self.eased.notify_waiters();
        }
    }

    /// Whether it has eased so far that who waits goes on.
    fn is_eased(&self) -> bool {
        self.entries.load(Relaxed) <= self.low(self.max_entries)
            && self.bytes.load(Relaxed) <= self.low(self.max_bytes)
    }

    fn low(&self, max: usize) -> usize {
        match self.eager {
            true => max.saturating_sub(1),
            false => max / 4,
        }
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

    /// Waits until it has eased. Cancel-safe.
    pub(crate) async fn eased(&self) {
        self.eased_for(0).await;
    }

    /// Waits until it has eased, and an entry of this size fits. Cancel-safe.
    pub(crate) async fn eased_for(&self, bytes: usize) {
        let _wanting = (bytes > 0).then(|| Wanting::enroll(&self.wanting));
        loop {
            let mut eased = std::pin::pin!(self.eased.notified());
            eased.as_mut().enable();
            fence(SeqCst);
            if self.is_eased() && (bytes == 0 || self.fits(bytes)) {
                return;
            }
            eased.await;
        }
    }
}

struct Wanting<'a>(&'a AtomicUsize);

impl<'a> Wanting<'a> {
    fn enroll(wanting: &'a AtomicUsize) -> Self {
        wanting.fetch_add(1, Relaxed);
        Self(wanting)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
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
