//! Dispatched logic: handlers that run where a message comes in, and the queue of what logic sends them.

use std::{collections::VecDeque, pin::Pin, sync::Arc, task::Poll};

use tokio::task::JoinHandle;

use super::{
    Handler, PlainHandler,
    greeting::{Greeted, Telling, over},
    module::{Module, Running, Slice, TURN},
    queue::{Item, NoRoom, Queue},
    run::{Caught, call, first_poll},
};
use crate::{
    Message,
    delivery::{
        room::Room,
        turn::{self, InTurns, Left, Turn, WithHops},
    },
};

impl Module {
    /// Takes a place among the handlers under way: what a dispatched handler that may wait begins with.
    pub(crate) fn take_off(&self) -> Result<Option<Flying>, NoRoom> {
        let Running::Dispatched {
            handler: Handler::Waiting(_),
            flight,
            ..
        } = &self.running
        else {
            return Ok(None);
        };
        if !flight.reserve(0) {
            turn::pressed(flight, 1, true);
            return Err(NoRoom::Full);
        }
        if flight.is_pressed() {
            turn::pressed(flight, 0, true);
        }
        Ok(Some(Flying(flight.clone())))
    }

    /// Runs a dispatched handler in place, with the message that it takes from there, or leaves that where it is: there
    /// is no place for one more that waits. Within a turn.
    #[inline]
    pub(crate) fn run_at_door(self: &Arc<Self>, place: &mut Option<Message>) -> Result<(), NoRoom> {
        if let Running::Dispatched {
            handler: Handler::Plain(handle),
            ..
        } = &self.running
        {
            self.run(handle, place);
            return Ok(());
        }
        let flying = self.take_off()?;
        self.dispatch(place, flying);
        Ok(())
    }

    /// The same with what `take_off` gave; one that waits goes on in a task of its own.
    pub(crate) fn dispatch(self: &Arc<Self>, place: &mut Option<Message>, flying: Option<Flying>) {
        let Running::Dispatched { handler, .. } = &self.running else {
            return;
        };
        match handler {
            Handler::Plain(handle) => self.run(handle, place),
            Handler::Waiting(handler) => {
                let Some(message) = place.take() else { return };
                let hops = message.hops();
                let (handler, ctx) = (handler.clone(), self.ctx.clone());
                let future = async move { handler.handle(message, &ctx).await };
                self.run_in_place(hops, Box::pin(future), (flying, None));
            }
        }
    }

    /// Runs a handler that never waits.
    #[inline]
    fn run(&self, handle: &PlainHandler, place: &mut Option<Message>) {
        let hops = place.as_ref().map_or(0, Message::hops);
        let run = || match place.take() {
            Some(message) => handle(message, &self.ctx),
            None => Ok(()),
        };
        let outcome = turn::with_hops(hops, || call(run));
        self.report(outcome);
    }

    /// Runs a handler that may wait; `kept` is dropped when it is over. The task in which it goes on, if it waits.
    fn run_in_place<F>(
        self: &Arc<Self>,
        hops: u8,
        future: Pin<Box<F>>,
        kept: (Option<Flying>, Option<Greeted>),
    ) -> Option<JoinHandle<()>>
    where
        F: Future<Output = crate::LogicResult> + Send + 'static,
    {
        let mut future = WithHops {
            hops,
            future: Caught(future),
        };
        match first_poll(&mut future) {
            Poll::Ready(outcome) => {
                self.report(outcome);
                None
            }
            Poll::Pending => {
                let module = self.clone();
                Some(self.spawn(async move {
                    let (outcome, _) = InTurns(Box::pin(future)).await;
                    module.report(outcome);
                    drop(kept);
                }))
            }
        }
    }

    /// A dispatched module's queue: what logic sends it, and who comes and goes.
    pub(super) async fn serve_queue(self: Arc<Self>) {
        let Running::Dispatched {
            handler,
            flight,
            queue,
        } = &self.running
        else {
            return;
        };
        let mut batch = VecDeque::new();
        let mut left = Left::any();
        let mut telling = Telling::default();
        let mut slice = Slice::begin();
        while queue.take(&mut batch, TURN, &mut slice).await.is_some() {
            while !batch.is_empty() {
                left.eased(&self.ctx.router().lanes).await;
                slice.give_way_if_over().await;
                left = self.serve_some(handler, queue, &mut batch, &mut telling);
                flight.eased().await;
            }
            tokio::task::consume_budget().await;
        }
    }

    fn serve_some(
        self: &Arc<Self>,
        handler: &Handler,
        queue: &Queue,
        batch: &mut VecDeque<Item>,
        telling: &mut Telling,
    ) -> Left {
        let turn = Turn::begin();
        while let Some(item) = batch.pop_front() {
            let Ok(flying) = self.take_off() else {
                batch.push_front(item);
                break;
            };
            let weight = item.weight();
            let ctx = self.ctx.clone();
            match (item, handler) {
                (Item::Message(message), _) => self.dispatch(&mut Some(message), flying),
                (Item::Joined(client, greeted), Handler::Waiting(handler)) => {
                    let (id, before) = (client.id(), telling.before(&client));
                    let handler = handler.clone();
                    let future = async move {
                        over(before).await;
                        handler.joined(&client, &ctx).await
                    };
                    let task = self.run_in_place(0, Box::pin(future), (flying, Some(greeted)));
                    telling.goes_on(id, task);
                }
                (Item::Left(client, reason), Handler::Waiting(handler)) => {
                    let (id, before) = (client.id(), telling.before(&client));
                    let handler = handler.clone();
                    let future = async move {
                        over(before).await;
                        handler.left(&client, &reason, &ctx).await
                    };
                    let task = self.run_in_place(0, Box::pin(future), (flying, None));
                    telling.goes_on(id, task);
                }
                (Item::Joined(..) | Item::Left(..), Handler::Plain(_)) => {}
            }
            queue.room.release(1, weight);
            if turn::is_held_back() {
                break;
            }
        }
        turn.end()
    }
}

/// A handler under way, counted.
pub(crate) struct Flying(Arc<Room>);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.release(1, 0);
    }
}
