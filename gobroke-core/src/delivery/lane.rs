//! [`Lane`]: the ordered queue of a share of the clients, and who passes it.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;

use super::{
    ahead::Ahead,
    context::LaneContext,
    demand::Demand,
    entry::Entry,
    members::Members,
    pass::{Pass, Tally},
    room::Room,
};
use crate::{
    client::ClientShared,
    stats::Counter,
    sync::{
        Instant, Mutex, MutexGuard, Notify,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
        sleep_until,
    },
};

/// A slice of a pass: what a turn writes at the most before it hands over, and a task between two yields.
pub(crate) const SLICE: Duration = Duration::from_micros(250);
/// After so many slices the thread looks for what came in: every half millisecond.
const SLICES_PER_LOOK: u32 = 2;
/// How far a direct message looks ahead for something that concerns its client.
const LOOK_AHEAD: usize = 128;

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

/// What only the one who passes touches.
#[derive(Default)]
struct Passing {
    members: Members,
    pass: Pass,
    taken: VecDeque<Entry>,
    demand: Demand,
    last_end: Option<Instant>,
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

    /// What the one with the right to pass touches: nobody else has it now.
    fn passing(&self) -> MutexGuard<'_, Passing> {
        let passing = self.passing.try_lock();
        debug_assert!(
            passing.is_some() || self.queue.lock().closed,
            "one pass of a lane at a time"
        );
        // When the router has stopped, its members are being forgotten.
        passing.unwrap_or_else(|| self.passing.lock())
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

    /// Passes what is queued; says whether that is done, or the time was over, and keeps the time. Only with the right
    /// to pass.
    fn slice(&self, now: &mut Instant, until: Instant) -> bool {
        let mut passing = self.passing();
        let Passing {
            members,
            pass,
            taken,
            demand,
            last_end,
        } = &mut *passing;
        loop {
            if !pass.is_active() {
                if taken.is_empty() {
                    self.take(taken);
                }
                if taken.is_empty() {
                    return true;
                }
                let (entries, weight) = pass.prepare(members, taken, &self.context);
                self.room.release(entries, weight);
                shrink(taken);
            }
            if !pass.write(members, &self.context, now, until) {
                return false;
            }
            let tally = std::mem::take(&mut pass.tally);
            self.count(&tally);
            let since = last_end.map_or(Duration::from_secs(1), |last| *now - last);
            *last_end = Some(*now);
            demand.passed(&tally, since, self.context.sharing);
            self.context.relieve();
            if taken.is_empty() {
                return true;
            }
            if *now >= until {
                return false;
            }
        }
    }

    pub(super) fn count(&self, tally: &Tally) {
        self.delivered.add(tally.delivered);
        let stats = &self.context.stats;
        stats.writes.add(tally.writes);
        for (counter, by) in [
            (&stats.dropped, tally.dropped),
            (&stats.unknown, tally.unknown),
            (&stats.slow_consumers, tally.slow),
        ] {
            if by > 0 {
                counter.add(by);
            }
        }
    }

    /// Writes direct messages whose client nothing before them concerns: an answer does not wait for somebody else's
    /// room. Only with the right to pass.
    fn write_ahead(&self) {
        let mut passing = self.passing();
        let Passing {
            members,
            pass,
            taken,
            ..
        } = &mut *passing;
        if taken.len() > LOOK_AHEAD {
            return;
        }
        let mut found: SmallVec<[(Entry, Arc<ClientShared>); 4]> = SmallVec::new();
        {
            let mut queue = self.queue.lock();
            let mut ahead = Ahead::default();
            if taken.iter().any(|entry| ahead.pass_by(entry)) {
                return;
            }
            let mut index = 0;
            while index < queue.entries.len().min(LOOK_AHEAD) {
                let entry = &queue.entries[index];
                if let Some(client) = ahead.free(entry, pass, members)
                    && let Some(entry) = queue.entries.remove(index)
                {
                    self.room.release(1, entry.weight());
                    found.push((entry, client));
                    continue;
                }
                if ahead.pass_by(&queue.entries[index]) {
                    break;
                }
                index += 1;
            }
        }
        for (entry, client) in found {
            pass.write_ahead(&entry, &client, &self.context);
        }
    }

    /// The lane's task: passes what turns leave to it, and rests where the load calls for it.
    pub(crate) async fn run(self: Arc<Self>, stopped: CancellationToken) {
        loop {
            tokio::select! {
                () = self.task.notified() => {}
                () = stopped.cancelled() => return self.clear(),
            }
            if !self.take_over() {
                continue;
            }
            let mut slices = 0u32;
            loop {
                let done = self.slice_caught();
                slices = slices.wrapping_add(1);
                if !done {
                    self.write_ahead_caught();
                    if slices.is_multiple_of(SLICES_PER_LOOK) {
                        look_at_sockets().await;
                    } else {
                        Yield::default().await;
                    }
                    continue;
                }
                let rest = self.passing().demand.rest(self.context.coalesce);
                if !rest.is_zero() {
                    self.rest(rest).await;
                }
                if self.release_if_done() {
                    break;
                }
                // Others keep feeding it: its thread's other tasks come first.
                Yield::default().await;
            }
        }
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

    /// A slice; a panic in it (a defect of ours: codecs and wires are caught) loses that pass, and neither the lane nor
    /// what was taken for later passes.
    fn slice_caught(&self) -> bool {
        let mut now = Instant::now();
        let until = now + SLICE;
        catch_unwind(AssertUnwindSafe(|| self.slice(&mut now, until))).unwrap_or_else(|_| {
            let mut passing = self.passing();
            let Passing {
                members,
                pass,
                taken,
                ..
            } = &mut *passing;
            let (lost, queued, weight) = pass.abandon(members, taken);
            self.room.release(queued, weight);
            self.context.stats.panics.add(1);
            self.context.stats.dropped.add(lost as u64);
            tracing::error!(
                lane = self.context.index,
                lost,
                "a pass panicked; its messages are lost"
            );
            taken.is_empty()
        })
    }

    fn write_ahead_caught(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.write_ahead())).is_err() {
            self.context.stats.panics.add(1);
        }
    }

    /// Gathers: in steps as long as the last pass; the first in which nothing came ends it.
    async fn rest(&self, rest: Duration) {
        let step = self.passing().demand.step();
        let end = Instant::now() + rest;
        let mut queued = {
            let mut queue = self.queue.lock();
            queue.phase = Phase::Resting;
            queue.entries.len()
        };
        let had_some = queued > 0;
        let mut steps = 0;
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            sleep_until((now + step).min(end)).await;
            let length = self.queue.lock().entries.len();
            if length <= queued {
                break;
            }
            steps += 1;
            queued = length;
        }
        // A turn may be writing ahead: it gives the phase back under the lock.
        while !self.wake_up() {
            Yield::default().await;
        }
        self.passing().demand.rested(had_some, steps);
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

/// A queue that was long gives its memory back when it is empty.
fn shrink(entries: &mut VecDeque<Entry>) {
    if entries.is_empty() && entries.capacity() > 4096 {
        *entries = VecDeque::new();
    }
}

/// Gives way until the thread has looked which sockets are ready. With a task that is always ready the runtime does so
/// after 61 tasks only (its `event_interval`), and with a slice for each of them that is 15 ms.
pub(crate) async fn look_at_sockets() {
    #[cfg(not(gobroke_interleavings))]
    tokio::task::yield_now().await;
    #[cfg(gobroke_interleavings)]
    Yield::default().await;
}

/// Gives way to the other tasks of the thread, behind all that are ready; `yield_now` may come back much later.
#[derive(Default)]
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
