//! Lines: what makes a carrier that may lose, double and disorder carry everything once and in order.
//!
//! An origin numbers what it sends from 1, on one line to each target and on one more to all, and keeps it for a
//! while. A receiver takes a line's frames in the order of their numbers, drops those that it has seen, and at a gap
//! holds back everything of that origin, asks for what is missing, and goes on when it came; or when it has not come
//! for a second, or is no longer held, and then counts exactly that as lost. That second ends with an answer: an origin
//! answers every request for what is missing of a line, after what it sends again. Who answers other questions alone has
//! not heard the requests, who answers none hears nothing or is not heard; both still hold what is missing. They hear
//! again, leave, or no longer hold it.
//!
//! The two lines are one order: a frame to one target names the number at which the all-line stood, and a frame to
//! all names the numbers at which the lines stood that moved since the frame to all before it. Whatever overtakes
//! what it should follow waits for it; what comes after its place was given up is counted as lost, too.
//!
//! Marks close lines that have gone quiet: an origin says where its lines stand until the target has said that it
//! has come as far, and a target says so a little after it took something. What is acknowledged need not be kept,
//! and what is not when an instance dies is in doubt.
//!
//! [`Lines`] does no I/O and reads no clock: frames and times come in, frames and deliveries go out.

mod origin;
mod receiving;
mod sending;
#[cfg(test)]
mod tests;
mod track;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use self::{receiving::Receiving, sending::Sending};
use super::{
    InstanceId, To,
    envelope::{self, Body, DecodeError, Frame, Line, Mark, VERSION, VERSIONS, Writer},
};

/// How much is kept and held, and how long.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// How many bytes an origin keeps of one line. Default: 8 MiB.
    pub(crate) kept_line: usize,
    /// How many it keeps of all lines. Default: 64 MiB.
    pub(crate) kept: usize,
    /// How long it keeps them. Default: 30 s.
    pub(crate) keep: Duration,
    /// How many bytes of one origin a receiver holds back behind a gap. Default: 8 MiB.
    pub(crate) held: usize,
    /// How long a gap may make no progress until it is given up, where its origin, asked for it, answers then.
    /// Default: 1 s.
    pub(crate) give_up: Duration,
    /// How often a receiver asks for what is missing. Default: 100 ms.
    pub(crate) ask_again: Duration,
    /// How long a line is quiet and not acknowledged until it is closed by a mark. Default: 800 ms.
    pub(crate) mark_after: Duration,
    /// How soon a receiver acknowledges. Default: 400 ms, so that a line that loses nothing needs no mark.
    pub(crate) acknowledge_after: Duration,
    /// How long an instance is remembered that the directory has not named. Default: 60 s.
    pub(crate) unknown: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            kept_line: 8 << 20,
            kept: 64 << 20,
            keep: Duration::from_secs(30),
            held: 8 << 20,
            give_up: Duration::from_secs(1),
            ask_again: Duration::from_millis(100),
            mark_after: Duration::from_millis(800),
            acknowledge_after: Duration::from_millis(400),
            unknown: Duration::from_secs(60),
        }
    }
}

impl Bounds {
    /// How long nothing is heard at the most of an origin that can be heard, as long as not all that it sent is
    /// acknowledged: then it sends marks.
    fn quiet(&self) -> Duration {
        self.mark_after + self.ask_again
    }
}

/// What the lines count, in messages and commands; one to all counts once for each instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Given a number here, times the instances that it was for.
    pub(crate) sent: u64,
    /// Taken in order here.
    pub(crate) received: u64,
    /// Given up here.
    pub(crate) lost: u64,
    /// Sent from here to instances that left before they acknowledged it.
    pub(crate) in_doubt: u64,
    /// Frames that came again, and were dropped.
    pub(crate) doubled: u64,
    /// Frames for or from a former incarnation, dropped.
    pub(crate) stale: u64,
    /// Frames that were sent again from here.
    pub(crate) repaired: u64,
}

impl Counts {
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            lost: self.lost.saturating_add(other.lost),
            in_doubt: self.in_doubt + other.in_doubt,
            doubled: self.doubled + other.doubled,
            stale: self.stale + other.stale,
            repaired: self.repaired + other.repaired,
        }
    }
}

