//! [`Lane`]: a queue of frames for a share of the sockets, and its passes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{demand::Demand, frames, member::Member};

/// What one turn writes at the most.
const SLICE: Duration = Duration::from_micros(250);
const WRITES_PER_LOOK: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum To {
    All,
    Others(usize),
    Room(usize),
    One(usize),
}

impl To {
    fn has(self, member: &Member) -> bool {
        match self {
            Self::All => true,
            Self::Others(index) => index != member.index,
            Self::Room(room) => room == member.room,
            Self::One(index) => index == member.index,
        }
    }
}

#[derive(Clone, Copy)]
pub struct Entry {
    pub to: To,
    /// Where its frame ends.
    pub end: usize,
}

#[derive(Default)]
pub struct Lane {
    queue: Mutex<Queue>,
    pass: Mutex<Pass>,
    wake: Notify,
}

#[derive(Default)]
pub struct Queue {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    phase: Phase,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Passing,
    Handed,
}

#[derive(Default)]
struct Pass {
    members: Vec<Arc<Member>>,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// What those get who are not named, if there is something.
    shared: Vec<u8>,
    /// Those who are, and what each gets.
    own: Vec<(usize, Vec<u8>)>,
    cursor: usize,
    active: bool,
    /// How many messages are shared, how long this pass has written, and how often.
    messages: usize,
    took: Duration,
    writes: usize,
    demand: Demand,
    last: Option<Instant>,
}

impl Queue {
    pub fn push(&mut self, payload: &[u8], entry: Entry) {
        frames::write(payload, &mut self.bytes);
        self.entries.push(Entry {
            end: self.bytes.len(),
            ..entry
        });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    pub fn lock(&self) -> MutexGuard<'_, Queue> {
        locked(&self.queue)
    }

    pub fn push(&self, payload: &[u8], entry: Entry) {
        self.lock().push(payload, entry);
    }

    pub fn admit(&self, member: Arc<Member>) {
        let mut pass = locked(&self.pass);
        // Handshakes overtake each other; the members stand in the order of their indices.
        let place = pass
            .members
            .partition_point(|known| known.index < member.index);
        pass.members.insert(place, member);
        if place < pass.cursor {
            pass.cursor += 1;
        }
    }

    pub fn remove(&self, member: &Arc<Member>) {
        let mut pass = locked(&self.pass);
        // The order of the others stays, and so does what a pass under way has still to write.
        if let Some(place) = pass
            .members
            .iter()
            .position(|known| Arc::ptr_eq(known, member))
        {
            pass.members.remove(place);
            if place < pass.cursor {
                pass.cursor -= 1;
            }
        }
    }

    /// Writes a frame to each receiver at once.
    pub fn write_now(&self, frame: &[u8], to: To) {
        for member in &locked(&self.pass).members {
            if to.has(member) {
                member.write(frame);
            }
        }
    }

    /// Makes the pass, unless somebody is at it.
    pub fn pass_here(&self) {
        {
            let mut queue = self.lock();
            if queue.phase != Phase::Idle || queue.entries.is_empty() {
                return;
            }
            queue.phase = Phase::Passing;
        }
        let until = Instant::now() + SLICE;
        while self.slice(until) && Instant::now() < until {
            if self.release() {
                return;
            }
        }
        self.lock().phase = Phase::Handed;
        self.wake.notify_one();
    }

    fn release(&self) -> bool {
        let mut queue = self.lock();
        let done = queue.entries.is_empty();
        if done {
            queue.phase = Phase::Idle;
        }
        done
    }

    /// Writes until the time is over; says whether the pass is done.
    fn slice(&self, until: Instant) -> bool {
        let mut pass = locked(&self.pass);
        if !pass.active {
            let mut queue = self.lock();
            let pass = &mut *pass;
            pass.bytes.clear();
            pass.entries.clear();
            std::mem::swap(&mut pass.bytes, &mut queue.bytes);
            std::mem::swap(&mut pass.entries, &mut queue.entries);
            drop(queue);
            pass.prepare();
        }
        let done = pass.write(until);
        if done {
            pass.note();
        }
        done
    }

