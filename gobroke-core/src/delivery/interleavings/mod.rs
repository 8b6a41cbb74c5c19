//! Delivery under many thread interleavings: what it promises holds whoever goes on when.
//!
//! A checker (shuttle) runs each test thousands of times. At every lock, atomic and wake-up it decides by chance who goes
//! on, and here what a socket takes and what time it is as well. A schedule that fails is printed, to be replayed with
//! `shuttle::replay`. It takes all atomics as sequentially consistent: orderings are for the reader to check.
//!
//! `scripts/test` shows how to start them.

mod program;
mod slow;
mod world;

use std::sync::Arc;

use shuttle::{
    future::block_on,
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};

use self::world::{Lines, Plug, World, below, chance, options, runtime};
use super::{lane::Lane, room::Room};
use crate::{Batch, Broke, CloseReason, Encoder, Message};

/// Runs a test under schedules by chance, and under those that change thread in few, chosen places.
fn check(schedules: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    config.max_steps = shuttle::MaxSteps::FailAfter(400_000);
    let _context = runtime().enter();
    let test = Arc::new(test);
    let random = RandomScheduler::new(schedules / 2);
    let few = PctScheduler::new(4, schedules / 2);
    let again = test.clone();
    shuttle::Runner::new(random, config.clone()).run(move || again());
    shuttle::Runner::new(few, config).run(move || test());
}

#[test]
fn everyone_gets_everything_once_and_in_order() {
    check(4000, || program::run(3, 8 << 20));
}

#[test]
fn what_is_refused_is_queued_nowhere_and_who_waits_for_room_goes_on() {
    check(4000, || program::run(3, 700));
}

#[test]
fn a_slow_socket_gets_whole_frames_and_the_close_frame_last() {
    check(2500, slow::stalls);
}

#[test]
fn codecs_and_wires_that_panic_end_their_clients_alone() {
    check(2500, slow::codecs_and_wires_panic);
}

#[test]
fn a_pass_that_panics_gives_its_lane_back() {
    check(2500, slow::passes_panic);
}

#[test]
fn who_waits_for_room_misses_no_release() {
    check(4000, || {
        let room = Arc::new(Room::new(4, 100));
        for _ in 0..4 {
            room.force(25);
        }
        let releases = (0..3).map(|_| {
            let room = room.clone();
            thread::spawn(move || {
                room.release(1, 25);
                if room.reserve(10) {
                    room.release(1, 10);
                }
            })
        });
        let releases: Vec<_> = releases.collect();
        block_on(room.eased());
        for release in releases {
            release.join().expect("it did not panic");
        }
        assert_eq!((room.entries(), room.bytes()), (1, 25));
    });
}

#[test]
fn a_door_that_finds_a_lane_full_goes_on_when_there_is_room() {
    check(2500, || {
        let world = World::new(Broke::builder().lanes(2).lane_bytes(600), options());
        let encoder: Arc<dyn Encoder> = Arc::new(Lines);
        let plugs = [Plug::new(&encoder, true), Plug::new(&encoder, true)];
        let [(one, _first), (other, _second)] = plugs.each_ref().map(|plug| world.open(&[], plug));
        let ids = [one.client().id(), other.client().id()];
        let doors = [one, other]
            .into_iter()
            .enumerate()
            .map(|(by, mut session)| {
                thread::spawn(move || {
                    let mut batch = Batch::new();
                    for place in 1..=4 {
                        batch.push(Message::new(format!("{by}.{place}")).to_client(ids[below(2)]));
                    }
                    block_on(session.halves().0.receive(&mut batch)).expect("it is open");
                    session
                })
            });
        let sessions: Vec<_> = doors
            .collect::<Vec<_>>()
            .into_iter()
            .map(|door| door.join().expect("it did not panic"))
            .collect();
        world.settle();
        let frames: usize = plugs.iter().map(|plug| plug.frames(true).len()).sum();
        assert_eq!(frames, 2 + 8, "two welcomes, and all that was sent");
        drop(sessions);
        world.settle();
        world.stop();
    });
}

#[test]
fn answers_keep_their_place_among_all_that_their_turn_sends() {
    check(4000, || {
        let world = World::new(Broke::builder().lanes(2), options());
        let encoder: Arc<dyn Encoder> = Arc::new(Lines);
        let plugs = [Plug::new(&encoder, true), Plug::new(&encoder, true)];
        let [(one, _first), (other, _second)] = plugs.each_ref().map(|plug| world.open(&[], plug));
        let ids = [one.client().id(), other.client().id()];
        let closes = chance(2);
        let doors = [one, other]
            .into_iter()
            .enumerate()
            .map(|(by, mut session)| {
                thread::spawn(move || {
                    let mut got = [Vec::new(), Vec::new()];
                    let mut place = 0;
                    for _ in 0..2 {
                        let mut batch = Batch::new();
                        for _ in 0..4 {
                            place += 1;
                            let message = Message::new(format!("{by}.{place}"));
                            let to = below(4);
                            let message = match to {
                                0 => message.to_all(),
                                1 => message.to_client(ids[1 - by]),
                                _ => message.to_client(ids[by]),
                            };
                            batch.push(message);
                            for (client, got) in got.iter_mut().enumerate() {
                                if to == 0 || (to == 1) == (client != by) {
                                    got.push(format!("{by}.{place}"));
                                }
                            }
                        }
                        block_on(session.halves().0.receive(&mut batch)).expect("it is open");
                    }
                    if by == 0 && closes {
                        session.close(CloseReason::Normal);
                    }
                    (session, got)
                })
            });
        let doors: Vec<_> = doors.collect();
        let (sessions, sent): (Vec<_>, Vec<_>) = doors
            .into_iter()
            .map(|door| door.join().expect("it did not panic"))
            .unzip();
        world.settle();
        for (client, plug) in plugs.iter().enumerate() {
            let frames = plug.frames(true);
            for (by, got) in sent.iter().enumerate() {
                let of = format!("{by}.");
                let of_it: Vec<_> = frames
                    .iter()
                    .filter(|frame| frame.starts_with(&of))
                    .collect();
                if client == 0 && by == 1 && closes {
                    // What came behind the close is dropped.
                    assert!(got[client].iter().collect::<Vec<_>>().starts_with(&of_it));
                } else {
                    assert_eq!(of_it, got[client].iter().collect::<Vec<_>>());
                }
            }
        }
        drop(sessions);
        world.settle();
        world.stop();
    });
}
