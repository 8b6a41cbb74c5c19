//! [`Turn`]: a batch of work, which ends in passes.
//!
//! While a turn is under way on a thread, sends append to lanes and note them here; when it ends, the lanes that it fed
//! are passed: by the turn itself, one after the other, where nobody else is at it, and by their own tasks what a slice
//! of time was not enough for. So a small room costs no wake-up, and a big one is passed by as many threads as it has
//! lanes. Passes are never made inside a send, where a user's lock may be held: sixteen broadcasts of one read are one
//! run.
//!
//! A turn never spans an await, so a thread-local is exact.

mod own;

use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use smallvec::SmallVec;

use self::own::is_meant;
pub(crate) use self::own::{Own, answer};
use super::{
    lane::{Lane, SLICE},
    room::{Room, Want},
};
use crate::{
    ClientId, Moment, Name,
    broke::router::Router,
    client::ClientShared,
    logic::module::Module,
    registry::Registry,
    sync::{Instant, thread_local},
};

#[derive(Default)]
struct Under {
    depth: u32,
    lanes: SmallVec<[Arc<Lane>; 4]>,
    /// Queues that were found above half when they were fed, or without room.
    pressed: Pressed,
    known: Known,
    /// The module that a turn of this thread looked up last: mostly the next one asks for it too.
    last_module: Weak<Module>,
}

/// What the turn has looked up: sixteen messages of one read ask for the same module.
#[derive(Default)]
struct Known {
    client: Option<Arc<ClientShared>>,
    /// Lent, not cloned: a count that all threads change for every message would hold them all back.
    module: Option<Arc<Module>>,
}

/// Queues that are waited for.
type Pressed = SmallVec<[Want; 1]>;

thread_local! {
    static UNDER: RefCell<Under> = RefCell::default();
}

thread_local! {
    /// How many logic modules the message that is handled now has passed.
    static HOPS: Cell<u8> = const { Cell::new(0) };
}

/// A turn under way on this thread. Dropping it ends it.
pub(crate) struct Turn {
    is_over: bool,
    _moment: Moment,
}

impl Turn {
    pub(crate) fn begin() -> Self {
        Self::counted(|_| {})
    }

    /// Begins the turn of a client's door, which keeps that in mind: most are answered. [`end_of`](Self::end_of) gives
    /// it back.
    pub(crate) fn of(own: &mut Option<Own>) -> Self {
        Self::counted(|depth| {
            if depth == 1 {
                own::set(own.take());
            }
        })
    }

    fn counted(begun: impl FnOnce(u32)) -> Self {
        let depth = UNDER.with_borrow_mut(|under| {
            under.depth += 1;
            under.depth
        });
        begun(depth);
        Self {
            is_over: false,
            _moment: Moment::begin(),
        }
    }

    /// Ends it, and says what is to be waited for before the next one.
    pub(crate) fn end(self) -> Left {
        self.end_of(&mut None)
    }

    /// The same for a turn that was begun with [`of`](Self::of).
    pub(crate) fn end_of(mut self, own: &mut Option<Own>) -> Left {
        let mut left = self.conclude(own);
        if let Some(pressed) = &mut left.pressed {
            pressed.retain(|want| want.is_pressing());
        }
        left
    }

    /// Makes the passes that are due; gives what was found pressed, and which lanes were fed.
    fn conclude(&mut self, own: &mut Option<Own>) -> Left {
        self.is_over = true;
        let ended = UNDER.with_borrow_mut(|under| {
            under.depth -= 1;
            (under.depth == 0).then(|| {
                let is_plain = under.lanes.is_empty() && under.pressed.is_empty();
                let fed = (!is_plain).then(|| {
                    let lanes = Unpassed(std::mem::take(&mut under.lanes));
                    (lanes, std::mem::take(&mut under.pressed))
                });
                (fed, std::mem::take(&mut under.known))
            })
        });
        let Some((fed, known)) = ended else {
            return Left::default();
        };
        // Settled after the passes: one that has something for the client writes both at once.
        *own = own::take();
        // It may be the last of a module: the program's code, in which nothing of this turn is left.
        drop(known);
        let left = fed.map(|(unpassed, pressed)| {
            let lanes = unpassed.0.iter().fold(0, |fed, lane| fed | bit(lane));
            pass(unpassed);
            let pressed = (!pressed.is_empty()).then(|| Box::new(pressed));
            Left { pressed, lanes }
        });
        if let Some(own) = own {
            own.settle();
        }
        left.unwrap_or_default()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            self.conclude(&mut None);
        }
    }
}

