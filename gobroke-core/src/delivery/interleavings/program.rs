//! Random programs for several threads, and what must have come of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use shuttle::future::{JoinHandle, block_on};

use super::world::{Lines, Plug, World, below, chance, id, options, wait_until};
use crate::{
    Broke, ClientId, CloseReason, Encoder, Message, SendError, Session, delivery::turn::Turn,
};

const GROUPS: [&str; 2] = ["g", "h"];

/// A message by its sender's number and the place in what that sent.
pub(super) type Mark = (usize, usize);

/// Someone who receives: a steady client is there, in its groups, all the time; the others come and go with one thread.
struct Receiver {
    key: usize,
    plug: Plug,
    task: JoinHandle<()>,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    /// Whether the close has a frame.
    Closed(bool),
    Forgotten,
}

/// A steady client, as senders see it.
struct Steady {
    key: usize,
    id: ClientId,
    session: Session,
    groups: Vec<&'static str>,
}

/// What one thread sent, and who must and who must not have it.
#[derive(Default)]
struct Sent {
    must: BTreeSet<(usize, Mark)>,
    never: BTreeSet<(usize, Mark)>,
    /// Direct messages, which may go ahead of others.
    direct: BTreeSet<Mark>,
    /// Broadcasts that leave nobody out.
    to_all: BTreeSet<Mark>,
    refused: usize,
}

/// A client of a thread's own: only that thread makes it come and go.
struct Roamer {
    session: Session,
    receiver: Receiver,
    groups: Vec<&'static str>,
}

struct Thread {
    number: usize,
    world: Arc<World>,
    steady: Arc<Vec<Steady>>,
    encoder: Arc<dyn Encoder>,
    roamer: Option<Roamer>,
    gone: Vec<(Option<Session>, Receiver)>,
    sent: Sent,
    next: usize,
    sessions: usize,
}

/// Who is to have a message.
#[derive(Default)]
struct Audience {
    everyone: bool,
    groups: Vec<&'static str>,
    clients: Vec<ClientId>,
    except: Vec<ClientId>,
}

impl Audience {
    fn has(&self, id: ClientId, groups: &[&'static str]) -> bool {
        let named = self.everyone
            || self.clients.contains(&id)
            || self.groups.iter().any(|group| groups.contains(group));
        named && !self.except.contains(&id)
    }

    fn message(&self, mark: Mark) -> Message {
        let mut message = Message::new(format!("{}.{}", mark.0, mark.1));
        if self.everyone {
            message = message.to_all();
        }
        for &group in &self.groups {
            message = message.to_group(group);
        }
        for &client in &self.clients {
            message = message.to_client(client);
        }
        for &client in &self.except {
            message = message.except(client);
        }
        message
    }
}

impl Thread {
    fn run(mut self, turns: usize) -> Self {
        for _ in 0..turns {
            let in_turn = !chance(4);
            let turn = in_turn.then(Turn::begin);
            for _ in 0..1 + below(3) {
                self.step();
            }
            let mut left = turn.map(Turn::end).unwrap_or_default();
            // Whoever waits here for ever is found: the checker reports a deadlock.
            block_on(left.eased(&self.world.router.lanes));
        }
        self
    }

    fn step(&mut self) {
        match below(12) {
            0..=6 => self.send(),
            7 => self.send_frame(),
            8 | 9 => self.join_or_leave(),
            10 if self.roamer.is_none() => self.come(),
            11 => self.go(),
            _ => {}
        }
    }

    fn mark(&mut self) -> Mark {
        self.next += 1;
        (self.number, self.next)
    }

    fn audience(&mut self) -> Audience {
        let someone = match &self.roamer {
            Some(roamer) if chance(3) => id(&roamer.session),
            _ => self.steady[below(self.steady.len())].id,
        };
        let group = GROUPS[below(GROUPS.len())];
        let mut audience = Audience::default();
        match below(8) {
            0..=2 => audience.clients.push(someone),
            3 | 4 => audience.everyone = true,
            5 => audience.groups.push(group),
            6 => {
                audience.groups.push(group);
                audience.everyone = chance(2);
                audience.except.push(someone);
            }
            _ => {
                audience.groups.extend(GROUPS);
                audience.clients.push(someone);
            }
        }
        audience
    }

