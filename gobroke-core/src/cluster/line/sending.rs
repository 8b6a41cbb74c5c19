//! The origin's side of lines: numbers, what is kept to be sent again, and who has acknowledged what.

use std::{
    collections::{HashMap, VecDeque},
    ops::RangeInclusive,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Bounds, Counts, Out};
use crate::cluster::{
    InstanceId, To,
    envelope::{self, After, Base, Line, Mark, Position, VERSIONS, Writer},
};

/// The lines from this instance.
#[derive(Debug, Default)]
pub(super) struct Sending {
    all: Ring,
    peers: HashMap<InstanceId, Peer>,
    /// Targets whose line moved since the all-line did.
    moved: Vec<InstanceId>,
    /// How many peers the directory has named.
    joined: usize,
    kept: usize,
}

/// What an origin knows of a target.
#[derive(Debug)]
struct Peer {
    fingerprint: u64,
    /// The highest version of envelopes that it knows.
    version: u8,
    ring: Ring,
    /// Whether the directory has named it. Until then it may be one that is gone.
    joined: bool,
    /// Where the lines stood when it joined.
    base: Base,
    seen_pair: Position,
    seen_all: Position,
    /// When it was made, or marked last.
    marked: Instant,
    moved: bool,
}

/// One line: where it stands, and the last of what it carried.
#[derive(Debug, Default)]
struct Ring {
    last: Position,
    sent: Option<Instant>,
    kept: VecDeque<(Bytes, Instant)>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, frame: &Bytes, cargo: bool, now: Instant) {
        self.last = Position {
            number: self.last.number + 1,
            cargo: self.last.cargo + u64::from(cargo),
        };
        self.sent = Some(now);
        self.bytes += frame.len();
        self.kept.push_back((frame.clone(), now));
    }

    /// The number of the oldest that is kept, or the next one.
    fn first(&self) -> u64 {
        self.last.number + 1 - self.kept.len() as u64
    }

    fn drop_first(&mut self) -> usize {
        let freed = self.kept.pop_front().map_or(0, |(frame, _)| frame.len());
        self.bytes -= freed;
        freed
    }

    fn drop_through(&mut self, number: u64) -> usize {
        let mut freed = 0;
        while self.first() <= number && !self.kept.is_empty() {
            freed += self.drop_first();
        }
        freed
    }

    fn drop_before(&mut self, time: Instant) -> usize {
        let mut freed = 0;
        while self.kept.front().is_some_and(|(_, sent)| *sent < time) {
            freed += self.drop_first();
        }
        freed
    }
}

impl Peer {
    fn new(id: &InstanceId, now: Instant) -> Self {
        Self {
            fingerprint: id.fingerprint(),
            version: *VERSIONS.start(),
            ring: Ring::default(),
            joined: false,
            base: Base::default(),
            seen_pair: Position::default(),
            seen_all: Position::default(),
            marked: now,
            moved: false,
        }
    }

    /// How far it has taken the all-line, or need not.
    fn all(&self) -> Position {
        if self.seen_all.number > self.base.all.number {
            self.seen_all
        } else {
            self.base.all
        }
    }

    fn is_behind(&self, all: Position) -> bool {
        self.seen_pair.number < self.ring.last.number
            || self.joined && self.all().number < all.number
    }

    fn in_doubt(&self, all: Position) -> u64 {
        let pair = self.ring.last.cargo.saturating_sub(self.seen_pair.cargo);
        let all = if self.joined {
            all.cargo.saturating_sub(self.all().cargo)
        } else {
            0
        };
        pair + all
    }
}

impl Sending {
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// Takes note of a target, and says whether it is new.
    pub(super) fn met(&mut self, target: &InstanceId, now: Instant) -> bool {
        let new = !self.peers.contains_key(target);
        if new {
            self.peers.insert(target.clone(), Peer::new(target, now));
        }
        new
    }