/// Passes lanes for a slice of time.
fn pass(mut unpassed: Unpassed) {
    if unpassed.0.is_empty() || std::thread::panicking() {
        return;
    }
    let mut now = Instant::now();
    let until = now + SLICE;
    while let Some(lane) = unpassed.0.pop() {
        now = lane.pass_here(now, until);
        if now >= until {
            return;
        }
    }
}

/// Lanes that a turn fed and has not passed. Dropping them, in the panic of a pass too, wakes their tasks.
struct Unpassed(SmallVec<[Arc<Lane>; 4]>);

impl Drop for Unpassed {
    fn drop(&mut self) {
        self.0.iter().for_each(|lane| lane.wake());
    }
}

/// A client that the turn has met, or that it looks up now and keeps in mind.
pub(crate) fn client(registry: &Arc<Registry>, id: ClientId) -> Option<Arc<ClientShared>> {
    let is_meant = |known: &&Arc<ClientShared>| is_meant(known, id, registry);
    let own = own::client(is_meant);
    let known = || UNDER.with_borrow(|under| under.known.client.as_ref().filter(is_meant).cloned());
    if let Some(known) = own.or_else(known) {
        return Some(known);
    }
    let client = registry.client(id)?;
    UNDER.with_borrow_mut(|under| {
        if under.depth > 0 {
            under.known.client = Some(client.clone());
        }
    });
    Some(client)
}

/// A logic module that the turn has met, or that it looks up now and keeps in mind.
pub(crate) fn module(router: &Arc<Router>, name: &Name) -> Option<Lent> {
    let known = UNDER
        .with_borrow_mut(|under| {
            let known = under.known.module.take();
            known.or_else(|| under.last_module.upgrade())
        })
        .filter(|known| is_called(known, name) && Arc::ptr_eq(known.ctx.router(), router));
    if known.is_some() {
        return Some(Lent(known));
    }
    let module = router.modules.get(name)?.value().clone();
    UNDER.with_borrow_mut(|under| under.last_module = Arc::downgrade(&module));
    Some(Lent(Some(module)))
}

#[inline]
fn is_called(module: &Module, name: &Name) -> bool {
    module.name == *name && !module.is_closed()
}

/// A logic module out of the turn's mind; dropping it puts it back.
pub(crate) struct Lent(Option<Arc<Module>>);

impl Lent {
    /// Whether a look-up of this name would find it again.
    #[inline]
    pub(crate) fn is_still(&self, name: &Name) -> bool {
        is_called(self, name)
    }
}

impl Deref for Lent {
    type Target = Arc<Module>;

    fn deref(&self) -> &Arc<Module> {
        // It is there until the drop.
        self.0
            .as_ref()
            .unwrap_or_else(|| unreachable!("a lent module is taken only when it is dropped"))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let module = self.0.take();
        // What was in mind meanwhile is dropped outside of the borrow: it may be the last of its module.
        let _forgotten = UNDER.with_borrow_mut(|under| match under.depth {
            0 => None,
            _ => std::mem::replace(&mut under.known.module, module),
        });
    }
}

/// Notes that a lane was fed: its pass comes when the turn ends, or, outside of a turn, its task is woken.
pub(crate) fn fed(lane: &Arc<Lane>) {
    if !note(lane) {
        lane.wake();
    }
}

/// The same with a message for one client.
pub(crate) fn fed_for_one(lane: &Arc<Lane>) {
    if !note(lane) {
        lane.wake_for_one();
    }
}

/// Notes a lane, in a turn.
fn note(lane: &Arc<Lane>) -> bool {
    UNDER.with_borrow_mut(|under| {
        if under.depth == 0 {
            return false;
        }
        if !under.lanes.iter().any(|known| Arc::ptr_eq(known, lane)) {
            under.lanes.push(lane.clone());
        }
        true
    })
}

