//! [`Run`]: many messages as one slice of bytes, with their offsets.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use super::Overflow;

/// How many bytes of messages a pass joins into one run at the most. A larger message goes alone.
pub(crate) const MAX_RUN: usize = 256 << 10;

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
    pub(crate) bytes: Vec<u8>,
    pub(crate) marks: Vec<Mark>,
    /// Rises from run to run: the oldest that is held has the smallest.
    pub(crate) number: u64,
    memory: Arc<Memory>,
}

impl Run {
    pub(crate) fn new(draft: Draft, memory: &Arc<Memory>) -> Arc<Self> {
        let Draft { bytes, marks } = draft;
        memory.held.fetch_add(bytes.capacity(), Relaxed);
        let number = memory.next.fetch_add(1, Relaxed);
        Arc::new(Self {
            bytes,
            marks,
            number,
            memory: memory.clone(),
        })
    }

    /// Where a message begins.
    pub(crate) fn start(&self, message: u32) -> u32 {
        match message {
            0 => 0,
            _ => self.marks[message as usize - 1].end,
        }
    }

    /// Where a message ends.
    pub(crate) fn end(&self, message: u32) -> u32 {
        self.marks[message as usize].end
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes.capacity(), Relaxed);
    }
}

/// What all runs of an instance hold together: whole allocations, a shared run once.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    held: AtomicUsize,
    next: AtomicU64,
}

impl Memory {
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
