//! Worker logic: a queue and a task each, and made anew after a panic.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    Doer, LogicContext, MAX_BACK_OFF, Make,
    module::{Module, Running, Slice, TURN},
    queue::{Handled, Item, Queue},
    run::{Caught, call},
};
use crate::{
    delivery::turn::{self, InTurns, Left, Turn, WithHops},
    error::FailureKind,
};

/// How many messages a worker handles between two looks at the clock.
const MESSAGES_PER_LOOK: usize = 8;

/// Makes a worker, and makes it anew.
pub(super) type Factory = Arc<dyn Fn() -> Doer + Send + Sync>;

impl Module {
    pub(super) fn start_workers(self: &Arc<Self>, make: Make) {
        let Running::Worker { queues } = &self.running else {
            return;
        };
        match make {
            Make::Once(doer) => {
                let (module, queue) = (self.clone(), queues[0].clone());
                self.spawn(async move {
                    let (mut doer, mut batch) = (doer, VecDeque::new());
                    let ctx = &module.ctx;
                    module.work(&queue, &mut doer, None, ctx, &mut batch).await;
                });
            }
            Make::Again(make) => {
                let make: Factory = make.into();
                for queue in queues {
                    self.spawn(self.clone().work_made(queue.clone(), make.clone()));
                }
            }
        }
    }

    /// Makes the worker in its own task: a factory may panic, or reach into the router.
    async fn work_made(self: Arc<Self>, queue: Arc<Queue>, make: Factory) {
        let mut doer = self.make_anew(&make, &mut 0).await;
        let mut batch = VecDeque::new();
        self.work(&queue, &mut doer, Some(&make), &self.ctx, &mut batch)
            .await;
    }

    /// Works until the queue is closed and empty. What it has taken and not begun is in the batch.
    pub(super) async fn work(
        &self,
        queue: &Queue,
        doer: &mut Doer,
        make: Option<&Factory>,
        ctx: &LogicContext,
        batch: &mut VecDeque<Item>,
    ) {
        let mut left = Left::any();
        let mut panics_in_a_row = 0;
        let mut slice = Slice::begin();
        while queue.take(batch, TURN, &mut slice).await.is_some() {
            while !batch.is_empty() {
                left.eased(&self.ctx.router().lanes).await;
                slice.give_way_if_over().await;
                let panicked;
                (panicked, left) = match doer {
                    Doer::Plain(_) => self.work_some_now(queue, doer, ctx, batch, &slice),
                    Doer::Waiting(_) => {
                        InTurns(Box::pin(self.work_some(queue, doer, ctx, batch))).await
                    }
                };
                match make {
                    Some(make) if panicked => {
                        *doer = self.make_anew(make, &mut panics_in_a_row).await;
                    }
                    _ => panics_in_a_row = 0,
                }
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Makes a worker anew, after a back-off; a factory that panics is asked again.
    pub(super) async fn make_anew(&self, make: &Factory, panics_in_a_row: &mut u32) -> Doer {
        loop {
            if *panics_in_a_row > 0 {
                tokio::time::sleep(back_off(*panics_in_a_row)).await;
            }
            *panics_in_a_row += 1;
            let mut made = None;
            let outcome = call(|| {
                made = Some(make());
                Ok(())
            });
            self.report(outcome);
            if let Some(doer) = made {
                return doer;
            }
        }
    }

    /// A turn of a plain worker; says whether it panicked.
    fn work_some_now(
        &self,
        queue: &Queue,
        doer: &mut Doer,
        ctx: &LogicContext,
        batch: &mut VecDeque<Item>,
        slice: &Slice,
    ) -> (bool, Left) {
        let turn = Turn::begin();
        let mut panicked = false;
        let (mut handled, mut weight) = (0, 0);
        while let Doer::Plain(handle) = &mut *doer
            && !ctx.is_over()
            && let Some(item) = batch.pop_front()
        {
            handled += 1;
            weight += item.weight();
            if let Item::Message(message) = item {
                let hops = message.hops();
                let outcome = turn::with_hops(hops, || call(|| handle(message, ctx)));
                panicked = matches!(outcome, Err(FailureKind::Panic(_)));
                self.report(outcome);
            }
            let late = handled % MESSAGES_PER_LOOK == 0 && slice.is_over();
            if panicked || late || turn::is_held_back() {
                break;
            }
        }
        let left = turn.end();
        // Given back at once for all, and when they are handled: doors and drain look at it.
        queue.room.release(handled, weight);
        (panicked, left)
    }

    /// The same for one that may wait.
    async fn work_some(
        &self,
        queue: &Queue,
        doer: &mut Doer,
        ctx: &LogicContext,
        batch: &mut VecDeque<Item>,
    ) -> bool {
        while let Doer::Waiting(worker) = &mut *doer
            && !ctx.is_over()
            && let Some(item) = batch.pop_front()
        {
            let (weight, hops) = (item.weight(), item.hops());
            let _handled = Handled { queue, weight };
            let future = match item {
                Item::Message(message) => worker.handle(message, ctx),
                Item::Joined(ref client, _) => worker.joined(client, ctx),
                Item::Left(ref client, ref reason) => worker.left(client, reason, ctx),
            };
            let outcome = WithHops {
                hops,
                future: Caught(future),
            }
            .await;
            let panicked = matches!(outcome, Err(FailureKind::Panic(_)));
            self.report(outcome);
            if panicked {
                return true;
            }
            if turn::is_held_back() {
                return false;
            }
        }
        false
    }
}

fn back_off(panics_in_a_row: u32) -> Duration {
    let doubled = Duration::from_millis(100).saturating_mul(1 << (panics_in_a_row - 1).min(10));
    doubled.min(MAX_BACK_OFF)
}
