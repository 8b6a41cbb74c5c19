//! [`Outbox`]: what one client's socket did not take, bounded, in order.

mod answers;
mod chunk;
mod fetching;
mod leaving;
mod state;
mod taking;
mod writing;

use std::sync::Arc;

pub use self::chunk::Frames;
pub(crate) use self::fetching::FETCHED;
use self::state::State;
use super::{
    Overflow,
    run::{Draft, Memory},
    wire::{Socket, Wire},
};
use crate::{
    CloseReason,
    sync::{
        Mutex,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

/// What waits for one client's socket.
///
/// A pass writes straight through it while it is empty; what the socket does not take stays here as a slice of the
/// shared run, and the client's own task waits for the socket. Nothing overtakes what waits. What is dropped is whole
/// messages, never one begun, never a control frame.
#[repr(C)]
pub(crate) struct Outbox {
    /// Nothing waits, it takes more, it is not closing, and who writes has seen that: what every read looks at. It changes
    /// under the lock, and before anybody is woken for what ends it.
    calm: AtomicBool,
    overflow: Overflow,
    state: Mutex<State>,
    max_bytes: usize,
    max_messages: usize,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Messages written or waiting.
    pub(crate) taken: u32,
    /// Messages dropped, by policy or because the client is closed.
    pub(crate) dropped: u32,
    /// The client is over: its socket failed, or its outbox was full and the policy is to disconnect.
    pub(crate) over: Option<Over>,
}

/// How a delivery ended a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The outbox was full.
    Slow,
    /// The socket, or the wire's code, failed.
    Lost,
    /// Its encoder panicked.
    Failed,
}

/// The state of a client's outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxState {
    /// Bytes that wait.
    pub bytes: usize,
    /// Messages that wait.
    pub messages: usize,
}

impl Outbox {
    pub(crate) fn new(
        wire: Option<Box<dyn Wire>>,
        max_bytes: usize,
        max_messages: usize,
        overflow: Overflow,
    ) -> Self {
        Self {
            calm: AtomicBool::new(false),
            overflow,
            state: Mutex::new(State {
                wire: wire.map(Socket::new),
                ..State::default()
            }),
            max_bytes,
            max_messages,
        }
    }

    /// Closes it behind all that waits; `frame` is the close frame, if the transport has one.
    pub(crate) fn close(&self, reason: CloseReason, frame: Draft, memory: &Arc<Memory>) {
        let mut state = self.state.lock();
        self.stir();
        state.close(reason, frame, memory);
    }

    /// Closes it ahead of what waits: a message begun is finished, the others are dropped (and counted in the answer).
    pub(crate) fn cut(&self, reason: CloseReason, frame: Draft, memory: &Arc<Memory>) -> usize {
        let mut state = self.state.lock();
        if state.closing.is_some() || state.ended {
            return 0;
        }
        self.stir();
        let dropped = state.keep_begun(memory);
        state.close(reason, frame, memory);
        dropped
    }

    /// Ends it at once: the socket is lost, or the session is gone. Says how many messages waited when it ended, once.
    pub(crate) fn end(&self, reason: CloseReason) -> usize {
        let mut state = self.state.lock();
        self.stir();
        state.end(reason);
        std::mem::take(&mut state.lost) as usize
    }

    /// Whether its wire panicked.
    pub(crate) fn has_panicked(&self) -> bool {
        self.state.lock().panicked
    }

    /// How many bytes of it, from its first, a delivery touches where nothing waits.
    #[cfg(test)]
    pub(crate) fn touched_where_nothing_waits() -> usize {
        let outbox = Self::new(None, 1, 1, Overflow::Disconnect);
        let left = &raw const outbox.state.lock().left;
        left.addr() + size_of::<u64>() - (&raw const outbox).addr()
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Acquire)
    }

    fn stir(&self) {
        self.calm.store(false, Release);
    }

    fn is_full(&self, state: &State) -> bool {
        state.bytes >= self.max_bytes || state.messages >= self.max_messages
    }

    /// Nothing waits, and it takes more.
    fn is_free(&self, state: &State) -> bool {
        let is_open = state.closing.is_none() && !state.ended;
        is_open && state.chunks.is_empty() && !self.is_full(state)
    }

    fn presses(&self, state: &State) -> bool {
        state.closing.is_none()
            && !state.ended
            && (state.bytes > self.max_bytes / 2 || state.messages > self.max_messages / 2)
    }

    /// How much has left it so far, where something waits: a stall is the same figure twice.
    pub(crate) fn waiting(&self) -> Option<u64> {
        if self.is_calm() {
            return None;
        }
        let state = self.state.lock();
        (state.bytes > 0 || state.handed > 0).then_some(state.left)
    }

    /// Why it is closed, or closing.
    pub(crate) fn closing(&self) -> Option<CloseReason> {
        self.state.lock().closing.clone()
    }

    /// The number of the oldest run that it holds a part of; none where it is closing, and has given what it can.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let state = self.state.lock();
        let front = state.chunks.front().filter(|_| state.closing.is_none());
        front.map(|chunk| chunk.run.number)
    }

    pub(crate) fn state(&self) -> OutboxState {
        let state = self.state.lock();
        OutboxState {
            bytes: state.bytes,
            messages: state.messages,
        }
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