    fn send(&mut self) {
        let (mark, audience) = (self.mark(), self.audience());
        match (&*audience.groups, &*audience.clients, &*audience.except) {
            ([], [_], []) => drop(self.sent.direct.insert(mark)),
            ([], [], []) => drop(self.sent.to_all.insert(mark)),
            _ => {}
        }
        let sent = self.world.router.send(audience.message(mark), None);
        let queued = match sent {
            Ok(_) => true,
            Err(SendError::Full { .. }) => false,
            Err(error) => panic!("{error}"),
        };
        self.sent.refused += usize::from(!queued);
        for steady in &*self.steady {
            let has = queued && audience.has(steady.id, &steady.groups);
            self.sent.note(steady.key, mark, has);
        }
        if let Some(roamer) = &self.roamer {
            let has = queued && audience.has(id(&roamer.session), &roamer.groups);
            self.sent.note(roamer.receiver.key, mark, has);
        }
        for (_, gone) in &self.gone {
            self.sent.note(gone.key, mark, false);
        }
    }

    /// A control frame, which must not be refused, and goes no further than the close.
    fn send_frame(&mut self) {
        let mark = self.mark();
        let (key, client) = match &self.roamer {
            Some(roamer) => (roamer.receiver.key, roamer.session.client()),
            None => {
                let steady = &self.steady[below(self.steady.len())];
                (steady.key, steady.session.client())
            }
        };
        let frame = format!("{}.{}\n", mark.0, mark.1);
        self.sent.direct.insert(mark);
        self.world.router.send_frame(&client.0, frame.into());
        self.sent.note(key, mark, true);
    }

    fn join_or_leave(&mut self) {
        let Some(roamer) = &mut self.roamer else {
            return;
        };
        let group = GROUPS[below(GROUPS.len())];
        match roamer.groups.iter().position(|known| *known == group) {
            Some(index) => {
                assert!(roamer.session.client().leave(group));
                roamer.groups.remove(index);
            }
            None => {
                assert!(roamer.session.client().join(group));
                roamer.groups.push(group);
            }
        }
    }

    fn come(&mut self) {
        let groups = GROUPS[..below(3)].to_vec();
        let plug = Plug::new(&self.encoder, chance(2));
        let (session, task) = self.world.open(&groups, &plug);
        self.sessions += 1;
        self.roamer = Some(Roamer {
            session,
            receiver: Receiver {
                key: 1000 * (self.number + 1) + self.sessions,
                plug,
                task,
                fate: Fate::Open,
            },
            groups,
        });
    }