/// What comes out of the lines: frames to hand to the carrier, and contents to route, in order.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) publish: Vec<(To, Bytes)>,
    pub(crate) deliver: Vec<Delivery>,
    /// Something on an all-line was given up: notes about groups may have been missed.
    pub(crate) lost_notes: bool,
}

/// Why a mark is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// To say where the lines stand.
    Tell,
    /// To be told where they stand, too.
    Ask,
    /// What was missing of this line has been sent again, as far as it is kept.
    Answer(Line),
}

/// A content that its origin's lines have released.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) origin: InstanceId,
    pub(crate) content: Bytes,
}

/// All lines of an instance, in both directions.
#[derive(Debug)]
pub(crate) struct Lines {
    me: Writer,
    fingerprint: u64,
    bounds: Bounds,
    sending: Sending,
    receiving: Receiving,
    counts: Counts,
    away: bool,
}

impl Lines {
    pub(crate) fn new(me: InstanceId, bounds: Bounds) -> Self {
        Self {
            fingerprint: me.fingerprint(),
            sending: Sending::default(),
            receiving: Receiving::default(),
            counts: Counts::default(),
            away: false,
            me: Writer {
                id: me,
                version: VERSION,
            },
            bounds,
        }
    }

    pub(crate) fn me(&self) -> &InstanceId {
        &self.me.id
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// How many bytes are kept to be sent again, and held back behind gaps.
    pub(crate) fn memory(&self) -> (usize, usize) {
        (self.sending.kept(), self.receiving.held())
    }

    /// Draws a number for what `content` appends, and lays the frame that is to be published to `to`.
    pub(crate) fn send(
        &mut self,
        to: &To,
        cargo: bool,
        content: impl FnOnce(&mut Vec<u8>),
        now: Instant,
    ) -> Bytes {
        if let To::Instance(target) = to
            && self.sending.met(target, now)
        {
            self.me.version = self.sending.version(&VERSIONS);
        }
        let (frame, targets) = match to {
            To::All => self
                .sending
                .frame_to_all(&self.me, cargo, content, now, &self.bounds),
            To::Instance(target) => (
                self.sending
                    .frame_to_one(&self.me, target, cargo, content, now, &self.bounds),
                1,
            ),
        };
        if cargo {
            self.counts.sent += targets;
        }
        frame
    }

    /// Takes a frame as it came.
    ///
    /// # Errors
    /// What is wrong with it; it changed nothing.
    pub(crate) fn arrived(
        &mut self,
        frame: &Bytes,
        now: Instant,
        out: &mut Out,
    ) -> Result<(), DecodeError> {
        let frame = Frame::decode(frame)?;
        if *self.me.id.name == *frame.origin {
            // Its own, come back; or a former or later life's.
            if self.me.id.incarnation != frame.incarnation {
                self.counts.stale += 1;
            }
            return Ok(());
        }
        if frame
            .target
            .is_some_and(|target| target != self.fingerprint)
        {
            self.counts.stale += 1;
            return Ok(());
        }
        let Some(origin) = self.receiving.origin(&frame, &self.bounds, now) else {
            self.counts.stale += 1;
            return Ok(());
        };
        match frame.body {
            Body::Numbered(numbered) => {
                origin.numbered(
                    numbered,
                    self.fingerprint,
                    &self.bounds,
                    &mut self.counts,
                    now,
                    out,
                );
                origin.ask(&self.me, now, &self.bounds, self.away, out);
            }
            Body::Mark(mark) => {
                let id = origin.id.clone();
                origin.marked(&mark, &self.bounds, &mut self.counts, now, out);
                self.sending
                    .acknowledged(&id, mark.seen_pair, mark.seen_all);
                if mark.question {
                    self.mark(&id, Reason::Tell, now, out);
                }
                self.ask(frame.origin, frame.incarnation, now, out);
            }
            Body::Repair { line, ranges } => {
                let id = origin.id.clone();
                self.counts.repaired += self.sending.repair(&self.me, &id, line, &ranges, out);
                self.mark(&id, Reason::Answer(line), now, out);
            }
            Body::Gone { line, through } => {
                origin.gone(line, through, &self.bounds, &mut self.counts, now, out);
                origin.ask(&self.me, now, &self.bounds, self.away, out);
            }
            Body::Hello => {
                let id = origin.id.clone();
                self.mark(&id, Reason::Tell, now, out);
            }
        }
        Ok(())
    }

    /// What time brings: questions, marks, acknowledgements, and gaps that are given up. To be called every 100 ms.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Out) {
        self.sending.expire(now, &self.bounds, &mut self.counts);
        self.me.version = self.sending.version(&VERSIONS);
        if self.away {
            return;
        }
        self.receiving
            .give_up_old(now, &self.bounds, &mut self.counts, out);
        for origin in self.receiving.origins() {
            origin.ask(&self.me, now, &self.bounds, self.away, out);
        }
        for peer in self.sending.marks_due(now, &self.bounds) {
            self.mark(&peer, Reason::Ask, now, out);
        }
        for peer in self.receiving.acknowledgements_due(now) {
            self.mark(&peer, Reason::Tell, now, out);
        }
    }

