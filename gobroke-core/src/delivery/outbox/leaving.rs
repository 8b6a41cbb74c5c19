//! What leaves, as the socket takes it or a writer asks for it; and who waits for that.

use std::task::{Context, Poll, Waker};

use super::{
    Frames, Outbox,
    state::State,
    writing::{guarded, write_chunks},
};
use crate::{CloseReason, sync::atomic::Ordering::Release};

impl Outbox {
    /// Writes what waits, as the socket takes it; ends with it, with the reason. `asked` is who asked last.
    #[inline]
    pub(crate) fn poll_drive(
        &self,
        cx: &mut Context<'_>,
        asked: &mut Option<Waker>,
    ) -> Poll<CloseReason> {
        // Mostly the task is woken for what is to be read, and is the one that is woken for this, too.
        let is_known = asked.as_ref().is_some_and(|by| by.will_wake(cx.waker()));
        if is_known && self.is_calm() {
            return Poll::Pending;
        }
        if !is_known {
            *asked = Some(cx.waker().clone());
        }
        self.write_what_waits(cx)
    }

    fn write_what_waits(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
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
                // One that may hold nothing is always full.
                self.calm.store(!self.is_full(&state), Release);
                return Poll::Pending;
            }
            let State { chunks, wire, .. } = &mut *state;
            let Some(wire) = wire else {
                // Without a wire, `next` takes what waits.
                state.write_later(cx);
                return Poll::Pending;
            };
            match write_chunks(wire, chunks) {
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

    /// Whether more than half of it is taken.
    pub(crate) fn is_pressed(&self) -> bool {
        !self.is_calm() && self.presses(&self.state.lock())
    }

    fn ease_door(&self, state: &mut State) {
        if !self.presses(state)
            && let Some(door) = state.door.take()
        {
            door.wake();
        }
    }
}