    fn go(&mut self) {
        let Some(Roamer {
            session,
            mut receiver,
            ..
        }) = self.roamer.take()
        else {
            return;
        };
        if chance(3) {
            receiver.fate = Fate::Forgotten;
            self.gone.push((None, receiver));
        } else {
            let told = chance(2);
            session.close(match told {
                true => CloseReason::Normal,
                false => CloseReason::ConnectionLost,
            });
            receiver.fate = Fate::Closed(told);
            self.gone.push((Some(session), receiver));
        }
    }
}

impl Sent {
    fn note(&mut self, receiver: usize, mark: Mark, has: bool) {
        match has {
            true => self.must.insert((receiver, mark)),
            false => self.never.insert((receiver, mark)),
        };
    }
}

/// Runs a random program, and checks what came of it.
pub(super) fn run(threads: usize, lane_bytes: usize) {
    let builder = Broke::builder().lanes(1 + below(3)).lane_bytes(lane_bytes);
    let world = World::new(builder, options());
    let encoder: Arc<dyn Encoder> = Arc::new(Lines);
    let (mut steady, mut receivers) = (Vec::new(), Vec::new());
    for key in 0..3 {
        let groups = GROUPS[..key.min(2)].to_vec();
        let plug = Plug::new(&encoder, key != 1);
        let (session, task) = world.open(&groups, &plug);
        steady.push(Steady {
            key,
            id: id(&session),
            session,
            groups,
        });
        receivers.push(Receiver {
            key,
            plug,
            task,
            fate: Fate::Open,
        });
    }
    let steady = Arc::new(steady);
    let running: Vec<_> = (0..threads)
        .map(|number| {
            let thread = Thread {
                number,
                world: world.clone(),
                steady: steady.clone(),
                encoder: encoder.clone(),
                roamer: None,
                gone: Vec::new(),
                sent: Sent::default(),
                next: 0,
                sessions: 0,
            };
            shuttle::thread::spawn(move || thread.run(3))
        })
        .collect();
    let mut all = Sent::default();
    let mut sessions = Vec::new();
    for thread in running {
        let Thread {
            roamer, gone, sent, ..
        } = thread.join().expect("it did not panic");
        if let Some(Roamer {
            session, receiver, ..
        }) = roamer
        {
            sessions.push(session);
            receivers.push(receiver);
        }
        for (session, receiver) in gone {
            sessions.extend(session);
            receivers.push(receiver);
        }
        all.must.extend(sent.must);
        all.never.extend(sent.never);
        all.direct.extend(sent.direct);
        all.to_all.extend(sent.to_all);
        assert!(lane_bytes < 1 << 20 || sent.refused == 0, "there was room");
    }
    world.settle();
    check(&receivers, &all);
    drop((steady, sessions));
    for receiver in receivers {
        block_on(receiver.task).expect("it ends once its session is gone");
    }
    world.settle();
    assert_eq!(
        world.router.registry.groups_len(),
        0,
        "groups go with their members"
    );
    world.stop();
}

/// Checks frame by frame what came to whom.
fn check(receivers: &[Receiver], sent: &Sent) {
    let mut all = BTreeMap::new();
    for receiver in receivers {
        let mut frames = receiver.plug.frames(receiver.fate != Fate::Forgotten);
        if let Fate::Closed(told) = receiver.fate {
            if told {
                assert_eq!(frames.pop().as_deref(), Some("close 1000"));
            }
            // Where there is no close frame nothing waits, and its task may not have come to it yet.
            wait_until("it is shut behind the close frame", || {
                receiver.plug.is_shut()
            });
        }
        if receiver.fate != Fate::Forgotten || !frames.is_empty() {
            assert_eq!(frames.remove(0), "welcome");
        }
        let marks: Vec<Mark> = frames.iter().map(|frame| mark(frame)).collect();
        check_one(receiver, &marks, sent);
        all.insert(receiver.key, marks);
    }
    for (one, marks) in &all {
        for (other, others) in all.range(one + 1..) {
            let common = |these: &[Mark], those: &[Mark]| -> Vec<Mark> {
                let shared = |mark: &&Mark| !sent.direct.contains(mark) && those.contains(mark);
                these.iter().filter(shared).copied().collect()
            };
            assert_eq!(
                common(marks, others),
                common(others, marks),
                "{one} and {other} see one order"
            );
        }
    }
    // Who comes or goes has all that was sent to all meanwhile, and nothing else.
    let to_all = |marks: &[Mark]| -> Vec<Mark> {
        let broadcast = |mark: &&Mark| sent.to_all.contains(mark);
        marks.iter().filter(broadcast).copied().collect()
    };
    let order = to_all(&all[&0]);
    for marks in all.values() {
        let some = to_all(marks);
        let contiguous = some.is_empty() || order.windows(some.len()).any(|part| part == some);
        assert!(contiguous, "{some:?} is no part of {order:?}");
    }
}

fn check_one(receiver: &Receiver, marks: &[Mark], sent: &Sent) {
    let key = receiver.key;
    let mut last = BTreeMap::new();
    for &(by, place) in marks {
        let before = last.insert(by, place).unwrap_or(0);
        assert!(before < place, "{key} got {place} of {by} behind {before}");
        assert!(
            !sent.never.contains(&(key, (by, place))),
            "{key} got {by}.{place}, which is not for it"
        );
    }
    if receiver.fate != Fate::Forgotten {
        for &(_, mark) in sent.must.range((key, (0, 0))..(key + 1, (0, 0))) {
            assert!(
                marks.contains(&mark),
                "{key} did not get {mark:?}: {marks:?}"
            );
        }
    }
}

/// The sender and the place of a frame; any frame but a whole message is none.
pub(super) fn mark(frame: &str) -> Mark {
    let parsed = frame
        .split_once('.')
        .and_then(|(by, place)| Some((by.parse().ok()?, place.parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("{frame:?} is no whole message"))
}
