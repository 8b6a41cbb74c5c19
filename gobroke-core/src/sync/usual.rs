//! What neither parking_lot nor tokio has.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// Gives way to the other tasks of the thread, behind all that are ready; `yield_now` may come back much later.
pub(crate) fn give_way() -> impl Future<Output = ()> {
    GiveWay(false)
}

struct GiveWay(bool);

impl Future for GiveWay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
