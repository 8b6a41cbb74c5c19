//! [`Inbox`]: through which an implementation hands to core what arrives and what happens.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::InstanceId;

/// How many bytes of arrivals may wait. What comes beyond is dropped; lines notice, and repair or count it.
const BOUND: usize = 16 << 20;

/// What a frame that waits costs beside its bytes, about.
const EACH: usize = 64;

/// Where an implementation of [`Cluster`](super::Cluster) puts frames that arrived and [`Notice`]s.
///
/// Cheap to clone. No method waits, so the reader of a connection never waits for logic.
#[derive(Clone)]
pub struct Inbox(Arc<Shared>);

/// What happened in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// An instance is there and hears what is published from now on. Its record names this [version of
    /// envelopes](super::VERSION) as the highest that it knows.
    Joined(InstanceId, u8),
    /// An incarnation of an instance is gone for good, and its clients with it. Told once for each.
    Left(InstanceId, Leaving),
    /// The carrier is away: frames may still be handed to it, but core keeps what it has from now on, and counts
    /// nothing as lost for being late.
    Away,
    /// The carrier works (again), but this instance may not hear all that others send. It is not ready meanwhile.
    Deaf,
    /// The carrier works (again), and this instance hears. Frames may have been missed before: core asks.
    Back,
    /// The directory lost what this instance wrote: core writes everything again.
    OutOfStep,
    /// This incarnation was removed from the cluster, its lease having ended. Core joins anew.
    Expelled,
    /// A newer instance has this one's name. Core stops taking part, and the instance is not ready.
    Superseded,
}

/// Why an instance left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leaving {
    /// It said so: a clean stop.
    Stopped,
    /// Its lease ended: it crashed, hangs, or cannot reach the cluster.
    Expired,
    /// A newer incarnation has its name.
    Replaced,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Event {
    Frame(Bytes),
    Notice(Notice),
    /// Time has passed, or there is something to be done that did not come from outside.
    Tick,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Told when something was put in.
    filled: Notify,
    /// Told when something was taken out.
    emptied: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    bytes: usize,
    dropped: u64,
    ticked: bool,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
        }))
    }

    /// Hands over a frame as it was published. Where 16 MiB wait already it is dropped and counted, and `false` is
    /// returned; there is nothing to be done about it, for core repairs what is missing.
    pub fn arrived(&self, frame: Bytes) -> bool {
        self.all_arrived([frame]) == 1
    }

    /// Hands over frames that arrived together, in order, and says how many of them were taken; see
    /// [`arrived`](Self::arrived). The inbox is locked meanwhile: `frames` must neither wait nor use it.
    pub fn all_arrived(&self, frames: impl IntoIterator<Item = Bytes>) -> usize {
        let mut taken = 0;
        let mut queue = self.0.queue.lock();
        for frame in frames {
            if queue.bytes >= BOUND {
                queue.dropped += 1;
                continue;
            }
            queue.bytes += frame.len() + EACH;
            queue.events.push_back(Event::Frame(frame));
            taken += 1;
        }
        drop(queue);
        self.0.filled.notify_one();
        taken
    }

    /// Hands over a notice, in its place among the frames. Never dropped.
    pub fn notice(&self, notice: Notice) {
        self.0.queue.lock().events.push_back(Event::Notice(notice));
        self.0.filled.notify_one();
    }

    /// Says that time has passed; once for all that wait.
    pub(crate) fn tick(&self) {
        let mut queue = self.0.queue.lock();
        if !std::mem::replace(&mut queue.ticked, true) {
            queue.events.push_back(Event::Tick);
        }
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Whether less than half of its bound waits.
    pub fn has_room(&self) -> bool {
        self.0.queue.lock().bytes < BOUND / 2
    }

    /// Waits until less than half of the bound waits: for carriers within the process. Cancel-safe.
    pub async fn room(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.has_room() {
                return;
            }
            emptied.await;
        }
    }

    /// How many frames were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.queue.lock().dropped
    }

    /// Waits until something is there, and takes frames of up to `most` bytes. Cancel-safe.
    pub(crate) async fn take(&self, most: usize, into: &mut Vec<Event>) {
        while !self.try_take(most, into) {
            self.0.filled.notified().await;
        }
    }

    /// Takes what is there, and says whether anything was.
    pub(crate) fn try_take(&self, most: usize, into: &mut Vec<Event>) -> bool {
        let mut queue = self.0.queue.lock();
        let before = into.len();
        let mut bytes = 0;
        while bytes < most {
            let Some(event) = queue.events.pop_front() else {
                break;
            };
            if let Event::Frame(frame) = &event {
                bytes += frame.len() + EACH;
            }
            if let Event::Tick = &event {
                queue.ticked = false;
            }
            into.push(event);
        }
        queue.bytes -= bytes;
        let roomy = queue.bytes < BOUND / 2;
        drop(queue);
        if roomy {
            self.0.emptied.notify_waiters();
        }
        into.len() > before
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.0.queue.lock();
        f.debug_struct("Inbox")
            .field("events", &queue.events.len())
            .field("bytes", &queue.bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_exceeds_the_bound_is_dropped_and_counted_and_notices_are_not() {
        let inbox = Inbox::new();
        let frame = Bytes::from(vec![0; 1 << 20]);
        let one_by_one = (0..10).filter(|_| inbox.arrived(frame.clone())).count();
        let taken = one_by_one + inbox.all_arrived((0..10).map(|_| frame.clone()));
        inbox.notice(Notice::Back);
        assert_eq!((taken, inbox.dropped()), (16, 4));
        let mut events = Vec::new();
        inbox.take(usize::MAX, &mut events).await;
        assert_eq!(events.len(), 17);
        assert!(matches!(events[16], Event::Notice(Notice::Back)));
        assert!(inbox.arrived(frame));
    }

    #[tokio::test]
    async fn room_comes_when_less_than_half_waits() {
        let inbox = Inbox::new();
        while inbox.has_room() {
            inbox.arrived(Bytes::from(vec![0; 1 << 20]));
        }
        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        inbox.take(2 << 20, &mut Vec::new()).await;
        waiting.await.unwrap();
    }
}
