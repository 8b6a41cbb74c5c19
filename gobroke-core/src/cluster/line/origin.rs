//! [`Origin`]: the two lines from one instance, put back into the one order in which it sent.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Bounds, Counts, Delivery, Out,
    track::{Held, Track},
};
use crate::cluster::{
    InstanceId, To,
    envelope::{self, After, Base, Line, Mark, Numbered, Position, Writer},
};

/// How many runs of missing numbers one question names.
const RANGES: usize = 512;
/// How far beyond what it has taken a receiver asks, at first and at the most. A gap of megabytes, asked for as a whole,
/// may be more than the carrier takes at once, and would be sent again as a whole while it is still arriving. The window
/// grows as what was asked for comes, by about a half each time around, and is halved where nothing comes for a while.
const FIRST_WINDOW: u64 = 64;
const LARGEST_WINDOW: u64 = 4096;

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

/// Something is missing.
#[derive(Debug)]
struct Gap {
    /// Since when nothing could be taken.
    since: Instant,
    /// When it was asked for, and through which numbers of the two lines.
    asked: Option<(Instant, u64, u64)>,
    /// What was known to exist at `since`: given up together.
    pair: u64,
    all: u64,
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

    pub(super) fn restart(&mut self, now: Instant) {
        if let Some(gap) = &mut self.gap {
            gap.since = now;
            gap.asked = None;
            self.window = FIRST_WINDOW;
        }
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
        if mark.answer {
            // What it could send again has come before this.
            self.give_up_older(bounds.give_up, bounds, counts, now, out);
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
                self.gap = Some(Gap {
                    since: now,
                    asked: None,
                    pair,
                    all,
                });
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
    fn is_blocked(&self) -> bool {
        let (pair, all) = self.highest();
        let waits =
            self.base == Start::Unknown && (self.all.known.number > 0 || !self.all.held.is_empty());
        waits
            || self.pair.taken.number < pair
            || self.base != Start::Unknown && self.all.taken.number < all
    }

    /// Asks for what is missing, a window of it at a time: at once for what has not been asked for, and again when nothing
    /// has come for a while.
    pub(super) fn ask(
        &mut self,
        me: &Writer,
        now: Instant,
        bounds: &Bounds,
        away: bool,
        out: &mut Out,
    ) {
        let (pair, all) = self.highest();
        let Some(gap) = &mut self.gap else { return };
        if away {
            return;
        }
        let silent =
            |at: Instant| now.saturating_duration_since(at.max(gap.since)) >= bounds.ask_again;
        if gap.asked.is_some_and(|(at, ..)| silent(at)) {
            self.window = (self.window / 2).max(FIRST_WINDOW);
            gap.asked = None;
        }
        let through_pair = pair.min(self.pair.taken.number + self.window);
        let through_all = all.min(self.all.taken.number + self.window);
        let (from_pair, from_all) = match gap.asked {
            None => (0, 0),
            Some((_, asked_pair, asked_all)) => {
                // Not for each frame that came, but where it is worth a question, or the end.
                let worth = |asked: u64, through: u64, end: u64| {
                    asked < through && (through == end || through - asked >= self.window / 4)
                };
                if !worth(asked_pair, through_pair, pair) && !worth(asked_all, through_all, all) {
                    return;
                }
                self.window += self.window / 8;
                self.window = self.window.min(LARGEST_WINDOW);
                (asked_pair + 1, asked_all + 1)
            }
        };
        let (pair, all) = (through_pair, through_all);
        let to = To::Instance(self.id.clone());
        let target = self.id.fingerprint();
        let mut asked = (pair, all);
        let missing = self.pair.missing(from_pair, pair, RANGES);
        if !missing.is_empty() {
            asked.0 = missing.last().map_or(pair, |(_, through)| *through);
            out.publish.push((
                to.clone(),
                envelope::repair(me, target, Line::Pair, &missing),
            ));
        }
        if self.base == Start::Unknown {
            // A question with a mark that says nothing: the answer says where the all-line begins.
            let question = Mark {
                question: true,
                ..Mark::default()
            };
            out.publish
                .push((to, envelope::mark(me, target, &question)));
        } else {
            let missing = self.all.missing(from_all, all, RANGES);
            if !missing.is_empty() {
                asked.1 = missing.last().map_or(all, |(_, through)| *through);
                out.publish
                    .push((to, envelope::repair(me, target, Line::All, &missing)));
            }
        }
        let again = gap
            .asked
            .filter(|_| from_pair > 0 || from_all > 0)
            .map(|(at, ..)| at);
        gap.asked = Some((again.unwrap_or(now), asked.0, asked.1));
    }

    /// It is heard. What it was asked before a long silence, it may not have been able to answer: the time that an answer
    /// may take begins anew.
    pub(super) fn hear(&mut self, now: Instant, bounds: &Bounds) {
        let silent = now.saturating_duration_since(self.heard);
        if silent >= bounds.give_up.max(bounds.quiet()) {
            self.restart(now);
        }
        self.heard = now;
    }

    /// Gives up what its origin no longer holds, either.
    pub(super) fn give_up_old(
        &mut self,
        now: Instant,
        bounds: &Bounds,
        counts: &mut Counts,
        out: &mut Out,
    ) {
        self.give_up_older(bounds.keep, bounds, counts, now, out);
    }

    /// Gives up what has been missing for so long.
    fn give_up_older(
        &mut self,
        time: Duration,
        bounds: &Bounds,
        counts: &mut Counts,
        now: Instant,
        out: &mut Out,
    ) {
        let Some(gap) = &self.gap else { return };
        if now.saturating_duration_since(gap.since) < time {
            return;
        }
        let (pair, all) = (gap.pair, gap.all);
        self.gap = None;
        if self.base == Start::Unknown {
            self.assume_base();
        }
        self.give_up(pair, all, counts, out);
        self.advance(bounds, counts, now, out);
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

    /// Goes past what is missing through these numbers, taking what comes between; `u64::MAX` for all that is known.
    fn give_up(&mut self, through_pair: u64, through_all: u64, counts: &mut Counts, out: &mut Out) {
        loop {
            self.take_ready(counts, out);
            let (pair, all) = self.highest();
            if self.pair.skip(through_pair.min(pair), counts) {
                continue;
            }
            if self.base != Start::Unknown && self.all.skip(through_all.min(all), counts) {
                out.lost_notes = true;
                continue;
            }
            // Nothing is missing, and yet each line waits for the other: no origin sends that. It is taken as it is.
            let stuck = through_pair >= pair && through_all >= all && self.base != Start::Unknown;
            match self.pair.held.first_entry() {
                Some(mut next) if stuck => next.get_mut().after = 0,
                _ => return,
            }
        }
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
