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
/// fed are down to half. So accepted messages meet no full queue in normal life.
///
/// Those who wait go on one after the other: room that is given back wakes the first, and whoever goes on wakes the
/// next, who looks whether there still is room. All at once would mostly wake up for nothing: of a hundred doors a
/// few fill what was given back.
#[derive(Debug)]
pub(crate) struct Room {
    entries: AtomicUsize,
    bytes: AtomicUsize,
    max_entries: usize,
    max_bytes: usize,
    /// Whether who waits goes on as soon as there is room for one, not at half.
    eager: bool,
    eased: Notify,
    waiting: AtomicUsize,
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
            waiting: AtomicUsize::new(0),
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
        self.entries.fetch_sub(entries, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
        // Either this sees who waits, or the one who waits sees what is left.
        fence(SeqCst);
        if self.waiting.load(Relaxed) > 0 && self.is_low() {
            // Two, since a runtime keeps the task that is woken last for the thread that wakes it.
            self.eased.notify_one();
            self.eased.notify_one();
        }
    }

    /// Whether so little is left that those who wait are woken: well before it is empty, and long after it was full,
    /// so that there is much to do for each time that a thread is woken.
    fn is_low(&self) -> bool {
        match self.eager {
            true => self.is_eased(),
            false => {
                self.entries.load(Relaxed) <= self.max_entries / 4
                    && self.bytes.load(Relaxed) <= self.max_bytes / 4
            }
        }
    }

    /// Whether it has eased so far that who waits goes on.
    fn is_eased(&self) -> bool {
        match self.eager {
            true => self.entries.load(Relaxed) < self.max_entries,
            false => !self.is_pressed(),
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
        let goes_on = || self.is_eased() && (bytes == 0 || self.fits(bytes));
        if goes_on() {
            return;
        }
        let waiting = Waiting::enroll(&self.waiting);
        loop {
            // A wake-up that a dropped wait was given goes to the next.
            let mut eased = std::pin::pin!(self.eased.notified());
            eased.as_mut().enable();
            fence(SeqCst);
            if goes_on() {
                break;
            }
            eased.await;
        }
        drop(waiting);
        if self.waiting.load(Relaxed) > 0 && self.is_eased() {
            self.eased.notify_one();
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enroll(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
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

    #[tokio::test]
    async fn who_goes_on_wakes_the_next_also_where_one_gives_up() {
        let room = Arc::new(Room::new(4, 1000));
        (0..4).for_each(|_| assert!(room.reserve(1)));
        let mut waiters: Vec<_> = (0..10)
            .map(|_| {
                let room = room.clone();
                tokio::spawn(async move { room.eased().await })
            })
            .collect();
        tokio::task::yield_now().await;
        room.release(3, 3);
        // Both that were woken are gone before they look.
        waiters.drain(..2).for_each(|waiter| waiter.abort());
        for waiter in waiters {
            waiter.await.expect("it goes on");
        }
    }
}
