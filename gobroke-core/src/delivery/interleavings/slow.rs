//! Sockets that take nothing for a while, and code that panics in a pass.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

use shuttle::{
    future::{JoinHandle, block_on},
    thread,
};

use super::{
    program::mark,
    world::{Lines, Plug, World, below, chance, options, wait_until},
};
use crate::{
    Broke, CloseReason, Encoder, EndpointOptions, Message, Overflow, Session, delivery::turn::Turn,
};

struct Connected {
    plug: Plug,
    session: Session,
    task: JoinHandle<()>,
}

fn connect(world: &World, count: usize) -> Arc<Vec<Connected>> {
    let encoder: Arc<dyn Encoder> = Arc::new(Lines);
    let open = |_| {
        let plug = Plug::new(&encoder, true);
        let (session, task) = world.open(&["g"], &plug);
        Connected {
            plug,
            session,
            task,
        }
    };
    Arc::new((0..count).map(open).collect())
}

/// A turn as a task of a runtime makes it, which catches a panic.
fn in_turn(work: impl FnOnce()) {
    let turn = catch_unwind(AssertUnwindSafe(|| {
        let _turn = Turn::begin();
        work();
    }));
    drop(turn);
}

/// A thread that broadcasts so many messages.
fn broadcasts(world: &Arc<World>, number: usize, count: usize) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || {
        for place in 1..=count {
            in_turn(|| {
                let message = Message::new(format!("{number}.{place}")).to_all();
                let sent = world.router.send(message, None);
                sent.expect("there is room");
            });
        }
    })
}

/// Sockets stall and go on; outboxes, and all of them together, may hold little.
pub(super) fn stalls() {
    let overflow = [
        Overflow::Disconnect,
        Overflow::DropOldest,
        Overflow::DropNewest,
    ][below(3)];
    let options = EndpointOptions {
        outbox_messages: 1 + below(4),
        overflow,
        ..options()
    };
    let memory = if chance(2) { 60 } else { 1 << 20 };
    let builder = Broke::builder().lanes(1 + below(2)).outbox_memory(memory);
    let world = World::new(builder, options);
    let clients = connect(&world, 3);
    let threads = [broadcasts(&world, 0, 5), broadcasts(&world, 1, 5)];
    let sockets = thread::spawn({
        let clients = clients.clone();
        move || {
            clients[0].plug.stall();
            clients[1].plug.stall();
            thread::yield_now();
            clients[1].plug.go_on();
        }
    });
    for thread in threads {
        thread.join().expect("it did not panic");
    }
    sockets.join().expect("it did not panic");
    wait_until("the lanes are idle", || world.lanes_are_idle());
    for client in &*clients {
        client.plug.go_on();
        client.session.close(CloseReason::Normal);
    }
    for client in Arc::into_inner(clients).expect("the threads have ended") {
        block_on(client.task).expect("it ends with the close frame");
        let mut frames = client.plug.frames(true);
        let close = frames.pop().expect("a close frame");
        let lossless = overflow == Overflow::Disconnect;
        match &*close {
            "close 1000" if lossless => assert_eq!(frames.len(), 11, "{frames:?}"),
            "close 1000" => {}
            "close 4000" => assert!(lossless || memory == 60, "nobody is cut"),
            _ => panic!("{close:?} is no close frame"),
        }
        if frames.first().is_some_and(|frame| frame == "welcome") {
            frames.remove(0);
        }
        let mut last = [0; 2];
        for (by, place) in frames.iter().map(|frame| mark(frame)) {
            assert!(last[by] < place, "{frames:?}");
            last[by] = place;
        }
    }
    world.settle();
    world.stop();
}

/// What panics when it is dropped: inside of a pass, where nobody catches it.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            resume_unwind(Box::new("a bomb"));
        }
    }
}

/// Codecs and wires panic: their clients end, the others miss nothing.
pub(super) fn codecs_and_wires_panic() {
    let world = World::new(Broke::builder().lanes(1 + below(2)), options());
    let clients = connect(&world, 4);
    let threads = [broadcasts(&world, 0, 4), broadcasts(&world, 1, 4)];
    clients[0].plug.break_soon();
    let message = Message::new("!").to_client(clients[1].session.client().id());
    drop(world.router.send(message, None));
    for thread in threads {
        thread.join().expect("it did not panic");
    }
    world.settle();
    assert!(clients[1].session.client().is_closed());
    for client in &clients[2..] {
        assert_eq!(client.plug.frames(true).len(), 9);
    }
    drop(clients);
    world.settle();
    world.stop();
}

/// A pass panics inside: its messages may be lost, its lane is not.
pub(super) fn passes_panic() {
    let world = World::new(Broke::builder().lanes(1 + below(2)), options());
    let clients = connect(&world, 2);
    if chance(2) {
        let gone = Box::new(|_: &_| resume_unwind(Box::new("who is told breaks")));
        assert!(
            world.router.lanes[0]
                .context
                .on_group_gone
                .set(gone)
                .is_ok()
        );
    }
    let threads = [broadcasts(&world, 0, 3), broadcasts(&world, 1, 3)];
    let panics = thread::spawn({
        let (world, clients) = (world.clone(), clients.clone());
        move || {
            for _ in 0..4 {
                let client = clients[below(2)].session.client();
                let mut message = Message::new("0.100").to_client(client.id());
                message.set_extension(Bomb);
                in_turn(|| {
                    drop(world.router.send(message, None));
                    client.leave("g");
                });
            }
        }
    });
    for thread in threads {
        thread.join().expect("it caught its panics");
    }
    panics.join().expect("it caught its panics");
    world.settle();
    let message = Message::new("0.200").to_all();
    drop(world.router.send(message, None));
    world.settle();
    for client in &*clients {
        let frames = client.plug.frames(true);
        assert_eq!(frames.last().map(String::as_str), Some("0.200"));
    }
    drop(clients);
    world.settle();
    world.stop();
}
