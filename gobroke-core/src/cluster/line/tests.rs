//! Instances whose carrier loses, doubles and disorders by seed.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::cluster::{Incarnation, seed::Seed};

/// A carrier between instances, and a clock.
struct World {
    seed: Seed,
    now: Instant,
    nodes: Vec<Node>,
    /// Frames under way: when they arrive, and where.
    under_way: BTreeMap<(Instant, u64), (usize, Bytes)>,
    count: u64,
    faults: Faults,
}

#[derive(Clone, Copy, Default)]
struct Faults {
    lose: u64,
    double: u64,
    /// The longest delay, in milliseconds; frames arrive in the order in which their delays end.
    delay: u64,
}

struct Node {
    lines: Lines,
    /// What each origin sent that this one took, in order: by the origin's own count.
    taken: HashMap<InstanceId, Vec<u64>>,
    /// How much it sent, and where it stood when each other joined.
    sent: u64,
    lost_notes: bool,
    up: bool,
    hears: bool,
}

fn id(index: usize) -> InstanceId {
    InstanceId::new(format!("i{index}"), Incarnation::new(1, 1))
}

impl World {
    fn new(seed: u64, nodes: usize, faults: Faults, bounds: &Bounds) -> Self {
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
    fn with_gap(bounds: &Bounds) -> Self {
        let mut world = Self::new(4, 2, Faults::default(), bounds);
        world.meet();
        world.pass(10);
        world.send_in_vain(&To::Instance(id(1)));
        world
    }

    /// All learn of all.
    fn meet(&mut self) {
        for index in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                self.act(index, |lines, now, out| {
                    lines.joined(&id(other), VERSION, now, out);
                });
            }
        }
    }

    fn act(&mut self, index: usize, what: impl FnOnce(&mut Lines, Instant, &mut Out)) {
        let mut out = Out::default();
        what(&mut self.nodes[index].lines, self.now, &mut out);
        self.handle(index, out);
    }

    fn handle(&mut self, index: usize, out: Out) {
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

    fn publish(&mut self, from: usize, to: &To, frame: &Bytes) {
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
    fn send(&mut self, from: usize, to: &To) {
        let count = self.nodes[from].sent;
        self.nodes[from].sent += 1;
        let content = |out: &mut Vec<u8>| out.extend_from_slice(&count.to_be_bytes());
        let now = self.now;
        let frame = self.nodes[from].lines.send(to, true, content, now);
        self.publish(from, to, &frame);
    }

    /// Sends to anyone: one count in four to all.
    fn send_any(&mut self, from: usize) {
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
    fn pass(&mut self, millis: u64) {
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
    fn send_in_vain(&mut self, to: &To) {
        self.faults.lose = 1000;
        self.send(0, to);
        self.faults.lose = 0;
    }

    fn counts(&self) -> Counts {
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
    fn assert_ordered(&self, seed: u64) {
        for (index, node) in self.nodes.iter().enumerate() {
            for (origin, taken) in &node.taken {
                let ordered = taken.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(ordered, "seed {seed}: {origin} to {index}: {taken:?}");
            }
        }
    }
}

const BAD: Faults = Faults {
    lose: 100,
    double: 100,
    delay: 20,
};

#[test]
fn without_faults_nothing_is_asked_doubled_or_kept_for_long() {
    let mut world = World::new(1, 3, Faults::default(), &Bounds::default());
    world.meet();
    for _ in 0..3_000 {
        for from in 0..3 {
            world.send_any(from);
        }
        world.pass(1);
    }
    world.pass(1_000);
    let counts = world.counts();
    assert_eq!(
        (
            counts.received,
            counts.lost,
            counts.doubled,
            counts.repaired
        ),
        (counts.sent, 0, 0, 0)
    );
    world.assert_ordered(1);
    for node in &world.nodes {
        assert!(node.lines.is_settled());
        assert_eq!(node.lines.memory(), (0, 0));
    }
}

#[test]
fn what_is_lost_doubled_and_disordered_arrives_once_in_order() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, BAD, &Bounds::default());
        world.meet();
        for _ in 0..500 {
            for from in 0..3 {
                world.send_any(from);
            }
            world.pass(2);
        }
        world.pass(10_000);
        let counts = world.counts();
        assert!(counts.repaired > 0 && counts.doubled > 0);
        assert_eq!(
            (counts.received, counts.lost),
            (counts.sent, 0),
            "seed {seed}"
        );
        world.assert_ordered(seed);
        assert!(
            world
                .nodes
                .iter()
                .all(|node| node.lines.is_settled() && node.lines.memory() == (0, 0))
        );
    }
}

#[test]
fn what_cannot_be_repaired_is_counted_exactly_and_the_rest_stays_in_order() {
    let bounds = Bounds {
        kept_line: 400,
        held: 2_000,
        give_up: Duration::from_millis(300),
        ..Bounds::default()
    };
    let mut lost = 0;
    for seed in 0..40 {
        let faults = Faults {
            lose: 50 + 10 * (seed % 30),
            ..BAD
        };
        let mut world = World::new(seed, 3, faults, &bounds);
        world.meet();
        for _ in 0..500 {
            for from in 0..3 {
                world.send_any(from);
            }
            world.pass(2);
        }
        world.faults = Faults::default();
        world.pass(10_000);
        let counts = world.counts();
        assert_eq!(
            counts.received + counts.lost,
            counts.sent,
            "seed {seed}: {counts:?}"
        );
        lost += counts.lost;
        world.assert_ordered(seed);
        assert!(world.nodes.iter().all(|node| node.lines.is_settled()));
    }
    assert!(lost > 0);
}

#[test]
fn the_last_frame_is_missed_no_less_than_one_in_the_middle() {
    let mut world = World::new(3, 2, Faults::default(), &Bounds::default());
    world.meet();
    world.pass(100);
    for to in [To::Instance(id(1)), To::All] {
        world.send_in_vain(&to);
        let before = world.counts().received;
        world.pass(1_000);
        assert_eq!(world.counts().received, before + 1, "{to:?}");
    }
}

#[test]
fn a_gap_is_given_up_after_a_second_and_nothing_behind_it_before() {
    let bounds = Bounds {
        kept_line: 0,
        ..Bounds::default()
    };
    let mut world = World::with_gap(&bounds);
    // The origin's answer that nothing is held any more must not come either.
    world.nodes[0].up = false;
    let frame = world.nodes[0].lines.send(
        &To::Instance(id(1)),
        true,
        |out| out.extend_from_slice(&[0; 8]),
        world.now,
    );
    world.under_way.insert((world.now, 0), (1, frame));
    let origin = Writer {
        id: id(0),
        version: VERSION,
    };
    let says = |world: &mut World, answer| {
        let mark = Mark {
            answer,
            ..Mark::default()
        };
        let mark = envelope::mark(&origin, id(1).fingerprint(), &mark);
        world.under_way.insert((world.now, 0), (1, mark));
        world.pass(10);
    };
    world.pass(900);
    says(&mut world, true);
    assert_eq!(world.counts().received, 0, "before the second is over");
    world.pass(200);
    says(&mut world, false);
    assert_eq!(
        world.counts().received,
        0,
        "it may not have heard the question"
    );
    says(&mut world, true);
    assert_eq!((world.counts().received, world.counts().lost), (1, 1));
}

#[test]
fn nothing_is_given_up_of_an_origin_that_does_not_hear_the_question() {
    let mut world = World::with_gap(&Bounds::default());
    world.nodes[0].hears = false;
    for _ in 0..200 {
        world.send(0, &To::Instance(id(1)));
        world.pass(100);
    }
    assert_eq!((world.counts().received, world.counts().lost), (0, 0));
    world.nodes[0].hears = true;
    world.pass(1_000);
    assert_eq!((world.counts().received, world.counts().lost), (201, 0));
}

#[test]
fn what_its_origin_keeps_no_longer_is_given_up_though_it_does_not_answer() {
    let bounds = Bounds::default();
    let mut world = World::with_gap(&bounds);
    world.nodes[0].hears = false;
    world.send(0, &To::Instance(id(1)));
    world.pass(bounds.keep.as_millis() as u64 + 200);
    assert_eq!((world.counts().received, world.counts().lost), (1, 1));
}

#[test]
fn nothing_is_given_up_of_an_origin_that_cannot_be_heard() {
    let mut world = World::with_gap(&Bounds::default());
    world.send(0, &To::Instance(id(1)));
    world.nodes[0].up = false;
    world.pass(20_000);
    assert_eq!((world.counts().received, world.counts().lost), (0, 0));
    world.nodes[0].up = true;
    world.pass(1_000);
    assert_eq!((world.counts().received, world.counts().lost), (2, 0));
}

#[test]
fn what_is_no_longer_held_is_given_up_at_once() {
    let bounds = Bounds {
        kept_line: 0,
        ..Bounds::default()
    };
    let mut world = World::new(5, 2, Faults::default(), &bounds);
    world.meet();
    world.pass(10);
    world.send_in_vain(&To::All);
    world.send(0, &To::Instance(id(1)));
    world.pass(5);
    assert_eq!(world.counts().received, 1);
    assert!(world.nodes[1].lost_notes);
    // How much that was, the next frame tells, or a mark.
    world.pass(1_500);
    assert_eq!((world.counts().received, world.counts().lost), (1, 1));
}

#[test]
fn while_the_carrier_is_away_nothing_is_given_up() {
    let mut world = World::new(6, 2, Faults::default(), &Bounds::default());
    world.meet();
    world.pass(10);
    world.send_in_vain(&To::Instance(id(1)));
    world.send(0, &To::Instance(id(1)));
    world.faults.lose = 1000;
    world.nodes[0].lines.away();
    world.nodes[1].lines.away();
    world.pass(20_000);
    world.faults.lose = 0;
    for index in 0..2 {
        world.act(index, Lines::back);
    }
    world.pass(50);
    assert_eq!((world.counts().received, world.counts().lost), (2, 0));
}

#[test]
fn a_newcomer_is_owed_what_is_sent_to_all_after_it_was_seen() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, BAD, &Bounds::default());
        for (index, other) in [(0, 1), (1, 0)] {
            world.act(index, |lines, now, out| {
                lines.joined(&id(other), VERSION, now, out);
            });
        }
        for _ in 0..50 {
            world.send(0, &To::All);
        }
        // The third hears all by now, and the others learn of it at different times.
        world.act(2, Lines::back);
        for (index, other) in [(2, 0), (0, 2), (1, 2), (2, 1)] {
            for _ in 0..20 {
                world.send(0, &To::All);
                world.send_any(1);
            }
            world.act(index, |lines, now, out| {
                lines.joined(&id(other), VERSION, now, out);
            });
            world.pass(30);
        }
        for _ in 0..50 {
            world.send_any(0);
        }
        world.pass(10_000);
        let counts = world.counts();
        assert_eq!(
            (counts.lost, counts.received),
            (0, counts.sent),
            "seed {seed}"
        );
        world.assert_ordered(seed);
    }
}

