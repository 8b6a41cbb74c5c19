//! What came for a session and waits for its task: [`Inbox`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How much may wait: a datagram more is dropped, as a full socket would drop it.
const MOST_DATAGRAMS: usize = 256;
const MOST_BYTES: usize = 256 * 1024;

/// What came for a session, bounded. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    datagrams: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Inbox {
    /// Keeps a datagram, if there is room; says whether there was.
    pub(super) fn push(&self, datagram: &[u8]) -> bool {
        let mut waiting = self.lock();
        if waiting.datagrams.len() >= MOST_DATAGRAMS || waiting.bytes + datagram.len() > MOST_BYTES
        {
            return false;
        }
        waiting.bytes += datagram.len();
        waiting.datagrams.push(datagram.into());
        let first = waiting.datagrams.len() == 1;
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
        true
    }

    /// All that waits, once there is something. Cancel-safe.
    pub(super) async fn take(&self) -> Vec<Box<[u8]>> {
        loop {
            let taken = {
                let mut waiting = self.lock();
                waiting.bytes = 0;
                std::mem::take(&mut waiting.datagrams)
            };
            if !taken.is_empty() {
                return taken;
            }
            self.arrived.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing within the lock panics halfway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_too_much_is_dropped_and_there_is_room_again_when_it_is_taken() {
        let inbox = Inbox::default();
        let taken = (0..300).filter(|_| inbox.push(b"x")).count();
        assert_eq!(taken, MOST_DATAGRAMS);
        assert_eq!(inbox.take().await.len(), MOST_DATAGRAMS);
        let large = [0; 60_000];
        let taken = (0..300).filter(|_| inbox.push(&large)).count();
        assert_eq!(taken, MOST_BYTES / large.len());
        assert_eq!(inbox.take().await.len(), taken);
    }
}
