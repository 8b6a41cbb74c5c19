//! [`Track`]: one line, as far as it has been taken.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Counts;
use crate::cluster::envelope::Position;

/// What a frame that is held back costs beside its content, about.
const EACH: usize = 96;

/// One line, as far as it has been taken.
#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) taken: Position,
    /// How far it goes, as the origin said in a mark.
    pub(super) known: Position,
    pub(super) held: BTreeMap<u64, Held>,
}

/// A frame that came before its turn.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) before: u64,
    pub(super) cargo: bool,
    /// The number on the other line that comes before it.
    pub(super) after: u64,
    pub(super) content: Bytes,
}

impl Track {
    pub(super) fn next(&self) -> u64 {
        self.taken.number + 1
    }

    /// The highest number that is known to exist; `told` is what the other line tells.
    pub(super) fn highest(&self, told: u64) -> u64 {
        let held = self.held.last_key_value().map_or(0, |(number, _)| *number);
        self.known.number.max(held).max(told)
    }

    /// The number on the other line that what is held here tells of.
    pub(super) fn tells(&self) -> u64 {
        self.held.last_key_value().map_or(0, |(_, held)| held.after)
    }

    /// The runs of numbers through `through` that have not come, at most `most` of them.
    pub(super) fn missing(&self, from: u64, through: u64, most: usize) -> Vec<(u64, u64)> {
        let mut next = from.max(self.next());
        let mut runs = Vec::new();
        for number in self.held.range(next..).map(|(number, _)| *number) {
            if number > through || runs.len() >= most {
                break;
            }
            if number > next {
                runs.push((next, number - 1));
            }
            next = number + 1;
        }
        if next <= through && runs.len() < most {
            runs.push((next, through));
        }
        runs
    }

    /// Counts what was between the last frame taken and this point as lost.
    pub(super) fn settle(&mut self, cargo: u64, counts: &mut Counts) {
        counts.lost = counts
            .lost
            .saturating_add(cargo.saturating_sub(self.taken.cargo));
        self.taken.cargo = self.taken.cargo.max(cargo);
    }

    /// Goes past numbers that will not come any more, up to the next that did. Gives back whether it moved.
    pub(super) fn skip(&mut self, through: u64, counts: &mut Counts) -> bool {
        let end = self
            .held
            .first_key_value()
            .map_or(through, |(number, _)| through.min(number - 1));
        if end <= self.taken.number {
            return false;
        }
        self.taken.number = end;
        self.settle_known(counts);
        true
    }

    /// Counts what was lost at the end of the line, where a mark said how much there was.
    pub(super) fn settle_known(&mut self, counts: &mut Counts) {
        if self.taken.number == self.known.number {
            self.settle(self.known.cargo, counts);
        }
    }
}

impl Held {
    /// What it holds of memory, about.
    pub(super) fn weight(&self) -> usize {
        self.content.len() + EACH
    }
}