#[test]
fn what_an_instance_did_not_acknowledge_before_it_left_is_in_doubt() {
    let mut world = World::new(7, 3, Faults::default(), &Bounds::default());
    world.meet();
    world.pass(10);
    for _ in 0..10 {
        world.send(0, &To::Instance(id(1)));
    }
    world.pass(1_000);
    world.nodes[1].up = false;
    for _ in 0..3 {
        world.send(0, &To::Instance(id(1)));
        world.send(0, &To::All);
    }
    world.pass(1_000);
    for index in [0, 2] {
        world.act(index, |lines, _, out| lines.left(&id(1), out));
    }
    assert_eq!(world.nodes[0].lines.counts().in_doubt, 6);
    world.pass(1_000);
    assert!(world.nodes[0].lines.is_settled());
    assert_eq!(world.nodes[0].lines.memory(), (0, 0));
    // It is not taken for one that is there, whatever still comes of it.
    let frame = world.nodes[1].lines.send(
        &To::All,
        true,
        |out| out.extend_from_slice(&[0; 8]),
        world.now,
    );
    world.act(0, |lines, now, out| {
        lines.arrived(&frame, now, out).unwrap();
    });
    assert_eq!(world.nodes[0].lines.counts().stale, 1);
}

#[test]
fn what_was_held_back_of_an_instance_that_left_is_released_in_order() {
    let mut world = World::new(8, 2, Faults::default(), &Bounds::default());
    world.meet();
    world.pass(10);
    for count in 0..6 {
        world.faults.lose = if count % 2 == 0 { 1000 } else { 0 };
        world.send(0, &To::Instance(id(1)));
    }
    world.nodes[0].up = false;
    world.pass(5);
    assert_eq!(world.counts().received, 0);
    world.act(1, |lines, _, out| lines.left(&id(0), out));
    assert_eq!(world.nodes[1].taken[&id(0)], [1, 3, 5]);
}

