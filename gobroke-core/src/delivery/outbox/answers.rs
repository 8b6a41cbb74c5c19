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

/// A list that is kept has room for so many.
const SPARE: usize = 64;

thread_local! {
    /// The last list that was emptied on this thread: an idle client holds none.
    static SPARED: Cell<Option<Box<Answers>>> = const { Cell::new(None) };
}

/// Answers of a turn under way, in order.
#[derive(Default)]
pub(super) struct Answers {
    messages: Vec<Message>,
    bytes: usize,
    /// What they are encoded into.
    draft: Draft,
}

impl Answers {
    /// Takes one out of its place, unless there are as many as a run takes.
    #[inline]
    pub(super) fn push(kept: &mut Option<Box<Self>>, place: &mut Option<Message>) -> bool {
        let answers = kept.get_or_insert_with(|| SPARED.take().unwrap_or_default());
        if answers.messages.len() >= MOST || answers.bytes >= MAX_RUN {
            return false;
        }
        if let Some(message) = place {
            answers.bytes += message.payload().len();
        }
        // From its place to where it stays in one copy.
        answers.messages.extend(place.take());
        true
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Encodes them; none if the encoder panicked.
    pub(super) fn encode(&mut self, encoder: &Arc<dyn Encoder>) -> Option<&mut Draft> {
        let Self {
            messages, draft, ..
        } = self;
        let encoded = messages
            .iter()
            .all(|message| draft.encode(message, encoder));
        encoded.then_some(draft)
    }

    /// Keeps its memory for the next.
    pub(super) fn spare(mut self: Box<Self>) {
        self.messages.clear();
        self.draft.clear();
        self.bytes = 0;
        self.messages.shrink_to(SPARE);
        SPARED.with(|spared| spared.set(Some(self)));
    }
}