    /// An instance is there that knows envelopes up to this version: it is owed what is sent to all from now on, and
    /// told so.
    pub(crate) fn joined(&mut self, peer: &InstanceId, version: u8, now: Instant, out: &mut Out) {
        if *peer == self.me.id || !self.receiving.joined(peer, now) {
            return;
        }
        self.sending.joined(peer, version, now);
        self.me.version = self.sending.version(&VERSIONS);
        self.mark(peer, Reason::Tell, now, out);
    }

    /// An instance is gone: what was held back of it is released, and what it had not acknowledged is in doubt.
    pub(crate) fn left(&mut self, peer: &InstanceId, out: &mut Out) {
        self.counts.in_doubt += self.sending.left(peer);
        self.me.version = self.sending.version(&VERSIONS);
        self.receiving.left(peer, &mut self.counts, out);
    }

    /// The carrier is away: nothing is given up meanwhile.
    pub(crate) fn away(&mut self) {
        self.away = true;
    }

    /// The carrier is back, or hears again: asks everyone where their lines stand.
    pub(crate) fn back(&mut self, now: Instant, out: &mut Out) {
        self.away = false;
        self.receiving.restart(now);
        out.publish.push((To::All, envelope::hello(&self.me)));
    }

    /// Asks every instance that has something unacknowledged to say at once how far it is.
    pub(crate) fn press(&mut self, now: Instant, out: &mut Out) {
        for peer in self.sending.unacknowledged() {
            self.mark(&peer, Reason::Ask, now, out);
        }
    }

    /// Whether every instance has acknowledged all that it was sent.
    pub(crate) fn is_settled(&self) -> bool {
        self.sending.unacknowledged().is_empty()
    }

    /// Whether something is known to have been sent here that has not come yet.
    pub(crate) fn is_missing_any(&self) -> bool {
        self.receiving.is_missing_any()
    }

    /// The cargo that has not been acknowledged.
    pub(crate) fn unsettled(&self) -> u64 {
        self.sending.in_doubt()
    }

    /// Whether an instance is known to be gone.
    pub(crate) fn has_left(&self, peer: &InstanceId) -> bool {
        self.receiving.has_left(peer)
    }

    fn mark(&mut self, peer: &InstanceId, reason: Reason, now: Instant, out: &mut Out) {
        let Some(sending) = self.sending.marking(peer, now) else {
            return;
        };
        let seen = self.receiving.seen(peer);
        let answer = match reason {
            Reason::Answer(line) => Some(line),
            Reason::Tell | Reason::Ask => None,
        };
        let mark = Mark {
            question: reason == Reason::Ask,
            answer,
            seen_pair: seen.0,
            seen_all: seen.1,
            ..sending
        };
        let frame = envelope::mark(&self.me, peer.fingerprint(), &mark);
        out.publish.push((To::Instance(peer.clone()), frame));
    }

    fn ask(&mut self, name: &str, incarnation: super::Incarnation, now: Instant, out: &mut Out) {
        if let Some(origin) = self.receiving.find(name, incarnation) {
            origin.ask(&self.me, now, &self.bounds, self.away, out);
        }
    }
}