    /// Goes on with passes that turns left, and rests if it may.
    pub async fn run(self: Arc<Self>, rests: bool) {
        loop {
            self.wake.notified().await;
            if self.lock().phase != Phase::Handed {
                continue;
            }
            self.lock().phase = Phase::Passing;
            loop {
                while !self.slice(Instant::now() + SLICE) {
                    tokio::task::yield_now().await;
                }
                if rests {
                    self.rest().await;
                }
                if self.release() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    async fn rest(&self) {
        let (step, rest) = {
            let mut pass = locked(&self.pass);
            let took = pass.took;
            pass.demand.rest(took)
        };
        if rest.is_zero() {
            return;
        }
        let before = self.lock().entries.len();
        let mut queued = before;
        let end = Instant::now() + rest;
        while Instant::now() < end {
            let step = step.min(end - Instant::now());
            tokio::time::sleep(step).await;
            let length = self.lock().entries.len();
            if length <= queued {
                break;
            }
            queued = length;
        }
        locked(&self.pass).demand.rested(queued > before);
    }
}

impl Pass {
    fn prepare(&mut self) {
        self.active = true;
        self.cursor = 0;
        self.took = Duration::ZERO;
        self.writes = 0;
        self.shared.clear();
        self.own.clear();
        self.messages = self
            .entries
            .iter()
            .filter(|entry| !matches!(entry.to, To::One(_)))
            .count();
        if self.entries.iter().all(|entry| entry.to == To::All) {
            std::mem::swap(&mut self.shared, &mut self.bytes);
            return;
        }
        if self.has_rooms() {
            // Each member's share is put together when it is written.
            return;
        }
        let mut named: Vec<usize> = Vec::new();
        let mut start = 0;
        for entry in &self.entries {
            match entry.to {
                To::One(index) | To::Others(index) => named.push(index),
                _ => {}
            }
            if matches!(entry.to, To::All | To::Others(_)) {
                self.shared.extend_from_slice(&self.bytes[start..entry.end]);
            }
            start = entry.end;
        }
        named.sort_unstable();
        named.dedup();
        self.own = named.into_iter().map(|index| (index, Vec::new())).collect();
        let none_shared = self.shared.is_empty();
        let mut start = 0;
        for entry in &self.entries {
            let frame = &self.bytes[start..entry.end];
            start = entry.end;
            match entry.to {
                // The usual case where all is direct: nobody else's share is touched.
                To::One(index) if none_shared => {
                    if let Ok(at) = self.own.binary_search_by_key(&index, |own| own.0) {
                        self.own[at].1.extend_from_slice(frame);
                    }
                }
                to => {
                    for (index, share) in &mut self.own {
                        if to == To::One(*index)
                            || (to != To::Others(*index) && !matches!(to, To::One(_)))
                        {
                            share.extend_from_slice(frame);
                        }
                    }
                }
            }
        }
    }

    fn has_rooms(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| matches!(entry.to, To::Room(_)))
    }

    fn write(&mut self, until: Instant) -> bool {
        let began = Instant::now();
        let mut left = WRITES_PER_LOOK;
        let rooms = self.has_rooms();
        // Where each gets its own, only they are visited.
        let visit_all = rooms || !self.shared.is_empty();
        let end = if visit_all {
            self.members.len()
        } else {
            self.own.len()
        };
        while self.cursor < end {
            let at = self.cursor;
            self.cursor += 1;
            let wrote = if visit_all {
                let member = &self.members[at];
                match rooms {
                    true => self.write_room(member),
                    false => match self.own.binary_search_by_key(&member.index, |own| own.0) {
                        Ok(own) if self.own[own].1.is_empty() => false,
                        Ok(own) => {
                            member.write(&self.own[own].1);
                            true
                        }
                        Err(_) => {
                            member.write(&self.shared);
                            true
                        }
                    },
                }
            } else {
                let (index, share) = &self.own[at];
                match self
                    .members
                    .binary_search_by_key(index, |member| member.index)
                {
                    Ok(place) => {
                        self.members[place].write(share);
                        true
                    }
                    Err(_) => false,
                }
            };
            self.writes += usize::from(wrote);
            left -= usize::from(wrote);
            if left == 0 {
                left = WRITES_PER_LOOK;
                if Instant::now() >= until {
                    self.took += began.elapsed();
                    return false;
                }
            }
        }
        self.took += began.elapsed();
        self.active = false;
        true
    }

    /// Takes note of a pass that is done.
    fn note(&mut self) {
        let now = Instant::now();
        let since = self.last.map_or(Duration::from_secs(1), |last| now - last);
        self.last = Some(now);
        self.demand
            .passed(self.writes * self.messages, self.writes, self.took, since);
    }

    fn write_room(&self, member: &Arc<Member>) -> bool {
        let mut share = Vec::new();
        let mut start = 0;
        for entry in &self.entries {
            if entry.to.has(member) {
                share.extend_from_slice(&self.bytes[start..entry.end]);
            }
            start = entry.end;
        }
        if !share.is_empty() {
            member.write(&share);
        }
        !share.is_empty()
    }
}
