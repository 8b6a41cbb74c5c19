//! [`World`]: instances whose carrier loses, doubles and disorders by seed.

use std::collections::{BTreeMap, HashMap};

use super::super::*;
use crate::cluster::{Incarnation, seed::Seed};

/// A carrier between instances, and a clock.
pub(super) struct World {
    pub(super) seed: Seed,
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    /// Frames under way: when they arrive, and where.
    pub(super) under_way: BTreeMap<(Instant, u64), (usize, Bytes)>,
    pub(super) count: u64,
    pub(super) faults: Faults,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) lose: u64,
    pub(super) double: u64,
    /// The longest delay, in milliseconds; frames arrive in the order in which their delays end.
    pub(super) delay: u64,
    /// Requests for what is missing are lost.
    pub(super) lose_requests: bool,
}

pub(super) struct Node {
    pub(super) lines: Lines,
    /// What each origin sent that this one took, in order: by the origin's own count.
    pub(super) taken: HashMap<InstanceId, Vec<u64>>,
    /// How much it sent, and where it stood when each other joined.
    pub(super) sent: u64,
    pub(super) lost_notes: bool,
    pub(super) up: bool,
    pub(super) hears: bool,
}

pub(super) fn id(index: usize) -> InstanceId {
    InstanceId::new(format!("i{index}"), Incarnation::new(1, 1))
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize, faults: Faults, bounds: &Bounds) -> Self {
        let now = Instant::now();
        let node = |index| Node {
            lines: Lines::new(id(index), bounds.clone()),
            taken: HashMap::new(),
            sent: 0,
            lost_notes: false,
            up: true,
            hears: true,
        };
        let nodes = (0..nodes).map(node).collect();
        Self {
            seed: Seed::new(seed),
            now,
            nodes,
            under_way: BTreeMap::new(),
            count: 0,
            faults,
        }
    }

    /// Two that know each other, and what the first has sent the second is lost.
    pub(super) fn with_gap(bounds: &Bounds) -> Self {
        let mut world = Self::new(4, 2, Faults::default(), bounds);
        world.meet();
        world.pass(10);
        world.send_in_vain(&To::Instance(id(1)));
        world
    }

    /// All learn of all.
    pub(super) fn meet(&mut self) {
        for index in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                self.act(index, |lines, now, out| {
                    lines.joined(&id(other), VERSION, now, out);
                });
            }
        }
    }

    pub(super) fn act(&mut self, index: usize, what: impl FnOnce(&mut Lines, Instant, &mut Out)) {
        let mut out = Out::default();
        what(&mut self.nodes[index].lines, self.now, &mut out);
        self.handle(index, out);
    }

    pub(super) fn handle(&mut self, index: usize, out: Out) {
        self.nodes[index].lost_notes |= out.lost_notes;
        for delivery in out.deliver {
            let count = u64::from_be_bytes(delivery.content[..8].try_into().unwrap());
            self.nodes[index]
                .taken
                .entry(delivery.origin)
                .or_default()
                .push(count);
        }
        for (to, frame) in out.publish {
            self.publish(index, &to, &frame);
        }
    }

    pub(super) fn publish(&mut self, from: usize, to: &To, frame: &Bytes) {
        let is_request = || matches!(Frame::decode(frame).unwrap().body, Body::Repair { .. });
        if self.faults.lose_requests && is_request() {
            return;
        }
        for target in 0..self.nodes.len() {
            if !self.nodes[from].up || *to != To::All && *to != To::Instance(id(target)) {
                continue;
            }
            let copies = if self.seed.per_mille(self.faults.double) {
                2
            } else {
                1
            };
            for _ in 0..copies {
                if self.seed.per_mille(self.faults.lose) {
                    continue;
                }
                let delay = Duration::from_micros(self.seed.below(self.faults.delay * 1000 + 1));
                self.count += 1;
                self.under_way
                    .insert((self.now + delay, self.count), (target, frame.clone()));
            }
        }
    }

    /// `from` sends its next count.
    pub(super) fn send(&mut self, from: usize, to: &To) {
        let count = self.nodes[from].sent;
        self.nodes[from].sent += 1;
        let content = |out: &mut Vec<u8>| out.extend_from_slice(&count.to_be_bytes());
        let now = self.now;
        let frame = self.nodes[from].lines.send(to, true, content, now);
        self.publish(from, to, &frame);
    }

    /// Sends to anyone: one count in four to all.
    pub(super) fn send_any(&mut self, from: usize) {
        let other = self.seed.below(self.nodes.len() as u64 - 1) as usize;
        let other = if other >= from { other + 1 } else { other };
        let to = if self.seed.per_mille(250) {
            To::All
        } else {
            To::Instance(id(other))
        };
        self.send(from, &to);
    }

    /// Lets time pass in steps of a millisecond, everything due arriving in each; ticks each 100 ms.
    pub(super) fn pass(&mut self, millis: u64) {
        for step in 0..millis {
            self.now += Duration::from_millis(1);
            while let Some(entry) = self.under_way.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (target, frame) = entry.remove();
                if self.nodes[target].up && self.nodes[target].hears {
                    self.act(target, |lines, now, out| {
                        lines.arrived(&frame, now, out).unwrap();
                    });
                }
            }
            if step % 100 == 0 {
                for index in 0..self.nodes.len() {
                    if self.nodes[index].up {
                        self.act(index, Lines::tick);
                    }
                }
            }
        }
    }

    /// The first one sends something that is lost on its way.
    pub(super) fn send_in_vain(&mut self, to: &To) {
        self.faults.lose = 1000;
        self.send(0, to);
        self.faults.lose = 0;
    }

    pub(super) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for counts in self.nodes.iter().map(|node| node.lines.counts()) {
            sum.sent += counts.sent;
            sum.received += counts.received;
            sum.lost += counts.lost;
            sum.in_doubt += counts.in_doubt;
            sum.doubled += counts.doubled;
            sum.repaired += counts.repaired;
        }
        sum
    }

    /// Whatever was taken was taken once, and in the order in which it was sent.
    pub(super) fn assert_ordered(&self, seed: u64) {
        for (index, node) in self.nodes.iter().enumerate() {
            for (origin, taken) in &node.taken {
                let ordered = taken.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(ordered, "seed {seed}: {origin} to {index}: {taken:?}");
            }
        }
    }
}

pub(super) const BAD: Faults = Faults {
    lose: 100,
    double: 100,
    delay: 20,
    lose_requests: false,
};
