//! What comes: answers of a turn, and what passes deliver.

use std::sync::Arc;

use super::{
    Delivered, Outbox, Over, answers::Answers, chunk::Chunk, state::State, writing::write,
};
use crate::{
    Message,
    client::ClientShared,
    delivery::{
        Overflow,
        run::{Mark, Run},
    },
    sync::MutexGuard,
};

impl Outbox {
    /// Keeps an answer to the client whose turn is under way: it goes before all that is delivered from now on, and at
    /// the latest with the [`flush`](Self::flush) that ends the turn. Says whether it took it; not where something waits.
    #[inline]
    pub(crate) fn answer(&self, place: &mut Option<Message>) -> bool {
        let mut state = self.state.lock();
        (self.is_calm() || self.is_free(&state)) && Answers::push(&mut state.answers, place)
    }

    /// Delivers the answers that were kept.
    pub(crate) fn flush(&self, client: &ClientShared) -> Delivered {
        let mut state = self.state.lock();
        match state.answers.take() {
            Some(answers) => self.take_answers(state, answers, client, &[], &[]),
            None => Delivered::default(),
        }
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
        match state.answers.take() {
            Some(answers) => self.take_answers(state, answers, client, bytes, marks),
            None => self.take(&mut state, bytes, marks, keep),
        }
    }

    fn take_answers(
        &self,
        mut state: MutexGuard<'_, State>,
        mut answers: Box<Answers>,
        client: &ClientShared,
        bytes: &[u8],
        marks: &[Mark],
    ) -> Delivered {
        let delivered = answers.encode(&client.encoder).map(|draft| {
            if !marks.is_empty() {
                draft.append(bytes, marks);
            }
            self.take(&mut state, &draft.bytes, &draft.marks, || {
                Run::new(draft.copy(), &client.lane.context.memory)
            })
        });
        // What hangs on a message is dropped without the lock.
        drop(state);
        let failed = || Delivered {
            dropped: (answers.len() + marks.len()) as u32,
            over: Some(Over::Failed),
            ..Delivered::default()
        };
        let delivered = delivered.unwrap_or_else(failed);
        answers.spare();
        delivered
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
        // Mostly it is, and the rest of the state is not touched.
        let is_calm = self.is_calm();
        if !is_calm {
            if state.closing.is_some() || state.ended {
                return Delivered {
                    dropped: count,
                    ..Delivered::default()
                };
            }
            if self.is_full(state) {
                return self.overflow(state, marks, keep);
            }
        }
        let mut at = 0;
        if (is_calm || state.chunks.is_empty())
            && let Some(wire) = &mut state.wire
        {
            match write(wire, bytes) {
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
}
