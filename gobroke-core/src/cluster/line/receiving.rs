//! The receiver's side of lines: which origins there are, which of them left, and who is due what.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::time::Instant;

use super::{Bounds, Counts, Out, origin::Origin};
use crate::cluster::{
    Incarnation, InstanceId,
    envelope::{Frame, Position},
    instance::fingerprint,
};

/// How many origins may be listened to that the directory has not named.
const UNKNOWN: usize = 1024;
/// How many of those that left are remembered, so that their last frames do not bring them back.
const LEFT: usize = 4096;

/// The lines to this instance.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    origins: HashMap<u64, Origin>,
    /// Those among them that the directory has not named.
    unknown: usize,
    left: HashSet<u64>,
    left_order: VecDeque<u64>,
}

impl Receiving {
    /// The origin of a frame; `None` where it left, or where too many are there that nobody knows.
    pub(super) fn origin(
        &mut self,
        frame: &Frame<'_>,
        bounds: &Bounds,
        now: Instant,
    ) -> Option<&mut Origin> {
        let key = fingerprint(frame.origin, frame.incarnation);
        if self.left.contains(&key) {
            return None;
        }
        if !self.origins.contains_key(&key) {
            if self.unknown >= UNKNOWN {
                return None;
            }
            self.unknown += 1;
            self.origins.insert(
                key,
                Origin::new(InstanceId::new(frame.origin, frame.incarnation), now),
            );
        }
        let known = |origin: &&mut Origin| {
            *origin.id.name == *frame.origin && origin.id.incarnation == frame.incarnation
        };
        let origin = self.origins.get_mut(&key).filter(known)?;
        origin.hear(now, bounds);
        Some(origin)
    }

    pub(super) fn find(&mut self, name: &str, incarnation: Incarnation) -> Option<&mut Origin> {
        self.origins.get_mut(&fingerprint(name, incarnation))
    }

    pub(super) fn origins(&mut self) -> impl Iterator<Item = &mut Origin> {
        self.origins.values_mut()
    }

    pub(super) fn held(&self) -> usize {
        self.origins.values().map(Origin::held).sum()
    }

    pub(super) fn is_missing_any(&self) -> bool {
        self.origins.values().any(Origin::is_blocked)
    }

    /// Gives back whether it can be there: one that left does not come back in the same incarnation.
    pub(super) fn joined(&mut self, id: &InstanceId, now: Instant) -> bool {
        let key = id.fingerprint();
        if self.left.contains(&key) {
            return false;
        }
        let unknown = &mut self.unknown;
        let origin = self.origins.entry(key).or_insert_with(|| {
            *unknown += 1;
            Origin::new(id.clone(), now)
        });
        if !std::mem::replace(&mut origin.joined, true) {
            self.unknown -= 1;
        }
        true
    }

    pub(super) fn left(&mut self, id: &InstanceId, counts: &mut Counts, out: &mut Out) {
        let key = id.fingerprint();
        if let Some(mut origin) = self.origins.remove(&key) {
            self.unknown -= usize::from(!origin.joined);
            origin.release(counts, out);
        }
        if self.left.insert(key) {
            self.left_order.push_back(key);
        }
        if self.left_order.len() > LEFT
            && let Some(oldest) = self.left_order.pop_front()
        {
            self.left.remove(&oldest);
        }
    }

    pub(super) fn has_left(&self, id: &InstanceId) -> bool {
        !self.left.is_empty() && self.left.contains(&id.fingerprint())
    }

    /// Starts all waiting anew.
    pub(super) fn restart(&mut self, now: Instant) {
        self.origins
            .values_mut()
            .for_each(|origin| origin.restart(now));
    }

    /// Gives up what has been waited for long enough, and forgets origins that nobody knows and that say nothing.
    pub(super) fn give_up_old(
        &mut self,
        now: Instant,
        bounds: &Bounds,
        counts: &mut Counts,
        out: &mut Out,
    ) {
        let unknown = &mut self.unknown;
        self.origins.retain(|_, origin| {
            origin.give_up_old(now, bounds, counts, out);
            let keep =
                origin.joined || now.saturating_duration_since(origin.heard) < bounds.unknown;
            *unknown -= usize::from(!keep);
            keep
        });
    }

    /// How far the lines of this origin have been taken: told to it, so nothing is due to it for now.
    pub(super) fn seen(&mut self, id: &InstanceId) -> (Position, Position) {
        self.origins
            .get_mut(&id.fingerprint())
            .map_or_else(Default::default, Origin::seen)
    }

    pub(super) fn acknowledgements_due(&self, now: Instant) -> Vec<InstanceId> {
        let due = self
            .origins
            .values()
            .filter(|origin| origin.owes_since.is_some_and(|due| due <= now));
        due.map(|origin| origin.id.clone()).collect()
    }
}
