//! [`Chunk`]: messages of a run that wait, and [`Frames`], as a writer gets them.

use std::sync::Arc;

use crate::delivery::run::{Draft, Memory, Run};

/// What is left of a message begun is copied out of its run when it is no more than this.
const DETACHED: usize = 4 << 10;

/// Messages `first..last` of a run, of which the bytes before `at` are written.
pub(super) struct Chunk {
    pub(super) run: Arc<Run>,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) at: u32,
}

impl Chunk {
    /// The same bytes in a run of their own, where they are few: what is left of one message keeps no large run.
    pub(super) fn detach(self, memory: &Arc<Memory>) -> Self {
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

    pub(super) fn len(&self) -> usize {
        match self.last {
            0 => 0,
            last => (self.run.end(last - 1) - self.at) as usize,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.run.bytes()[self.at as usize..][..self.len()]
    }
}

/// Whole frames for a client, ready to be written: what [`Outgoing::next`](crate::Outgoing::next) gives.
pub struct Frames(pub(super) Chunk);

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
