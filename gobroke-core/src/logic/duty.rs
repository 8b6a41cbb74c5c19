//! Where a module runs: on every instance, on a named one, or on the one that holds its lease. What others do for it.

mod governor;
mod reign;

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

use self::governor::Governor;
pub(crate) use self::reign::Reign;
use super::{
    Doer, Make, Passive,
    module::{Module, Slice, TURN},
    queue::{Item, Queue},
    run::Caught,
    worker::Factory,
};
use crate::{
    Name,
    broke::router::{MAX_HOPS, Router},
    cluster::{InstanceId, link::Link},
    delivery::turn::InTurns,
};

/// How often it is looked at least where a named instance is, and whether there is a cluster.
const LOOK: Duration = Duration::from_secs(1);

/// Where a worker or passive module runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// On each instance that has it.
    #[default]
    Here,
    /// On the instance of this name.
    On(Name),
    /// On one of those that have it.
    Once,
}

/// What this instance does for a module that runs elsewhere, or once.
#[derive(Clone, Debug, Default)]
pub(crate) enum Duty {
    /// Nobody runs it, as far as is known: what comes waits.
    #[default]
    Wait,
    /// Carries what comes to that instance.
    Carry(InstanceId),
    /// Runs it.
    Run(Reign),
}

impl Module {
    /// Starts what a worker module needs that runs elsewhere, or once.
    pub(super) fn follow(self: &Arc<Self>, queues: &[Arc<Queue>], make: Make, place: Place) {
        let (sender, duty) = watch::channel(Duty::default());
        match make {
            Make::Once(doer) => {
                let queue = queues[0].clone();
                self.spawn(self.clone().serve(queue, Some(doer), None, duty));
            }
            Make::Again(make) => {
                let make: Factory = make.into();
                for queue in queues {
                    let (queue, make) = (queue.clone(), Some(make.clone()));
                    self.spawn(self.clone().serve(queue, None, make, duty.clone()));
                }
            }
        }
        self.spawn(self.clone().govern(place, sender));
    }

    /// The same for a passive module.
    pub(super) fn follow_passive(self: &Arc<Self>, passive: Box<dyn Passive>, place: Place) {
        let (sender, duty) = watch::channel(Duty::default());
        self.spawn(self.clone().serve_passive(passive, duty));
        self.spawn(self.clone().govern(place, sender));
    }

    /// Runs a worker, carries what comes for it, or lets it wait.
    async fn serve(
        self: Arc<Self>,
        queue: Arc<Queue>,
        mut doer: Option<Doer>,
        make: Option<Factory>,
        mut duty: watch::Receiver<Duty>,
    ) {
        let mut batch = VecDeque::new();
        loop {
            let now = duty.borrow_and_update().clone();
            let changed = async {
                // The one who tells ends after those who are told.
                if duty.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let done = match now {
                Duty::Wait => tokio::select! {
                    () = changed => false,
                    () = queue.done() => true,
                },
                Duty::Carry(to) => tokio::select! {
                    () = changed => false,
                    () = self.carry(&queue, &mut batch, &to) => true,
                },
                Duty::Run(reign) => {
                    let ctx = self.ctx.in_reign(&reign);
                    let work = async {
                        // Its state is that of its last reign, or a new one where there is a factory.
                        let doer = match &make {
                            Some(make) => &mut self.make_anew(make, &mut 0).await,
                            None => doer.as_mut()?,
                        };
                        self.work(&queue, doer, make.as_ref(), &ctx, &mut batch)
                            .await;
                        Some(())
                    };
                    let done = reign.hold(work).await.is_some();
                    if !done {
                        // Whoever tells has to see it, too.
                        changed.await;
                    }
                    done
                }
            };
            queue.give_back(&mut batch);
            if done {
                return;
            }
        }
    }

    /// Runs a passive module whenever this instance is to.
    async fn serve_passive(
        self: Arc<Self>,
        mut passive: Box<dyn Passive>,
        mut duty: watch::Receiver<Duty>,
    ) {
        loop {
            let now = duty.borrow_and_update().clone();
            if let Duty::Run(reign) = now {
                let ctx = self.ctx.in_reign(&reign);
                let run = InTurns(Box::pin(Caught(passive.run(&ctx))));
                if let Some((outcome, _)) = reign.hold(run).await {
                    self.report(outcome);
                    // It is done. Nobody else does it again as long as this instance is there.
                    return self.ctx.cancelled().await;
                }
            }
            tokio::select! {
                changed = duty.changed() => if changed.is_err() { return },
                () = self.ctx.cancelled() => return,
            }
        }
    }

    /// Carries what comes to another instance, until the queue is closed and empty. What was carried to and fro, since
    /// instances did not agree, goes no further at last.
    async fn carry(&self, queue: &Queue, batch: &mut VecDeque<Item>, to: &InstanceId) {
        let router = self.ctx.router();
        let Some(link) = router.link.get() else {
            return std::future::pending().await;
        };
        let mut slice = Slice::begin();
        while queue.take(batch, TURN, &mut slice).await.is_some() {
            while let Some(item) = batch.front() {
                let weight = item.weight();
                if let Item::Message(message) = item {
                    if message.hops() >= MAX_HOPS {
                        router.stats.full.add(1);
                        tracing::warn!(logic = %self.name, "a message was carried to and fro, and is dropped");
                    } else if link.carry(message, &self.name, to).is_err() {
                        link.room().eased().await;
                        continue;
                    }
                }
                batch.pop_front();
                queue.room.release(1, weight);
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Finds out what this instance has to do, and tells those who do it, until they have ended.
    async fn govern(self: Arc<Self>, place: Place, duty: watch::Sender<Duty>) {
        let router = self.ctx.router().clone();
        match place {
            Place::Here => {}
            Place::On(name) => self.find(&router, &name, &duty).await,
            Place::Once if router.clustered => Governor::new(&self, &router, &duty).run().await,
            Place::Once => {
                let token = crate::id::unix_millis() * 1000;
                self.assign(&duty, Duty::Run(Reign::new(token, None, &self)));
                duty.closed().await;
            }
        }
    }

    /// Where an instance of this name is.
    async fn find(&self, router: &Router, name: &Name, duty: &watch::Sender<Duty>) {
        loop {
            let mut moved = pin!(router.moved.notified());
            moved.as_mut().enable();
            let there = router.link.get().map(Link::instances).unwrap_or_default();
            let there = there.into_iter().find(|instance| instance.name == *name);
            self.assign(duty, there.map_or(Duty::Wait, Duty::Carry));
            tokio::select! {
                () = moved => {}
                () = sleep(LOOK) => {}
                () = duty.closed() => return,
            }
        }
    }

    /// Tells of a duty, where it is another one.
    fn assign(&self, duty: &watch::Sender<Duty>, now: Duty) {
        duty.send_if_modified(|known| {
            let same = match (&*known, &now) {
                (Duty::Wait, Duty::Wait) => true,
                (Duty::Carry(known), Duty::Carry(now)) => known == now,
                _ => false,
            };
            if !same {
                let holder = match &now {
                    Duty::Wait => None,
                    Duty::Carry(to) => Some(to.name.clone()),
                    Duty::Run(_) => Some(self.ctx.router().instance.clone()),
                };
                tracing::info!(logic = %self.name, ?holder, "where a logic module runs");
                *self.holder.lock() = holder;
                *known = now;
            }
            !same
        });
    }
}
