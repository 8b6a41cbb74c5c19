//! Instances whose carrier loses, doubles and disorders by seed.

mod gaps;
mod world;

use self::world::*;
use super::*;
use crate::cluster::{Incarnation, seed::Seed};

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