/// Notes a queue that was found above half, or (with the entry's size) without room.
pub(crate) fn pressed(room: &Arc<Room>, bytes: usize, logic: bool) {
    UNDER.with_borrow_mut(|under| {
        if under.depth == 0 {
            return;
        }
        match under
            .pressed
            .iter_mut()
            .find(|known| Arc::ptr_eq(&known.room, room))
        {
            Some(known) => known.bytes = known.bytes.max(bytes),
            None => under.pressed.push(Want {
                room: room.clone(),
                bytes,
                logic,
            }),
        }
    });
}

/// Whether the turn should end before its batch does, since something that it feeds is above half.
#[inline]
pub(crate) fn is_pressed() -> bool {
    UNDER.with_borrow(|under| !under.pressed.is_empty() || lanes_pressed(under))
}

/// The same for logic, which does not wait for logic.
pub(crate) fn is_held_back() -> bool {
    UNDER.with_borrow(|under| under.pressed.iter().any(|want| !want.logic) || lanes_pressed(under))
}

fn lanes_pressed(under: &Under) -> bool {
    under.lanes.iter().any(|lane| lane.room.is_pressed())
}

/// What a turn leaves to be waited for before the next one.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Queues that it found without room, and logic's that it left above half: mostly none, and then it is small.
    pressed: Option<Box<Pressed>>,
    /// The lanes that it fed, each as a [`bit`]: whether they are below half is looked up when the next turn is about
    /// to begin, since it is others who fill them meanwhile.
    lanes: u64,
}

fn bit(lane: &Lane) -> u64 {
    1 << (lane.context.index % 64)
}

impl Left {
    /// What is left to one who may feed any lane.
    pub(crate) fn any() -> Self {
        Self {
            pressed: None,
            lanes: u64::MAX,
        }
    }

    pub(crate) fn is_pressing(&self, lanes: &[Arc<Lane>]) -> bool {
        self.wants().next().is_some() || self.pressed_lane(lanes).is_some()
    }

    fn wants(&self) -> impl Iterator<Item = &Want> {
        self.pressed.iter().flat_map(|pressed| pressed.iter())
    }

    fn pressed_lane<'a>(&self, lanes: &'a [Arc<Lane>]) -> Option<&'a Arc<Lane>> {
        let fed = |lane: &&Arc<Lane>| self.lanes & bit(lane) != 0;
        lanes.iter().filter(fed).find(|lane| lane.room.is_pressed())
    }

    /// Waits for logic's queues: what only the door does. Cancel-safe.
    pub(crate) async fn logic_eased(&self) {
        for want in self.wants().filter(|want| want.logic) {
            want.eased().await;
        }
    }

    /// Waits for the lanes, and for nothing of logic's. Cancel-safe.
    pub(crate) async fn eased(&mut self, lanes: &[Arc<Lane>]) {
        if let Some(pressed) = &mut self.pressed {
            pressed.retain(|want| !want.logic);
            while let Some(want) = pressed.last() {
                want.eased().await;
                pressed.pop();
            }
        }
        self.pressed = None;
        while let Some(lane) = self.pressed_lane(lanes) {
            lane.room.eased().await;
        }
    }
}

/// How many logic modules the message that is handled now has passed.
pub(crate) fn hops() -> u8 {
    HOPS.get()
}

/// Runs a handler of a message that has passed this many logic modules.
#[inline]
pub(crate) fn with_hops<T>(hops: u8, run: impl FnOnce() -> T) -> T {
    struct Restore(u8);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOPS.set(self.0);
        }
    }
    let _restore = Restore(HOPS.replace(hops));
    run()
}

/// A future whose every poll is a turn. Gives, beside its output, what its last turn left to be waited for.
pub(crate) struct InTurns<F>(pub(crate) Pin<Box<F>>);

impl<F: Future> Future for InTurns<F> {
    type Output = (F::Output, Left);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let turn = Turn::begin();
        let polled = self.0.as_mut().poll(cx);
        let left = turn.end();
        polled.map(|output| (output, left))
    }
}

/// A future that handles a message which has passed this many logic modules.
pub(crate) struct WithHops<F> {
    pub(crate) hops: u8,
    pub(crate) future: F,
}

impl<F: Future + Unpin> Future for WithHops<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let hops = self.hops;
        with_hops(hops, || Pin::new(&mut self.future).poll(cx))
    }
}
