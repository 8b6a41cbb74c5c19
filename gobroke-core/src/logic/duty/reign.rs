//! [`Reign`]: the time for which an instance runs a module that runs once.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::logic::module::Module;

/// The time for which an instance runs a module that runs once.
#[derive(Clone, Debug)]
pub(crate) struct Reign {
    token: u64,
    /// By this instance's own clock; moved on by each renewal. `None` where there is no cluster.
    until: Arc<Mutex<Option<Instant>>>,
    lost: CancellationToken,
    /// What the module sees.
    cancelled: CancellationToken,
}

impl Reign {
    pub(super) fn new(token: u64, until: Option<Instant>, module: &Module) -> Self {
        Self {
            token,
            until: Arc::new(Mutex::new(until)),
            lost: CancellationToken::new(),
            cancelled: module.ctx.cancellation().child_token(),
        }
    }

    pub(super) fn extend(&self, until: Instant) {
        *self.until.lock() = Some(until);
    }

    pub(super) fn lose(&self) {
        self.lost.cancel();
        self.cancelled.cancel();
    }

    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// What a module sees of its end.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        &self.cancelled
    }

    pub(crate) fn is_over(&self) -> bool {
        self.lost.is_cancelled()
            || self
                .until
                .lock()
                .is_some_and(|until| Instant::now() >= until)
    }

    /// Waits until its time is over, unless it is moved on meanwhile.
    pub(super) async fn over(&self) {
        loop {
            let until = *self.until.lock();
            match until {
                Some(until) if Instant::now() >= until => return,
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Goes on with this as long as it lasts: it is dropped at its next wait when the reign is over.
    pub(super) async fn hold<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut lost = pin!(self.lost.cancelled());
        poll_fn(|cx| {
            if self.is_over() || lost.as_mut().poll(cx).is_ready() {
                self.lose();
                return Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }
}
