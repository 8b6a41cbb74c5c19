//! [`State`]: what an outbox holds under its lock.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    task::{Context, Waker},
};

use super::{
    answers::Answers,
    chunk::Chunk,
    writing::{Panicked, guarded},
};
use crate::{
    CloseReason,
    delivery::{
        run::{Draft, Memory, Run},
        wire::Socket,
    },
};

/// What a delivery touches where nothing waits comes first.
#[derive(Default)]
#[repr(C)]
pub(super) struct State {
    /// What a turn under way answers: it goes before all that comes.
    pub(super) answers: Option<Box<Answers>>,
    pub(super) wire: Option<Socket>,
    /// How many bytes left it, ever: what a write stall is seen by.
    pub(super) left: u64,
    pub(super) chunks: VecDeque<Chunk>,
    pub(super) bytes: usize,
    pub(super) messages: usize,
    /// The task that writes (`drive`) or takes (`next`).
    pub(super) writer: Option<Waker>,
    /// The door of the same client, waiting until half of the outbox is free.
    pub(super) door: Option<Waker>,
    /// Who waits for its end.
    pub(super) gone: Option<Waker>,
    /// Why it ends: the close frame is the last that waits, and nothing follows it.
    pub(super) closing: Option<CloseReason>,
    /// Bytes that `next` handed out and that are not known to be written.
    pub(super) handed: usize,
    /// Messages that waited when it ended, and that nobody has counted yet.
    pub(super) lost: u32,
    /// It has ended: everything is written, or the socket is lost.
    pub(super) ended: bool,
    /// The wire's code panicked.
    pub(super) panicked: bool,
}

impl State {
    pub(super) fn push(&mut self, chunk: Chunk) {
        if self.chunks.is_empty()
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
        self.bytes += chunk.len();
        self.messages += (chunk.last - chunk.first) as usize;
        self.chunks.push_back(chunk);
    }

    /// Notes who writes; mostly it is the same task as before.
    pub(super) fn write_later(&mut self, cx: &Context<'_>) {
        match &mut self.writer {
            Some(writer) => writer.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Takes messages for which the encoder wrote nothing off the front: no write would.
    pub(super) fn skip_empty(&mut self) {
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.len() == 0) {
            self.messages -= (chunk.last - chunk.first) as usize;
        }
    }

    pub(super) fn advance(&mut self, mut written: usize) {
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
    pub(super) fn drop_oldest(&mut self) -> bool {
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
    pub(super) fn keep_begun(&mut self, memory: &Arc<Memory>) -> usize {
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

    pub(super) fn close(&mut self, reason: CloseReason, frame: Draft, memory: &Arc<Memory>) {
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
    pub(super) fn fail(&mut self, error: &io::Error) {
        let panicked = error.get_ref().is_some_and(|error| error.is::<Panicked>());
        self.panicked |= panicked;
        self.end(match panicked {
            true => CloseReason::Internal,
            false => CloseReason::ConnectionLost,
        });
    }

    pub(super) fn end(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
        self.ended = true;
        self.chunks = VecDeque::new();
        self.bytes = 0;
        self.lost += std::mem::take(&mut self.messages) as u32;
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