#[test]
fn what_is_kept_and_held_is_bounded() {
    let bounds = Bounds {
        kept_line: 10_000,
        kept: 15_000,
        held: 20_000,
        ..Bounds::default()
    };
    let mut world = World::new(9, 4, Faults::default(), &bounds);
    world.meet();
    world.pass(10);
    for peer in 1..4 {
        world.faults.lose = 1000;
        world.send(0, &To::Instance(id(peer)));
        world.faults.lose = 0;
        for _ in 0..1_000 {
            world.send(0, &To::Instance(id(peer)));
            let held = world.nodes[peer].lines.memory().1;
            assert!(held <= 20_200, "{held} bytes held back");
        }
        assert!(world.nodes[0].lines.memory().0 <= 15_000);
        world.pass(1);
    }
}

#[test]
fn noise_from_anyone_neither_panics_nor_grows() {
    let mut seed = Seed::new(10);
    let mut lines = Lines::new(
        id(0),
        Bounds {
            held: 10_000,
            ..Bounds::default()
        },
    );
    let mut other = Lines::new(id(1), Bounds::default());
    let now = Instant::now();
    let mut out = Out::default();
    for round in 0..20_000_u64 {
        let frame = match seed.below(3) {
            0 => other.send(&To::All, true, |out| out.push(1), now),
            1 => other.send(&To::Instance(id(0)), false, |out| out.push(1), now),
            _ => {
                let wild = Mark {
                    question: true,
                    pair: envelope::Position {
                        number: seed.below(1 << 56),
                        cargo: seed.below(1 << 56),
                    },
                    base: Some(envelope::Base {
                        all: envelope::Position {
                            number: seed.below(1 << 56),
                            cargo: 0,
                        },
                        pair: seed.below(1 << 56),
                    }),
                    ..Mark::default()
                };
                let name = format!("wild-{}", seed.below(3_000));
                let origin = Writer {
                    id: InstanceId::new(name, Incarnation::new(1, 1)),
                    version: VERSION,
                };
                envelope::mark(&origin, id(0).fingerprint(), &wild)
            }
        };
        let mut frame = frame.to_vec();
        let at = seed.below(frame.len() as u64) as usize;
        frame[at] ^= 1 << seed.below(8);
        // What is no frame is refused; that is all that is asked here.
        let _ = lines.arrived(&frame.into(), now, &mut out);
        if round % 100 == 0 {
            lines.tick(now + Duration::from_millis(round), &mut out);
        }
        assert!(lines.memory().1 <= 11_000 * 1024);
        out = Out::default();
    }
    assert!(lines.receiving.origins().count() <= 1024);
}

