//! [`Outbox`]: what one client's socket did not take, bounded, in order.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    Overflow,
    run::{Draft, Mark, Memory, Run},
    wire::Wire,
};
use crate::{CloseReason, sync::Mutex};

/// Waiting chunks below this size are gathered into one write.
const GATHER: usize = 16 << 10;
/// How much one write gathers at the most.
const GATHERED: usize = 64 << 10;

/// What is left of a message begun is copied out of its run when it is no more than this.
const DETACHED: usize = 4 << 10;

/// What waits for one client's socket.
///
/// A pass writes straight through it while it is empty; what the socket does not take stays here as a slice of the
/// shared run, and the client's own task waits for the socket. Nothing overtakes what waits. What is dropped is whole
/// messages, never one begun, never a control frame.
pub(crate) struct Outbox {
    state: Mutex<State>,
    max_bytes: usize,
    max_messages: usize,
    overflow: Overflow,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    messages: usize,
    wire: Option<Box<dyn Wire>>,
    /// The task that writes (`drive`) or takes (`next`).
    writer: Option<Waker>,
    /// The door of the same client, waiting until half of the outbox is free.
    door: Option<Waker>,
    /// Who waits for its end.
    gone: Option<Waker>,
    /// Why it ends: the close frame is the last that waits, and nothing follows it.
    closing: Option<CloseReason>,
    /// It has ended: everything is written, or the socket is lost.
    ended: bool,
    /// Bytes that `next` handed out and that are not known to be written.
    handed: usize,
    /// How many bytes left it, ever: what a write stall is seen by.
    left: u64,
    /// Messages that waited when it ended, and that nobody has counted yet.
    lost: usize,
    /// The wire's code panicked.
    panicked: bool,
}

