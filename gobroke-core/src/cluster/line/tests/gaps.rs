//! What is asked for, and what is given up.

use super::{super::*, world::*};

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
    for (line, other, to) in [
        (Line::Pair, Line::All, To::Instance(id(1))),
        (Line::All, Line::Pair, To::All),
    ] {
        let mut world = World::new(4, 2, Faults::default(), &Bounds::default());
        world.meet();
        world.pass(10);
        world.send_in_vain(&to);
        world.send(0, &To::Instance(id(1)));
        // What it sends again must not come, nor an answer of its own.
        world.nodes[0].up = false;
        let origin = Writer {
            id: id(0),
            version: VERSION,
        };
        let says = |world: &mut World, answer| {
            let one = envelope::Position {
                number: 1,
                cargo: 1,
            };
            let mark = Mark {
                answer,
                pair: one,
                all: if line == Line::All {
                    one
                } else {
                    Default::default()
                },
                ..Mark::default()
            };
            let mark = envelope::mark(&origin, id(1).fingerprint(), &mark);
            world.under_way.insert((world.now, 0), (1, mark));
            world.pass(10);
        };
        world.pass(900);
        says(&mut world, Some(line));
        assert_eq!(world.counts().received, 0, "before the second is over");
        world.pass(200);
        for (answer, why) in [
            (None, "it may not have heard any request"),
            (Some(other), "it may not have heard that for this line"),
        ] {
            says(&mut world, answer);
            assert_eq!(world.counts().received, 0, "{line:?}: {why}");
        }
        says(&mut world, Some(line));
        assert_eq!((world.counts().received, world.counts().lost), (1, 1));
    }
}

#[test]
fn nothing_is_given_up_while_requests_for_it_are_lost_and_other_questions_answered() {
    for to in [To::Instance(id(1)), To::All] {
        let mut world = World::new(4, 2, Faults::default(), &Bounds::default());
        world.meet();
        world.pass(10);
        world.send_in_vain(&to);
        world.faults.lose_requests = true;
        for _ in 0..50 {
            world.send(0, &To::Instance(id(1)));
            // It has something to ask about, and is answered.
            world.send(1, &To::Instance(id(0)));
            world.act(1, Lines::press);
            world.pass(100);
        }
        assert_eq!(
            (world.counts().received, world.counts().lost),
            (50, 0),
            "{to:?}"
        );
        world.faults.lose_requests = false;
        world.pass(1_000);
        assert_eq!(
            (world.counts().received, world.counts().lost),
            (101, 0),
            "{to:?}"
        );
    }
}

#[test]
fn whom_an_origin_does_not_know_yet_waits_a_second_to_be_told_where_the_line_to_all_begins() {
    let mut world = World::new(4, 2, Faults::default(), &Bounds::default());
    world.act(1, |lines, now, out| lines.joined(&id(0), VERSION, now, out));
    world.send(0, &To::All);
    world.send(0, &To::Instance(id(1)));
    world.pass(1_000);
    assert!(world.nodes[1].taken.is_empty());
    world.pass(200);
    assert_eq!(world.nodes[1].taken[&id(0)], [0, 1]);
    assert_eq!(world.counts().lost, 0);
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