#[test]
fn all_is_written_in_the_version_that_all_know() {
    // As a later build would see it, which knows two more.
    let (now, mut out) = (Instant::now(), Out::default());
    let mut sending = Sending::default();
    let versions = VERSION..=VERSION + 2;
    assert_eq!(
        sending.version(&versions),
        VERSION + 2,
        "nobody else is there"
    );
    sending.joined(&id(1), VERSION + 1, now);
    assert_eq!(sending.version(&versions), VERSION + 1);
    sending.joined(&id(2), VERSION + 9, now);
    assert_eq!(
        sending.version(&versions),
        VERSION + 1,
        "its own bounds it, too"
    );
    assert!(sending.met(&id(3), now) && !sending.met(&id(3), now));
    assert_eq!(
        sending.version(&versions),
        VERSION,
        "who is not known yet may know no more"
    );
    sending.left(&id(3));
    sending.left(&id(1));
    assert_eq!(sending.version(&versions), VERSION + 2);

    let mut lines = Lines::new(id(0), Bounds::default());
    lines.joined(&id(1), VERSION + 1, now, &mut out);
    let frame = lines.send(&To::Instance(id(1)), true, |_| {}, now);
    assert_eq!(
        frame[0], VERSION,
        "a newer instance is written what this one knows"
    );
}

#[test]
fn a_long_gap_is_sent_again_once_and_a_window_at_a_time() {
    const COUNT: u64 = 5000;
    let now = Instant::now();
    let lines = |index| Lines::new(id(index), Bounds::default());
    let (mut origin, mut receiver) = (lines(0), lines(1));
    let (mut out, mut answers) = (Out::default(), Out::default());
    origin.joined(&id(1), VERSION, now, &mut out);
    receiver.joined(&id(0), VERSION, now, &mut answers);
    for (_, frame) in out.publish.drain(..) {
        receiver.arrived(&frame, now, &mut answers).unwrap();
    }
    let to = To::Instance(id(1));
    let sent = (0..COUNT).map(|_| origin.send(&to, true, |_| {}, now));
    let last = sent.last().unwrap();
    receiver.arrived(&last, now, &mut answers).unwrap();
    let (mut rounds, mut most) = (0, 0);
    while receiver.counts().received < COUNT {
        rounds += 1;
        assert!(rounds < COUNT, "it goes on");
        for (_, question) in answers.publish.drain(..) {
            origin.arrived(&question, now, &mut out).unwrap();
        }
        most = most.max(out.publish.len());
        for (_, frame) in out.publish.drain(..) {
            receiver.arrived(&frame, now, &mut answers).unwrap();
        }
    }
    assert_eq!(
        (origin.counts().repaired, receiver.counts().doubled),
        (COUNT - 1, 0)
    );
    assert!(
        rounds > 5 && most < COUNT as usize / 2,
        "{most} in one of {rounds} rounds"
    );
}
