//! [`Lane`]: the ordered queue of a share of the clients, and who passes it.

mod passing;
mod task;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use self::passing::Passing;
pub(crate) use self::task::look_at_sockets;
use super::{context::LaneContext, entry::Entry, room::Room};
use crate::{
    stats::Counter,
    sync::{
        Instant, Mutex, MutexGuard, Notify,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

/// A slice of a pass: what a turn writes at the most before it hands over, and a task between two yields.
pub(crate) const SLICE: Duration = Duration::from_micros(250);

/// The ordered queue of a share of the clients, and its passes.
///
/// Appending takes a short lock. Whoever finds the lane idle passes it; whoever finds a pass under way leaves its
/// entries to that. That a lane is being passed is a flag under the queue's lock.
pub(crate) struct Lane {
    pub(crate) context: LaneContext,
    pub(crate) room: Arc<Room>,
    queue: Mutex<Queue>,
    passing: Mutex<Passing>,
    /// Nothing is queued and nobody passes. It changes under the queue's lock.
    quiet: AtomicBool,
    task: Notify,
    /// A direct message was queued that no turn passes: in a rest it goes ahead.
    direct: Notify,
    pub(crate) delivered: Counter,
}

#[derive(Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    phase: Phase,
    /// Somebody who is done has left entries to the one who passes. What else is queued is of turns under way: each
    /// passes it at its end, all of it as one write.
    left: bool,
    /// The router has stopped: nothing more is queued.
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    /// Somebody makes a pass.
    Passing,
    /// A turn left a pass unfinished; the lane's task goes on with it.
    Handed,
    /// The lane's task gathers before the next pass.
    Resting,
}

/// A turn's right to pass. Its end, by a panic too, gives the lane back: as what is noted here.
struct Claim<'a> {
    lane: &'a Lane,
    back: Option<Phase>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let Some(phase) = self.back else {
            return;
        };
        self.lane.queue.lock().phase = phase;
        if phase == Phase::Handed {
            self.lane.wake();
        }
    }
}

impl Lane {
    pub(crate) fn new(context: LaneContext, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            context,
            room: Arc::new(Room::new(usize::MAX, max_bytes)),
            queue: Mutex::default(),
            passing: Mutex::default(),
            quiet: AtomicBool::new(true),
            task: Notify::new(),
            direct: Notify::new(),
            delivered: Counter::default(),
        })
    }

    /// The queue, for one who appends to several lanes under all their locks.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Appends under the lock, having asked for room.
    pub(crate) fn push(&self, queue: &mut Queue, entry: Entry) {
        if queue.closed {
            return;
        }
        self.room.force(entry.weight());
        queue.entries.push_back(entry);
        self.quiet.store(false, Release);
    }

    /// Whether nothing is queued and nobody passes: all that was ever queued before has reached the outboxes.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.load(Acquire)
    }

    /// Appends what must not be refused, and sees to it that it is passed.
    pub(crate) fn append(self: &Arc<Self>, entry: Entry) {
        let mut queue = self.queue.lock();
        self.push(&mut queue, entry);
        drop(queue);
        super::turn::fed(self);
    }

    pub(crate) fn wake(&self) {
        self.task.notify_one();
    }

    /// The same where a message for one client was queued: it does not wait for the end of a rest.
    pub(crate) fn wake_for_one(&self) {
        self.direct.notify_one();
        self.wake();
    }

    /// Makes the pass on this thread, unless somebody is at it, and leaves to the lane's task what is not done then.
    /// Takes the time that it is, and says what it was at the last look.
    pub(crate) fn pass_here(&self, mut now: Instant, until: Instant) -> Instant {
        let Some(phase) = self.claim() else {
            return now;
        };
        let mut claim = Claim {
            lane: self,
            back: Some(phase),
        };
        if phase == Phase::Resting {
            // It gathers; what may go ahead does.
            self.write_ahead();
            return now;
        }
        claim.back = Some(Phase::Handed);
        while self.slice(&mut now, until) {
            if self.release_if_done() {
                claim.back = None;
                break;
            }
            if now >= until {
                break;
            }
        }
        now
    }

    /// Takes the right to pass from an idle or resting lane that has something queued; gives the phase it was in.
    fn claim(&self) -> Option<Phase> {
        let mut queue = self.queue.lock();
        if queue.entries.is_empty() {
            return None;
        }
        let phase = queue.phase;
        queue.left = phase != Phase::Idle;
        if matches!(phase, Phase::Passing | Phase::Handed) {
            return None;
        }
        queue.phase = Phase::Passing;
        Some(phase)
    }

    /// Gives the lane back if nobody has left anything to the one who passes.
    fn release_if_done(&self) -> bool {
        let mut queue = self.queue.lock();
        let done = !queue.left;
        if done {
            queue.phase = Phase::Idle;
            self.quiet.store(queue.entries.is_empty(), Release);
        }
        done
    }

    /// Takes all that is queued.
    fn take(&self, taken: &mut VecDeque<Entry>) {
        let mut queue = self.queue.lock();
        queue.left = false;
        std::mem::swap(taken, &mut queue.entries);
    }

    /// Forgets its members and what is queued, when the router has stopped: they hold the lane as it holds them.
    fn clear(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.phase = Phase::Passing;
        let mut entries = std::mem::take(&mut queue.entries);
        drop(queue);
        let passing = std::mem::take(&mut *self.passing.lock());
        entries.extend(passing.taken);
        // Whoever still waits for room finds it, and then that the router has stopped.
        let weight = entries.iter().map(Entry::weight).sum();
        self.room.release(entries.len(), weight);
    }

    /// Takes the right to pass: what was handed over, or what an idle lane has queued. Who woke the task has left
    /// entries, to it or to the one who passes.
    fn take_over(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.left = true;
        let take = match queue.phase {
            Phase::Handed => true,
            Phase::Idle => !queue.entries.is_empty(),
            Phase::Passing | Phase::Resting => false,
        };
        if take {
            queue.phase = Phase::Passing;
        }
        take
    }

    /// Ends a rest.
    fn wake_up(&self) -> bool {
        let mut queue = self.queue.lock();
        let resting = queue.phase == Phase::Resting;
        if resting {
            queue.phase = Phase::Passing;
        }
        resting
    }

    /// Whether nothing is queued and nobody passes.
    pub(crate) fn is_idle(&self) -> bool {
        let queue = self.queue.lock();
        queue.phase == Phase::Idle && queue.entries.is_empty()
    }
}
