//! What of an origin is missing: when it is asked for, and when it is given up.

use std::time::Duration;

use tokio::time::Instant;

use super::{Origin, Start};
use crate::cluster::{
    To,
    envelope::{self, Line, Mark, Writer},
    line::{Bounds, Counts, Out},
};

/// How many runs of missing numbers one question names.
const RANGES: usize = 512;
/// How far beyond what it has taken a receiver asks, at first and at the most. A gap of megabytes, asked for as a whole,
/// may be more than the carrier takes at once, and would be sent again as a whole while it is still arriving. The window
/// grows as what was asked for comes, by about a half each time around, and is halved where nothing comes for a while.
pub(super) const FIRST_WINDOW: u64 = 64;
const LARGEST_WINDOW: u64 = 4096;

/// Something is missing.
#[derive(Debug)]
pub(super) struct Gap {
    /// Since when nothing could be taken.
    pub(super) since: Instant,
    /// When it was asked for, and through which numbers of the two lines.
    asked: Option<(Instant, u64, u64)>,
    /// What was known to exist at `since`: given up together.
    pub(super) pair: u64,
    pub(super) all: u64,
}

impl Gap {
    /// What is missing from now on, through these numbers.
    pub(super) fn new(now: Instant, pair: u64, all: u64) -> Self {
        Self {
            since: now,
            asked: None,
            pair,
            all,
        }
    }
}

impl Origin {
    pub(in crate::cluster::line) fn restart(&mut self, now: Instant) {
        if let Some(gap) = &mut self.gap {
            gap.since = now;
            gap.asked = None;
            self.window = FIRST_WINDOW;
        }
    }

    /// Asks for what is missing, a window of it at a time: at once for what has not been asked for, and again when nothing
    /// has come for a while.
    pub(in crate::cluster::line) fn ask(
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
    pub(in crate::cluster::line) fn hear(&mut self, now: Instant, bounds: &Bounds) {
        let silent = now.saturating_duration_since(self.heard);
        if silent >= bounds.give_up.max(bounds.quiet()) {
            self.restart(now);
        }
        self.heard = now;
    }

    /// Gives up what its origin no longer holds, either.
    pub(in crate::cluster::line) fn give_up_old(
        &mut self,
        now: Instant,
        bounds: &Bounds,
        counts: &mut Counts,
        out: &mut Out,
    ) {
        let lines = [Line::Pair, Line::All];
        self.give_up_older(bounds.keep, &lines, bounds, counts, now, out);
    }

    /// Gives up what of these lines has been missing for so long; and the wait for a base.
    pub(super) fn give_up_older(
        &mut self,
        time: Duration,
        lines: &[Line],
        bounds: &Bounds,
        counts: &mut Counts,
        now: Instant,
        out: &mut Out,
    ) {
        let Some(gap) = &self.gap else { return };
        if now.saturating_duration_since(gap.since) < time {
            return;
        }
        let through = |line, number| match lines.contains(&line) {
            true => number,
            false => 0,
        };
        let (pair, all) = (through(Line::Pair, gap.pair), through(Line::All, gap.all));
        let taken = (self.pair.taken, self.all.taken);
        if self.base == Start::Unknown {
            self.assume_base();
            self.gap = None;
        }
        self.give_up(pair, all, counts, out);
        if (self.pair.taken, self.all.taken) != taken {
            self.gap = None;
        }
        self.advance(bounds, counts, now, out);
    }

    /// Goes past what is missing through these numbers, taking what comes between; `u64::MAX` for all that is known.
    pub(super) fn give_up(
        &mut self,
        through_pair: u64,
        through_all: u64,
        counts: &mut Counts,
        out: &mut Out,
    ) {
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
