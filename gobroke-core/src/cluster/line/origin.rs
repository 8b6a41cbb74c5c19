//! [`Origin`]: the two lines from one instance, put back into the one order in which it sent.

mod gap;

use tokio::time::Instant;

use self::gap::{FIRST_WINDOW, Gap};
use super::{
    Bounds, Counts, Delivery, Out,
    track::{Held, Track},
};
use crate::cluster::{
    InstanceId,
    envelope::{After, Base, Line, Mark, Numbered, Position},
};

/// What a receiver knows of an origin.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) id: InstanceId,
    /// Whether the directory has named it.
    pub(super) joined: bool,
    pub(super) heard: Instant,
    /// When it is to be told how far its lines have been taken.
    pub(super) owes_since: Option<Instant>,
    base: Start,
    pair: Track,
    all: Track,
    held: usize,
    gap: Option<Gap>,
    window: u64,
}

/// From where on the all-line counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The origin has not said it yet.
    Unknown,
    /// It did not say it in time, so this was taken for it.
    Assumed(Position),
    /// It has said it.
    Known(Base),
}

impl Origin {
    pub(super) fn new(id: InstanceId, now: Instant) -> Self {
        Self {
            id,
            joined: false,
            heard: now,
            owes_since: None,
            base: Start::Unknown,
            pair: Track::default(),
            all: Track::default(),
            held: 0,
            gap: None,
            window: FIRST_WINDOW,
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn seen(&mut self) -> (Position, Position) {
        self.owes_since = None;
        let all = if self.base == Start::Unknown {
            Position::default()
        } else {
            self.all.taken
        };
        (self.pair.taken, all)
    }

    /// Takes a numbered frame; `me` is the receiver's fingerprint.
    pub(super) fn numbered(
        &mut self,
        frame: Numbered,
        me: u64,
        bounds: &Bounds,
        counts: &mut Counts,
        now: Instant,
        out: &mut Out,
    ) {
        let line = frame.line;
        let track = self.track(line);
        if frame.number <= track.taken.number || track.held.contains_key(&frame.number) {
            counts.doubled += 1;
            // It was sent again, so its origin does not know how far the line has been taken.
            self.owes_since
                .get_or_insert(now + bounds.acknowledge_after);
            return;
        }
        let after = match frame.after {
            After::All(number) => number,
            After::Pairs(fences) => fences
                .iter()
                .find(|(target, _)| *target == me)
                .map_or(0, |(_, number)| *number),
        };
        let held = Held {
            before: frame.before,
            cargo: frame.cargo,
            after,
            content: frame.content,
        };
        if self.gap.is_none() && self.held == 0 && self.is_next(line, frame.number, after) {
            // Like nearly all: nothing is missing or held back, before or after it.
            self.take(line, held, counts, out);
            self.owes_since
                .get_or_insert(now + bounds.acknowledge_after);
            return;
        }
        self.held += held.weight();
        self.track(line).held.insert(frame.number, held);
        self.advance(bounds, counts, now, out);
        if self.held > bounds.held {
            if self.base == Start::Unknown {
                self.assume_base();
            }
            self.give_up(u64::MAX, u64::MAX, counts, out);
            self.advance(bounds, counts, now, out);
        }
    }

    /// Takes what a mark says.
    pub(super) fn marked(
        &mut self,
        mark: &Mark,
        bounds: &Bounds,
        counts: &mut Counts,
        now: Instant,
        out: &mut Out,
    ) {
        if mark.pair.number > self.pair.known.number {
            self.pair.known = mark.pair;
        }
        if mark.all.number > self.all.known.number {
            self.all.known = mark.all;
        }
        if let Some(base) = mark.base {
            self.based(base, counts);
        }
        self.pair.settle_known(counts);
        if self.base != Start::Unknown {
            self.all.settle_known(counts);
        }
        self.advance(bounds, counts, now, out);
        // It says where its lines stand, and does not know of this instance yet: it owes it no base.
        let owes_no_base = self.base == Start::Unknown && !mark.question;
        if mark.answer.is_some() || owes_no_base {
            // What it could send again of that line has come before this.
            let lines = mark.answer.as_slice();
            self.give_up_older(bounds.give_up, lines, bounds, counts, now, out);
        }
    }

    /// The origin no longer holds what the line carried up to this number.
    pub(super) fn gone(
        &mut self,
        line: Line,
        through: u64,
        bounds: &Bounds,
        counts: &mut Counts,
        now: Instant,
        out: &mut Out,
    ) {
        let (pair, all) = self.highest();
        // Only what is known to exist can be gone.
        match line {
            Line::Pair => self.give_up(through.min(pair), 0, counts, out),
            Line::All => self.give_up(0, through.min(all), counts, out),
        }
        self.advance(bounds, counts, now, out);
    }

    /// Where the all-line begins for this instance.
    fn based(&mut self, base: Base, counts: &mut Counts) {
        match self.base {
            Start::Known(_) => {}
            Start::Assumed(assumed) => {
                counts.lost = counts
                    .lost
                    .saturating_add(assumed.cargo.saturating_sub(base.all.cargo));
                self.base = Start::Known(Base {
                    all: assumed,
                    pair: 0,
                });
            }
            Start::Unknown => {
                self.all.taken = base.all;
                let later = self.all.held.split_off(&(base.all.number + 1));
                let earlier = std::mem::replace(&mut self.all.held, later);
                self.held -= earlier.values().map(Held::weight).sum::<usize>();
                self.base = Start::Known(base);
            }
        }
    }

    /// Takes everything whose turn it is, and keeps the account of what is missing.
    fn advance(&mut self, bounds: &Bounds, counts: &mut Counts, now: Instant, out: &mut Out) {
        let moved = self.take_ready(counts, out);
        if moved {
            self.owes_since
                .get_or_insert(now + bounds.acknowledge_after);
        }
        if !self.is_blocked() {
            self.gap = None;
            return;
        }
        let (pair, all) = self.highest();
        match &mut self.gap {
            // What comes to be known later is given up later.
            Some(_) if !moved => {}
            Some(gap) => (gap.since, gap.pair, gap.all) = (now, pair, all),
            None => {
                self.gap = Some(Gap::new(now, pair, all));
            }
        }
    }

    fn take_ready(&mut self, counts: &mut Counts, out: &mut Out) -> bool {
        let mut moved = false;
        while let Some(line) = [Line::Pair, Line::All]
            .into_iter()
            .find(|line| self.is_ready(*line))
        {
            if let Some((_, held)) = self.track(line).held.pop_first() {
                self.held -= held.weight();
                self.take(line, held, counts, out);
            }
            moved = true;
        }
        moved
    }

    /// Whether it is the turn of the first that is held of a line.
    fn is_ready(&self, line: Line) -> bool {
        let track = if line == Line::Pair {
            &self.pair
        } else {
            &self.all
        };
        let first = track.held.first_key_value();
        first.is_some_and(|(number, held)| self.is_next(line, *number, held.after))
    }

    /// Whether it is the turn of a frame that comes after this number of the other line.
    fn is_next(&self, line: Line, number: u64, after: u64) -> bool {
        match line {
            Line::Pair => {
                number == self.pair.next() && self.base.reaches(after, self.all.taken.number)
            }
            Line::All => {
                self.base != Start::Unknown
                    && number == self.all.next()
                    && after.max(self.base.pair()) <= self.pair.taken.number
            }
        }
    }

    /// Takes a frame in its turn. One that is late, because what followed it was taken when it had been given up, is
    /// lost.
    fn take(&mut self, line: Line, frame: Held, counts: &mut Counts, out: &mut Out) {
        let all = self.all.taken.number;
        let late = line == Line::Pair && frame.after < all && self.base.number() < all;
        let track = self.track(line);
        track.settle(frame.before, counts);
        track.taken.number += 1;
        track.taken.cargo = frame.before.saturating_add(u64::from(frame.cargo));
        if late {
            counts.lost = counts.lost.saturating_add(u64::from(frame.cargo));
            return;
        }
        counts.received += u64::from(frame.cargo);
        out.deliver.push(Delivery {
            origin: self.id.clone(),
            content: frame.content,
        });
    }

    fn track(&mut self, line: Line) -> &mut Track {
        match line {
            Line::Pair => &mut self.pair,
            Line::All => &mut self.all,
        }
    }

    /// The highest numbers that are known to exist, on the pair's line and on that to all.
    fn highest(&self) -> (u64, u64) {
        let told = self.all.tells().max(self.base.pair());
        (self.pair.highest(told), self.all.highest(self.pair.tells()))
    }

    /// Whether something is held back, or known to exist and not there.
    pub(super) fn is_blocked(&self) -> bool {
        let (pair, all) = self.highest();
        let waits =
            self.base == Start::Unknown && (self.all.known.number > 0 || !self.all.held.is_empty());
        waits
            || self.pair.taken.number < pair
            || self.base != Start::Unknown && self.all.taken.number < all
    }

    /// The origin is gone: releases everything that is held, in order.
    pub(super) fn release(&mut self, counts: &mut Counts, out: &mut Out) {
        if self.base == Start::Unknown {
            self.assume_base();
        }
        self.give_up(u64::MAX, u64::MAX, counts, out);
    }

    fn assume_base(&mut self) {
        let first = self.all.held.first_key_value();
        let base = match first {
            Some((number, held)) => Position {
                number: number - 1,
                cargo: held.before,
            },
            None => self.all.known,
        };
        self.all.taken = base;
        self.base = Start::Assumed(base);
    }
}

impl Start {
    /// Whether the all-line, taken through `taken`, has come as far as `after`.
    fn reaches(self, after: u64, taken: u64) -> bool {
        match self {
            Self::Unknown => after == 0,
            _ => after <= taken,
        }
    }

    /// The number behind which the all-line counts.
    fn number(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Assumed(base) => base.number,
            Self::Known(base) => base.all.number,
        }
    }

    /// The number of the pair's line behind which it does.
    fn pair(self) -> u64 {
        if let Self::Known(base) = self {
            base.pair
        } else {
            0
        }
    }
}
