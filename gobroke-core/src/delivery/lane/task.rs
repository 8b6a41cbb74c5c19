//! The lane's task: passes that turns leave to it, and rests.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Claim, Lane, Phase, SLICE, passing::Passing};
use crate::sync::{Instant, sleep_until};

impl Lane {
    /// The lane's task: passes what turns leave to it, and rests where the load calls for it.
    pub(crate) async fn run(self: Arc<Self>, stopped: CancellationToken) {
        loop {
            tokio::select! {
                () = self.task.notified() => {}
                () = stopped.cancelled() => return self.clear(),
            }
            if !self.take_over() {
                continue;
            }
            loop {
                if !self.slice_caught() {
                    self.write_ahead_caught();
                    look_at_sockets().await;
                    continue;
                }
                let rest = self.passing().demand.rest(self.context.coalesce);
                if !rest.is_zero() {
                    self.rest(rest).await;
                }
                if self.release_if_done() {
                    break;
                }
                // Others keep feeding it: its thread's other tasks come first.
                Yield::default().await;
            }
        }
    }

    /// A slice; a panic in it (a defect of ours: codecs and wires are caught) loses that pass, and neither the lane nor
    /// what was taken for later passes.
    fn slice_caught(&self) -> bool {
        let mut now = Instant::now();
        let until = now + SLICE;
        catch_unwind(AssertUnwindSafe(|| self.slice(&mut now, until))).unwrap_or_else(|_| {
            let mut passing = self.passing();
            let Passing {
                members,
                pass,
                taken,
                ..
            } = &mut *passing;
            let (lost, queued, weight) = pass.abandon(members, taken);
            self.room.release(queued, weight);
            self.context.stats.panics.add(1);
            self.context.stats.dropped.add(lost as u64);
            tracing::error!(
                lane = self.context.index,
                lost,
                "a pass panicked; its messages are lost"
            );
            taken.is_empty()
        })
    }

    fn write_ahead_caught(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.write_ahead())).is_err() {
            self.context.stats.panics.add(1);
        }
    }

    /// Gathers: in steps as long as the last pass; the first in which nothing came ends it.
    async fn rest(&self, rest: Duration) {
        let step = self.passing().demand.step();
        let end = Instant::now() + rest;
        let mut queued = {
            let mut queue = self.queue.lock();
            queue.phase = Phase::Resting;
            queue.entries.len()
        };
        let had_some = queued > 0;
        let mut steps = 0;
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            self.sleep_until((now + step).min(end)).await;
            let length = self.queue.lock().entries.len();
            if length <= queued {
                break;
            }
            steps += 1;
            queued = length;
        }
        // A turn may be writing ahead: it gives the phase back under the lock.
        while !self.wake_up() {
            Yield::default().await;
        }
        self.passing().demand.rested(had_some, steps);
    }

    /// Sleeps in a rest, out of which direct messages go ahead.
    async fn sleep_until(&self, end: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(end) => return,
                () = self.direct.notified() => self.go_ahead().await,
            }
        }
    }

    /// Writes ahead in a rest, when no turn does: one that does may have looked already.
    async fn go_ahead(&self) {
        while !self.queue.lock().entries.is_empty() {
            if let Some(phase) = self.claim() {
                let _claim = Claim {
                    lane: self,
                    back: Some(phase),
                };
                return self.write_ahead_caught();
            }
            Yield::default().await;
        }
    }
}

/// Gives way until the thread has looked which sockets are ready. With a task that is always ready the runtime does so
/// after 61 tasks only (its `event_interval`), and with a slice for each of them that is 15 ms.
pub(crate) async fn look_at_sockets() {
    #[cfg(not(gobroke_interleavings))]
    tokio::task::yield_now().await;
    #[cfg(gobroke_interleavings)]
    Yield::default().await;
}

/// Gives way to the other tasks of the thread, behind all that are ready; `yield_now` may come back much later.
#[derive(Default)]
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(all(test, feature = "testing", not(gobroke_interleavings)))]
mod tests {
    use super::*;
    use crate::{Broke, Message, Targets, delivery::pass::Tally, testing::TestEndpoint};

    #[tokio::test(start_paused = true)]
    async fn a_direct_message_of_no_turn_goes_out_of_a_rest() {
        let endpoint = TestEndpoint::new(Targets::default());
        let broke = Broke::builder()
            .lanes(1)
            .endpoint(endpoint.clone())
            .start()
            .await
            .expect("it starts");
        let mut client = endpoint.connect().await.expect("it is admitted");
        let lane = broke.0.lanes[0].clone();
        while !lane.is_idle() {
            tokio::task::yield_now().await;
        }
        let long = Duration::from_secs(10);
        lane.lock().phase = Phase::Passing;
        lane.passing().demand.passed(
            &Tally {
                writing: long,
                ..Tally::default()
            },
            long,
            1.0,
        );
        let begun = Instant::now();
        let gets_it = async {
            // The rest has begun.
            tokio::time::sleep(long / 2).await;
            let sent = broke.send(Message::new("x").to_client(client.id()));
            sent.expect("there is room");
            assert_eq!(client.next_text().await.as_deref(), Some("x"));
            begun.elapsed()
        };
        let ((), took) = tokio::join!(lane.rest(long), gets_it);
        assert_eq!(took, long / 2);
        while !lane.release_if_done() {
            lane.slice_caught();
        }
        broke.stop().await;
    }
}