    /// The highest of these versions that all targets know.
    ///
    /// One for all of them: a frame to all, or one that is sent again, is read by each.
    pub(super) fn version(&self, of: &RangeInclusive<u8>) -> u8 {
        let known = self.peers.values().map(|peer| peer.version);
        known
            .min()
            .unwrap_or(*of.end())
            .clamp(*of.start(), *of.end())
    }

    pub(super) fn frame_to_one(
        &mut self,
        me: &Writer,
        target: &InstanceId,
        cargo: bool,
        content: impl FnOnce(&mut Vec<u8>),
        now: Instant,
        bounds: &Bounds,
    ) -> Bytes {
        let all = self.all.last.number;
        let peer = self
            .peers
            .entry(target.clone())
            .or_insert_with(|| Peer::new(target, now));
        let place = Position {
            number: peer.ring.last.number + 1,
            cargo: peer.ring.last.cargo,
        };
        let frame = envelope::numbered(
            me,
            Some(peer.fingerprint),
            place,
            cargo,
            &After::All(all),
            content,
        );
        peer.ring.push(&frame, cargo, now);
        if !std::mem::replace(&mut peer.moved, true) {
            self.moved.push(target.clone());
        }
        self.kept += frame.len();
        while peer.ring.bytes > bounds.kept_line {
            self.kept -= peer.ring.drop_first();
        }
        self.bound(bounds);
        frame
    }

    /// Gives back how many instances it is for, too.
    pub(super) fn frame_to_all(
        &mut self,
        me: &Writer,
        cargo: bool,
        content: impl FnOnce(&mut Vec<u8>),
        now: Instant,
        bounds: &Bounds,
    ) -> (Bytes, u64) {
        let mut fences = Vec::with_capacity(self.moved.len());
        for target in self.moved.drain(..) {
            if let Some(peer) = self.peers.get_mut(&target) {
                peer.moved = false;
                fences.push((peer.fingerprint, peer.ring.last.number));
            }
        }
        let place = Position {
            number: self.all.last.number + 1,
            cargo: self.all.last.cargo,
        };
        let frame = envelope::numbered(me, None, place, cargo, &After::Pairs(fences), content);
        self.all.push(&frame, cargo, now);
        self.kept += frame.len();
        while self.all.bytes > bounds.kept_line {
            self.kept -= self.all.drop_first();
        }
        self.bound(bounds);
        (frame, self.joined as u64)
    }

    /// Keeps to the bound of all lines: the largest gives up its oldest.
    fn bound(&mut self, bounds: &Bounds) {
        while self.kept > bounds.kept {
            let rings = self
                .peers
                .values_mut()
                .map(|peer| &mut peer.ring)
                .chain([&mut self.all]);
            let Some(largest) = rings.max_by_key(|ring| ring.bytes) else {
                return;
            };
            // More than one at a time, so that the search is paid for.
            let enough = largest.bytes - largest.bytes / 8;
            while largest.bytes > enough {
                self.kept -= largest.drop_first();
            }
        }
    }

    pub(super) fn joined(&mut self, id: &InstanceId, version: u8, now: Instant) {
        let all = self.all.last;
        let peer = self
            .peers
            .entry(id.clone())
            .or_insert_with(|| Peer::new(id, now));
        peer.version = version;
        if !std::mem::replace(&mut peer.joined, true) {
            peer.base = Base {
                all,
                pair: peer.ring.last.number,
            };
            self.joined += 1;
        }
    }

    /// Gives back the cargo that it had not acknowledged.
    pub(super) fn left(&mut self, id: &InstanceId) -> u64 {
        let Some(peer) = self.peers.remove(id) else {
            return 0;
        };
        self.joined -= usize::from(peer.joined);
        self.kept -= peer.ring.bytes;
        peer.in_doubt(self.all.last)
    }

    pub(super) fn acknowledged(&mut self, id: &InstanceId, pair: Position, all: Position) {
        let last = self.all.last;
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        // What was never sent cannot have been taken.
        if pair.number > peer.seen_pair.number && pair.number <= peer.ring.last.number {
            peer.seen_pair = pair;
            self.kept -= peer.ring.drop_through(pair.number);
        }
        if all.number > peer.seen_all.number && all.number <= last.number {
            peer.seen_all = all;
        }
    }