/// Messages `first..last` of a run, of which the bytes before `at` are written.
struct Chunk {
    run: Arc<Run>,
    first: u32,
    last: u32,
    at: u32,
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
            max_bytes,
            max_messages,
            overflow,
        }
    }

    /// Takes messages for the client: writes what the socket takes now, keeps the rest.
    ///
    /// `keep` gives the run that holds exactly these bytes and marks; it is asked only if something has to be kept.
    /// The bound is judged by what was held before: a run larger than the bound is no slow reader.
    pub(crate) fn deliver(
        &self,
        bytes: &[u8],
        marks: &[Mark],
        keep: impl FnOnce() -> Arc<Run>,
    ) -> Delivered {
        let mut state = self.state.lock();
        let count = marks.len() as u32;
        if state.closing.is_some() || state.ended {
            return Delivered {
                dropped: count,
                ..Delivered::default()
            };
        }
        if state.bytes >= self.max_bytes || state.messages >= self.max_messages {
            return self.overflow(&mut state, marks, keep);
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
        for (message, mark) in (0u32..).zip(marks) {
            if !mark.control && policy(mark) == Overflow::DropNewest {
                delivered.dropped += 1;
                continue;
            }
            if !mark.control {
                while (state.bytes >= self.max_bytes || state.messages >= self.max_messages)
                    && state.drop_oldest()
                {
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
        state.close(reason, frame, memory);
    }

    /// Closes it ahead of what waits: a message begun is finished, the others are dropped (and counted in the answer).
    pub(crate) fn cut(&self, reason: CloseReason, frame: Draft, memory: &Arc<Memory>) -> usize {
        let mut state = self.state.lock();
        if state.closing.is_some() || state.ended {
            return 0;
        }
        let dropped = state.keep_begun(memory);
        state.close(reason, frame, memory);
        dropped
    }

    /// Ends it at once: the socket is lost, or the session is gone. Says how many messages waited when it ended, once.
    pub(crate) fn end(&self, reason: CloseReason) -> usize {
        let mut state = self.state.lock();
        state.end(reason);
        std::mem::take(&mut state.lost)
    }

    /// Whether its wire panicked.
    pub(crate) fn has_panicked(&self) -> bool {
        self.state.lock().panicked
    }

    /// Writes what waits, as the socket takes it; ready once it has ended, with the reason.
    pub(crate) fn poll_drive(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
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
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let State { chunks, wire, .. } = &mut *state;
            let Some(wire) = wire else {
                // Without a wire, `next` takes what waits.
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            };
            match write_chunks(&mut **wire, chunks) {
                Ok(0) => match guarded(|| wire.poll_writable(cx)) {
                    Ok(Poll::Ready(Ok(()))) => {}
                    Ok(Poll::Ready(Err(error))) | Err(error) => state.fail(&error),
                    Ok(Poll::Pending) => {
                        state.writer = Some(cx.waker().clone());
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
            state.writer = Some(cx.waker().clone());
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
        if !self.is_pressed(&state) {
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

    fn is_pressed(&self, state: &State) -> bool {
        state.closing.is_none()
            && !state.ended
            && (state.bytes > self.max_bytes / 2 || state.messages > self.max_messages / 2)
    }

    fn ease_door(&self, state: &mut State) {
        if !self.is_pressed(state)
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

impl State {
    fn push(&mut self, chunk: Chunk) {
        if self.chunks.is_empty()
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
        self.bytes += chunk.len();
        self.messages += (chunk.last - chunk.first) as usize;
        self.chunks.push_back(chunk);
    }

    /// Takes messages for which the encoder wrote nothing off the front: no write would.
    fn skip_empty(&mut self) {
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.len() == 0) {
            self.messages -= (chunk.last - chunk.first) as usize;
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.left += written as u64;
        self.bytes -= written;
        while written > 0 {
            // What was written was waiting, so there is a front while bytes are left to account for.
            let Some(chunk) = self.chunks.front_mut() else {
                return;
            };
            let step = written.min(chunk.len());
            chunk.at += step as u32;
            written -= step;
            while chunk.first < chunk.last && chunk.run.end(chunk.first) <= chunk.at {
                chunk.first += 1;
                self.messages -= 1;
            }
            if chunk.first == chunk.last {
                self.chunks.pop_front();
            }
        }
        if self.chunks.is_empty() {
            // An outbox that is empty again holds no buffer.
            self.chunks = VecDeque::new();
        }
    }

    /// Drops the oldest message that may be dropped, and says whether there was one.
    fn drop_oldest(&mut self) -> bool {
        for index in 0..self.chunks.len() {
            let chunk = &mut self.chunks[index];
            let Some(message) = (chunk.first..chunk.last).find(|&message| {
                let begun = chunk.at > chunk.run.start(message);
                !begun && !chunk.run.marks()[message as usize].control
            }) else {
                continue;
            };
            let (start, end) = (chunk.run.start(message), chunk.run.end(message));
            let rest = Chunk {
                run: chunk.run.clone(),
                first: message + 1,
                last: chunk.last,
                at: end,
            };
            chunk.last = message;
            let front_is_empty = chunk.first == chunk.last;
            self.bytes -= (end - start) as usize;
            self.messages -= 1;
            match (front_is_empty, rest.first == rest.last) {
                (true, true) => drop(self.chunks.remove(index)),
                (true, false) => self.chunks[index] = rest,
                (false, true) => {}
                (false, false) => self.chunks.insert(index + 1, rest),
            }
            return true;
        }
        false
    }

    /// Drops everything but a message begun; says how many messages that was.
    fn keep_begun(&mut self, memory: &Arc<Memory>) -> usize {
        let held = self.messages;
        let begun = self.chunks.pop_front().and_then(|mut chunk| {
            chunk.last = chunk.first + 1;
            (chunk.at > chunk.run.start(chunk.first)).then(|| chunk.detach(memory))
        });
        self.chunks.clear();
        self.bytes = begun.as_ref().map_or(0, Chunk::len);
        self.messages = begun.is_some().into();
        self.chunks.extend(begun);
        held - self.messages
    }

    fn close(&mut self, reason: CloseReason, frame: Draft, memory: &Arc<Memory>) {
        if self.closing.is_some() || self.ended {
            return;
        }
        self.closing = Some(reason);
        if !frame.is_empty() {
            let last = frame.marks.len() as u32;
            self.push(Chunk {
                run: Run::new(frame, memory),
                first: 0,
                last,
                at: 0,
            });
        }
        self.wake();
    }

    /// Ends it, since its socket failed or its wire panicked.
    fn fail(&mut self, error: &io::Error) {
        let panicked = error.get_ref().is_some_and(|error| error.is::<Panicked>());
        self.panicked |= panicked;
        self.end(match panicked {
            true => CloseReason::Internal,
            false => CloseReason::ConnectionLost,
        });
    }

    fn end(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
        self.ended = true;
        self.chunks = VecDeque::new();
        self.bytes = 0;
        self.lost += std::mem::take(&mut self.messages);
        let wire = self.wire.take();
        self.panicked |= guarded(|| drop(wire)).is_err();
        self.wake();
    }

    fn wake(&mut self) {
        for waker in [self.writer.take(), self.door.take(), self.gone.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

impl Chunk {
    /// The same bytes in a run of their own, where they are few: what is left of one message keeps no large run.
    fn detach(self, memory: &Arc<Memory>) -> Self {
        if self.len() > DETACHED {
            return self;
        }
        let mut draft = Draft::default();
        draft.push(self.bytes(), self.run.marks()[self.first as usize]);
        Self {
            run: Run::new(draft, memory),
            first: 0,
            last: 1,
            at: 0,
        }
    }

    fn len(&self) -> usize {
        match self.last {
            0 => 0,
            last => (self.run.end(last - 1) - self.at) as usize,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.run.bytes()[self.at as usize..][..self.len()]
    }
}

/// Writes once, through a wire whose code may panic: that counts as a failed socket.
fn write(wire: &mut dyn Wire, bytes: &[u8]) -> io::Result<usize> {
    match guarded(|| wire.try_write(bytes)).flatten() {
        Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
        Ok(written) => Ok(written.min(bytes.len())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// The wire's code panicked.
#[derive(Debug, thiserror::Error)]
#[error("the wire panicked")]
struct Panicked;

/// Calls a wire, in whose code a panic counts as a failed socket.
fn guarded<T>(call: impl FnOnce() -> T) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| io::Error::other(Panicked))
}

/// Writes the front of what waits; several small chunks in one call.
fn write_chunks(wire: &mut dyn Wire, chunks: &VecDeque<Chunk>) -> io::Result<usize> {
    let Some(front) = chunks.front() else {
        return Ok(0);
    };
    if front.len() >= GATHER || chunks.len() == 1 {
        return write(wire, front.bytes());
    }
    let mut gathered = Vec::with_capacity(GATHERED);
    for chunk in chunks {
        let room = GATHERED - gathered.len();
        let bytes = chunk.bytes();
        gathered.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() >= room {
            break;
        }
    }
    write(wire, &gathered)
}

/// Whole frames for a client, ready to be written: what [`Outgoing::next`](crate::Outgoing::next) gives.
pub struct Frames(Chunk);

impl Frames {
    /// All of them, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Frame by frame: for transports whose writes are whole messages.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let Chunk {
            run, first, last, ..
        } = &self.0;
        (*first..*last)
            .map(|message| &run.bytes()[run.start(message) as usize..run.end(message) as usize])
            .filter(|frame| !frame.is_empty())
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames")
            .field("frames", &(self.0.last - self.0.first))
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
