//! [`Answers`]: what a turn answers the client whose turn it is, until that ends.

use std::{cell::Cell, sync::Arc};

use crate::{
    Message,
    delivery::{
        run::{Draft, MAX_RUN},
        wire::Encoder,
    },
};

/// A turn keeps so many answers; what is more goes through the lane, which has a bound of its own.
const MOST: usize = 1024;

/// Memory for more bytes than this is not kept for the next turn.
const SPARE: usize = 64 << 10;

thread_local! {
    /// The last answers that were written on this thread, emptied: an idle client holds none.
    static SPARED: Cell<Option<Box<Answers>>> = const { Cell::new(None) };
}

/// Answers of a turn under way, in order and as they go out.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) draft: Draft,
    /// How many were not encoded: the encoder panicked, and is not asked again.
    pub(super) failed: u32,
}

impl Answers {
    /// Keeps one more, unless there are as many as a run takes.
    #[inline]
    pub(super) fn push(
        kept: &mut Option<Box<Self>>,
        message: &Message,
        encoder: &Arc<dyn Encoder>,
    ) -> bool {
        let answers = kept.get_or_insert_with(|| SPARED.take().unwrap_or_default());
        if answers.draft.marks.len() >= MOST || answers.draft.bytes.len() >= MAX_RUN {
            return false;
        }
        if answers.failed > 0 || !answers.draft.encode(message, encoder) {
            answers.failed += 1;
        }
        true
    }

    /// Keeps its memory for the next.
    pub(super) fn spare(mut self: Box<Self>) {
        if self.draft.bytes.capacity() <= SPARE {
            self.draft.clear();
            self.failed = 0;
            SPARED.set(Some(self));
        }
    }
}