    /// Sends again what is kept of the ranges, says what is not, and gives back how many frames that were.
    pub(super) fn repair(
        &self,
        me: &Writer,
        to: &InstanceId,
        line: Line,
        ranges: &[(u64, u64)],
        out: &mut Out,
    ) -> u64 {
        let Some(peer) = self.peers.get(to) else {
            return 0;
        };
        let ring = if line == Line::All {
            &self.all
        } else {
            &peer.ring
        };
        let first = ring.first();
        if let Some((_, through)) = ranges
            .iter()
            .filter(|(from, _)| *from < first)
            .max_by_key(|range| range.1)
        {
            let through = (*through).min(first - 1);
            let frame = envelope::gone(me, peer.fingerprint, line, through);
            out.publish.push((To::Instance(to.clone()), frame));
        }
        // Each is sent once for a request, however its ranges overlap.
        let mut next = first;
        let mut count = 0;
        for (from, through) in ranges {
            let from = (*from).max(next);
            let through = (*through).min(ring.last.number);
            for number in from..through.saturating_add(1) {
                let Some((frame, _)) = ring.kept.get((number - first) as usize) else {
                    break;
                };
                out.publish.push((To::Instance(to.clone()), frame.clone()));
                count += 1;
                next = number + 1;
            }
        }
        count
    }

    /// Drops what was kept long enough or is acknowledged by all, and targets that the directory never named.
    pub(super) fn expire(&mut self, now: Instant, bounds: &Bounds, counts: &mut Counts) {
        let taken = self
            .peers
            .values()
            .filter(|peer| peer.joined)
            .map(|peer| peer.all().number)
            .min();
        self.kept -= self.all.drop_through(taken.unwrap_or(self.all.last.number));
        if let Some(old) = now.checked_sub(bounds.keep) {
            let rings = self
                .peers
                .values_mut()
                .map(|peer| &mut peer.ring)
                .chain([&mut self.all]);
            self.kept -= rings.map(|ring| ring.drop_before(old)).sum::<usize>();
        }
        let all = self.all.last;
        self.peers.retain(|_, peer| {
            let quiet = peer
                .ring
                .sent
                .map_or(bounds.unknown, |sent| now.saturating_duration_since(sent));
            let keep = peer.joined || quiet < bounds.unknown;
            if !keep {
                counts.in_doubt += peer.in_doubt(all);
                self.kept -= peer.ring.bytes;
            }
            keep
        });
    }

    /// Who has not acknowledged a line that has been quiet for a while, and has not been marked meanwhile.
    pub(super) fn marks_due(&self, now: Instant, bounds: &Bounds) -> Vec<InstanceId> {
        let all = self.all.last;
        let quiet = |at: Instant| now.saturating_duration_since(at) >= bounds.mark_after;
        let due = self.peers.iter().filter(|(_, peer)| {
            let pair =
                peer.seen_pair.number < peer.ring.last.number && peer.ring.sent.is_none_or(quiet);
            let to_all =
                peer.joined && peer.all().number < all.number && self.all.sent.is_none_or(quiet);
            (pair || to_all) && quiet(peer.marked)
        });
        due.map(|(id, _)| id.clone()).collect()
    }

    /// The sending half of a mark for a peer that the directory has named, or that something was sent to.
    pub(super) fn marking(&mut self, id: &InstanceId, now: Instant) -> Option<Mark> {
        let all = self.all.last;
        let peer = self.peers.get_mut(id)?;
        peer.marked = now;
        Some(Mark {
            pair: peer.ring.last,
            all,
            base: peer.joined.then_some(peer.base),
            ..Mark::default()
        })
    }

    pub(super) fn unacknowledged(&self) -> Vec<InstanceId> {
        let behind = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_behind(self.all.last));
        behind.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn in_doubt(&self) -> u64 {
        self.peers
            .values()
            .map(|peer| peer.in_doubt(self.all.last))
            .sum()
    }
}
