//! [`Run`]: many messages as one slice of bytes, with their offsets.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::{Overflow, wire::Encoder};
use crate::Message;

/// How many bytes of messages a pass joins into one run at the most. A larger message goes alone.
pub(crate) const MAX_RUN: usize = if cfg!(gobroke_interleavings) {
    64
} else {
    256 << 10
};

/// Where a message ends in its run, and how it may be treated when its receiver is slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// The offset behind its last byte.
    pub(crate) end: u32,
    /// Control frames are never dropped.
    pub(crate) control: bool,
    pub(crate) overflow: Option<Overflow>,
}

/// Messages under construction: bytes and their marks.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) bytes: Vec<u8>,
    pub(crate) marks: Vec<Mark>,
}

impl Draft {
    /// Appends a message's frame; false where the encoder panicked, and then nothing is left of it.
    pub(crate) fn encode(&mut self, message: &Message, encoder: &Arc<dyn Encoder>) -> bool {
        let length = self.bytes.len();
        let encode = || encoder.message(message, &mut self.bytes);
        if catch_unwind(AssertUnwindSafe(encode)).is_err() {
            self.bytes.truncate(length);
            return false;
        }
        if self.bytes.len() > length {
            self.mark(false, message.overflow());
        }
        true
    }

    /// Appends frames.
    pub(crate) fn append(&mut self, bytes: &[u8], marks: &[Mark]) {
        let before = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        self.marks.extend(marks.iter().map(|mark| Mark {
            end: before + mark.end,
            ..*mark
        }));
    }

    /// The same in memory of its own, as much as it needs.
    pub(crate) fn copy(&self) -> Self {
        Self {
            bytes: self.bytes.to_vec(),
            marks: self.marks.to_vec(),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.marks.clear();
        // What one large message needed is not kept for ever.
        if self.bytes.capacity() > 2 * MAX_RUN {
            self.bytes.shrink_to(MAX_RUN);
        }
    }

    pub(crate) fn mark(&mut self, control: bool, overflow: Option<Overflow>) {
        // Frames are bounded far below 4 GiB, and a run ends at `MAX_RUN` and one frame.
        self.marks.push(Mark {
            end: self.bytes.len() as u32,
            control,
            overflow,
        });
    }

    pub(crate) fn push(&mut self, frame: &[u8], mark: Mark) {
        self.bytes.extend_from_slice(frame);
        self.mark(mark.control, mark.overflow);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Many messages as one slice of bytes, shared by all whose outboxes still hold a part of it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) draft: Draft,
    /// Rises from run to run: the oldest that is held has the smallest.
    pub(crate) number: u64,
    /// What `memory` counts for it.
    counted: usize,
    memory: Arc<Memory>,
}

impl Run {
    pub(crate) fn new(draft: Draft, memory: &Arc<Memory>) -> Arc<Self> {
        let (counted, number) = memory.count(&draft);
        Arc::new(Self {
            draft,
            number,
            counted,
            memory: memory.clone(),
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.draft.bytes
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.draft.marks
    }

    /// Where a message begins.
    pub(crate) fn start(&self, message: u32) -> u32 {
        match message {
            0 => 0,
            _ => self.end(message - 1),
        }
    }

    /// Where a message ends.
    pub(crate) fn end(&self, message: u32) -> u32 {
        self.draft.marks[message as usize].end
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.counted, Relaxed);
    }
}

/// Runs that nobody held any longer when their pass was over, to be used again: a pass allocates nothing then.
#[derive(Debug, Default)]
pub(crate) struct Spares(Vec<Arc<Run>>);

/// A lane keeps so many spare runs of any size; most passes need one.
const SPARES: usize = 4;
/// And so many small ones, for passes to many groups: where a group has ten members, a run that is made anew is dear.
const SMALL_SPARES: usize = 64;
const SMALL: usize = 4 << 10;

impl Spares {
    /// A run with what `write` puts into it; `None` where that fails.
    pub(crate) fn run(
        &mut self,
        memory: &Arc<Memory>,
        write: impl FnOnce(&mut Draft) -> bool,
    ) -> Option<Arc<Run>> {
        let Some(mut spare) = self.0.pop() else {
            let mut draft = Draft::default();
            return write(&mut draft).then(|| Run::new(draft, memory));
        };
        // A spare run has no other holder.
        let run = Arc::get_mut(&mut spare)?;
        if !write(&mut run.draft) {
            return None;
        }
        (run.counted, run.number) = memory.count(&run.draft);
        Some(spare)
    }

    /// Keeps a run, if nobody else holds it.
    pub(crate) fn keep(&mut self, mut run: Arc<Run>) {
        let most = match run.draft.bytes.capacity() <= SMALL {
            true => SMALL_SPARES,
            false => SPARES,
        };
        if self.0.len() < most
            && let Some(spare) = Arc::get_mut(&mut run)
        {
            spare
                .memory
                .held
                .fetch_sub(std::mem::take(&mut spare.counted), Relaxed);
            spare.draft.clear();
            self.0.push(run);
        }
    }
}

/// What all runs of an instance hold together: whole allocations, a shared run once.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    held: AtomicUsize,
    next: AtomicU64,
}

impl Memory {
    /// Counts a draft that becomes a run; gives what it counted, and the run's number.
    fn count(&self, draft: &Draft) -> (usize, u64) {
        let counted = draft.bytes.capacity();
        self.held.fetch_add(counted, Relaxed);
        (counted, self.next.fetch_add(1, Relaxed))
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_counted_once_however_many_hold_it() {
        let memory = Arc::new(Memory::default());
        let mut draft = Draft::default();
        draft.bytes.extend_from_slice(b"abcdef");
        draft.mark(false, None);
        let capacity = draft.bytes.capacity();
        let run = Run::new(draft, &memory);
        let holders = vec![run.clone(); 10];
        assert_eq!(memory.held(), capacity);
        drop((run, holders));
        assert_eq!(memory.held(), 0);
    }
}
