//! [`Outbox`]: what one client's socket did not take, bounded, in order.

mod answers;
mod chunk;
mod state;
mod writing;

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

pub use self::chunk::Frames;
use self::{
    answers::Answers,
    chunk::Chunk,
    state::State,
    writing::{guarded, write, write_chunks},
};
use super::{
    Overflow,
    run::{Draft, Mark, Memory, Run},
    wire::Wire,
};
use crate::{
    CloseReason, Message,
    client::ClientShared,
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
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Nothing waits, it is not closing, and who writes has seen that: what every read looks at. It changes under the
    /// lock, and before anybody is woken for what ends it.
    calm: AtomicBool,
    max_bytes: usize,
    max_messages: usize,
    overflow: Overflow,
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
            state: Mutex::new(State {
                wire,
                ..State::default()
            }),
            calm: AtomicBool::new(false),
            max_bytes,
            max_messages,
            overflow,
        }
    }

    /// Keeps an answer to the client whose turn is under way: it goes before all that is delivered from now on, and at
    /// the latest with the [`flush`](Self::flush) that ends the turn. Gives it back where something waits.
    pub(crate) fn answer(&self, message: Message) -> Option<Message> {
        let mut state = self.state.lock();
        let is_free = state.chunks.is_empty() && state.closing.is_none() && !state.ended;
        if !is_free || self.is_full(&state) {
            return Some(message);
        }
        Answers::push(&mut state.answers, message)
    }

    /// Delivers the answers that were kept.
    pub(crate) fn flush(&self, client: &ClientShared) -> Delivered {
        self.deliver(client, &[], &[], || {
            Run::new(Draft::default(), &client.lane.context.memory)
        })
    }

    /// Takes messages for its client, behind the answers that were kept: writes what the socket takes now, keeps the rest.
    ///
    /// `keep` gives the run that holds exactly these bytes and marks; it is asked only if something has to be kept.
    /// The bound is judged by what was held before: a run larger than the bound is no slow reader.
    pub(crate) fn deliver(
        &self,
        client: &ClientShared,
        bytes: &[u8],
        marks: &[Mark],
        keep: impl FnOnce() -> Arc<Run>,
    ) -> Delivered {
        let mut state = self.state.lock();
        let Some(answers) = state.answers.take() else {
            return self.take(&mut state, bytes, marks, keep);
        };
        let memory = &client.lane.context.memory;
        let delivered = answers.encoded(&client.encoder, |draft| {
            draft.append(bytes, marks);
            self.take(&mut state, &draft.bytes, &draft.marks, || {
                Run::new(draft.copy(), memory)
            })
        });
        // What hangs on a message is dropped without the lock.
        drop(state);
        let failed = Delivered {
            dropped: (answers.len() + marks.len()) as u32,
            over: Some(Over::Failed),
            ..Delivered::default()
        };
        answers.spare();
        delivered.unwrap_or(failed)
    }

    fn take(
        &self,
        state: &mut State,
        bytes: &[u8],
        marks: &[Mark],
        keep: impl FnOnce() -> Arc<Run>,
    ) -> Delivered {
        if marks.is_empty() {
            return Delivered::default();
        }
        let count = marks.len() as u32;
        if state.closing.is_some() || state.ended {
            return Delivered {
                dropped: count,
                ..Delivered::default()
            };
        }
        if self.is_full(state) {
            return self.overflow(state, marks, keep);
        }
        let mut at = 0;
        if state.chunks.is_empty()
            && let Some(wire) = &mut state.wire
        {
            match write(&mut **wire, bytes) {
                Ok(written) if written == bytes.len() => {
                    state.left += written as u64;
                    return Delivered {
                        taken: count,
                        ..Delivered::default()
                    };
                }
                Ok(written) => {
                    state.left += written as u64;
                    at = written;
                }
                Err(error) => {
                    self.stir();
                    state.fail(&error);
                    return Delivered {
                        dropped: count,
                        over: Some(Over::Lost),
                        ..Delivered::default()
                    };
                }
            }
        }
        let first = marks.partition_point(|mark| mark.end as usize <= at) as u32;
        self.stir();
        state.push(Chunk {
            run: keep(),
            first,
            last: count,
            at: at as u32,
        });
        Delivered {
            taken: count,
            ..Delivered::default()
        }
    }

    /// Takes messages although the bound is reached: by each one's policy.
    #[cold]
    fn overflow(
        &self,
        state: &mut State,
        marks: &[Mark],
        keep: impl FnOnce() -> Arc<Run>,
    ) -> Delivered {
        let policy = |mark: &Mark| mark.overflow.unwrap_or(self.overflow);
        let mut delivered = Delivered::default();
        if marks
            .iter()
            .any(|mark| !mark.control && policy(mark) == Overflow::Disconnect)
        {
            // What waits is counted when the client is cut.
            delivered.dropped = marks.len() as u32;
            delivered.over = Some(Over::Slow);
            return delivered;
        }
        let run = keep();
        self.stir();
        for (message, mark) in (0u32..).zip(marks) {
            if !mark.control && policy(mark) == Overflow::DropNewest {
                delivered.dropped += 1;
                continue;
            }
            if !mark.control {
                while self.is_full(state) && state.drop_oldest() {
                    delivered.dropped += 1;
                }
            }
            let at = run.start(message);
            state.push(Chunk {
                run: run.clone(),
                first: message,
                last: message + 1,
                at,
            });
            delivered.taken += 1;
        }
        delivered
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

    fn is_calm(&self) -> bool {
        self.calm.load(Acquire)
    }

    fn stir(&self) {
        self.calm.store(false, Release);
    }

    /// Writes what waits, as the socket takes it; ends with it, with the reason. Cancel-safe.
    pub(crate) async fn drive(&self) -> CloseReason {
        let mut asked: Option<Waker> = None;
        poll_fn(|cx| {
            // Mostly the task is woken for what is to be read, and is the one that is woken for this, too.
            let is_known = asked.as_ref().is_some_and(|by| by.will_wake(cx.waker()));
            if is_known && self.is_calm() {
                return Poll::Pending;
            }
            if !is_known {
                asked = Some(cx.waker().clone());
            }
            self.poll_drive(cx)
        })
        .await
    }

    fn poll_drive(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut state = self.state.lock();
        loop {
            state.skip_empty();
            if state.ended {
                return Poll::Ready(state.closing.clone().unwrap_or(CloseReason::ConnectionLost));
            }
            if state.chunks.is_empty() {
                if state.closing.is_some() {
                    state.ended = true;
                    if let Some(wire) = state.wire.take() {
                        state.panicked |= guarded(|| wire.shutdown()).is_err();
                    }
                    continue;
                }
                state.write_later(cx);
                self.calm.store(true, Release);
                return Poll::Pending;
            }
            let State { chunks, wire, .. } = &mut *state;
            let Some(wire) = wire else {
                // Without a wire, `next` takes what waits.
                state.write_later(cx);
                return Poll::Pending;
            };
            match write_chunks(&mut **wire, chunks) {
                Ok(0) => match guarded(|| wire.poll_writable(cx)) {
                    Ok(Poll::Ready(Ok(()))) => {}
                    Ok(Poll::Ready(Err(error))) | Err(error) => state.fail(&error),
                    Ok(Poll::Pending) => {
                        state.write_later(cx);
                        return Poll::Pending;
                    }
                },
                Ok(written) => {
                    state.advance(written);
                    self.ease_door(&mut state);
                }
                Err(error) => state.fail(&error),
            }
        }
    }

    /// Hands out what waits, a run at a time; ready with `None` once it has ended.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Frames>> {
        let mut state = self.state.lock();
        // Asking for more says that what was handed out is written.
        let handed = std::mem::take(&mut state.handed);
        state.left += handed as u64;
        self.ease_door(&mut state);
        if state.ended {
            return Poll::Ready(None);
        }
        state.skip_empty();
        let Some(chunk) = state.chunks.pop_front() else {
            if state.closing.is_some() {
                state.ended = true;
                return Poll::Ready(None);
            }
            state.write_later(cx);
            return Poll::Pending;
        };
        state.handed = chunk.len();
        state.bytes -= chunk.len();
        state.messages -= (chunk.last - chunk.first) as usize;
        Poll::Ready(Some(Frames(chunk)))
    }

    /// Takes note that the writer has written so much of what `next` handed out.
    pub(crate) fn written(&self, bytes: usize) {
        let mut state = self.state.lock();
        let bytes = bytes.min(state.handed);
        state.handed -= bytes;
        state.left += bytes as u64;
    }

    /// Ready once half of it is free (or it has ended): what its client's door waits for.
    pub(crate) fn poll_eased(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if !self.presses(&state) {
            state.door = None;
            return Poll::Ready(());
        }
        state.door = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready once it has ended with something handed out that is not written: the writer should give up.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.ended {
            return Poll::Ready(());
        }
        state.gone = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_full(&self, state: &State) -> bool {
        state.bytes >= self.max_bytes || state.messages >= self.max_messages
    }

    /// Whether more than half of it is taken.
    pub(crate) fn is_pressed(&self) -> bool {
        !self.is_calm() && self.presses(&self.state.lock())
    }

    fn presses(&self, state: &State) -> bool {
        state.closing.is_none()
            && !state.ended
            && (state.bytes > self.max_bytes / 2 || state.messages > self.max_messages / 2)
    }

    fn ease_door(&self, state: &mut State) {
        if !self.presses(state)
            && let Some(door) = state.door.take()
        {
            door.wake();
        }
    }

    /// How much has left it so far, and whether anything waits: a stall is the same figure twice with something waiting.
    pub(crate) fn progress(&self) -> (u64, bool) {
        let state = self.state.lock();
        (state.left, state.bytes > 0 || state.handed > 0)
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
