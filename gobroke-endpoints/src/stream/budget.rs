//! Memory for messages that have not arrived whole: [`ReceiveBudget`] for all of them, [`Partial`] for one.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use gobroke_core::CloseReason;

/// How much memory the partly received messages of all connections may take together.
///
/// Memory is taken as bytes arrive, never for what a peer announces. A connection that needs more than is left is
/// closed with [`CloseReason::Busy`] (1013); the others notice nothing.
///
/// Clones share one budget. Endpoints use that of the [process](Self::process) unless they are given another.
#[derive(Clone, Debug)]
pub struct ReceiveBudget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: usize,
    used: AtomicUsize,
}

impl ReceiveBudget {
    /// A budget of its own, in bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Account {
            limit,
            used: AtomicUsize::new(0),
        }))
    }

    /// The budget that all endpoints of the process share: 256 MiB.
    pub fn process() -> Self {
        static PROCESS: LazyLock<ReceiveBudget> = LazyLock::new(|| ReceiveBudget::new(256 << 20));
        PROCESS.clone()
    }

    /// How much is taken now, in bytes.
    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let limit = self.0.limit;
        let taken = |used: usize| used.checked_add(bytes).filter(|used| *used <= limit);
        // The counter guards no other memory, so its order among other reads and writes does not matter.
        self.0.used.try_update(Relaxed, Relaxed, taken).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Relaxed);
    }
}

impl Default for ReceiveBudget {
    fn default() -> Self {
        Self::process()
    }
}

/// A message that has not arrived whole. Empty, it holds no memory.
#[derive(Debug)]
pub(crate) struct Partial {
    bytes: Vec<u8>,
    /// What is taken of the budget for `bytes`.
    charged: usize,
    budget: ReceiveBudget,
}

/// What is allocated at first, where as much is announced: a small message that was cut grows once.
const FIRST: usize = 1024;

impl Partial {
    pub(crate) fn new(budget: ReceiveBudget) -> Self {
        Self {
            bytes: Vec::new(),
            charged: 0,
            budget,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends what arrived. `announced` is how long the whole is going to be, as far as is known: memory doubles
    /// with what arrived, up to that.
    ///
    /// # Errors
    /// The budget is used up.
    pub(crate) fn extend(&mut self, bytes: &[u8], announced: usize) -> Result<(), CloseReason> {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.charged {
            let wanted = needed.max(announced.min(FIRST.max(self.charged * 2)));
            if !self.budget.take(wanted - self.charged) {
                return Err(CloseReason::Busy);
            }
            self.charged = wanted;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Forgets it and gives its memory back.
    #[cfg(any(test, feature = "ws", feature = "tcp"))]
    pub(crate) fn clear(&mut self) {
        self.bytes = Vec::new();
        self.budget.give_back(self.charged);
        self.charged = 0;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.budget.give_back(self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_with_what_arrives_not_with_what_is_announced() {
        let budget = ReceiveBudget::new(1 << 30);
        let mut partial = Partial::new(budget.clone());
        partial.extend(&[1; 100], 1 << 29).expect("room");
        assert_eq!((partial.bytes.capacity(), budget.used()), (1024, 1024));
        partial.extend(&[2; 10_000], 1 << 29).expect("room");
        assert_eq!(budget.used(), 10_100);
        partial.extend(&[3], 1 << 29).expect("room");
        assert_eq!((partial.bytes.capacity(), budget.used()), (20_200, 20_200));
        partial.extend(&[3; 10_200], 20_301).expect("room");
        assert_eq!((partial.len(), budget.used()), (20_301, 20_301));
        partial.clear();
        assert_eq!((partial.bytes.capacity(), budget.used()), (0, 0));
    }

    #[test]
    fn whoever_needs_more_than_is_left_is_told_busy() {
        let budget = ReceiveBudget::new(3000);
        let mut first = Partial::new(budget.clone());
        let mut second = Partial::new(budget.clone());
        first.extend(&[0; 2000], 2000).expect("room");
        assert_eq!(second.extend(&[0; 1001], 1001), Err(CloseReason::Busy));
        second.extend(&[0; 1000], 1000).expect("room");
        drop(first);
        second.extend(&[0; 2000], 3000).expect("room again");
        drop(second);
        assert_eq!(budget.used(), 0);
    }
}
