//! How handlers are run: closures as traits, panics caught, first polls in place.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;

use super::{Dispatched, LogicContext, Passive, Worker};
use crate::{LogicResult, Message, error::FailureKind};

/// An async closure in the place of a trait.
pub(crate) struct Closure<F>(pub(crate) F);

#[async_trait]
impl<F, Fut> Dispatched for Closure<F>
where
    F: Fn(Message, LogicContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = LogicResult> + Send + 'static,
{
    async fn handle(&self, message: Message, ctx: &LogicContext) -> LogicResult {
        (self.0)(message, ctx.clone()).await
    }
}

#[async_trait]
impl<F, Fut> Worker for Closure<F>
where
    F: FnMut(Message, LogicContext) -> Fut + Send + 'static,
    Fut: Future<Output = LogicResult> + Send + 'static,
{
    async fn handle(&mut self, message: Message, ctx: &LogicContext) -> LogicResult {
        let future = (self.0)(message, ctx.clone());
        future.await
    }
}

#[async_trait]
impl<F, Fut> Passive for Closure<F>
where
    F: FnMut(LogicContext) -> Fut + Send + 'static,
    Fut: Future<Output = LogicResult> + Send + 'static,
{
    async fn run(&mut self, ctx: &LogicContext) -> LogicResult {
        let future = (self.0)(ctx.clone());
        future.await
    }
}

/// What became of a call into logic.
pub(crate) type Outcome = Result<(), FailureKind>;

/// Calls a plain handler; a panic is an outcome.
#[inline]
pub(crate) fn call(handle: impl FnOnce() -> LogicResult) -> Outcome {
    settle(catch_unwind(AssertUnwindSafe(handle)))
}

#[inline]
fn settle(result: Result<LogicResult, Box<dyn Any + Send>>) -> Outcome {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(FailureKind::Error(error)),
        Err(panic) => Err(FailureKind::Panic(panic_message(&*panic))),
    }
}

#[cold]
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

/// A handler's future; a panic in it is an outcome.
pub(crate) struct Caught<F>(pub(crate) F);

impl<F: Future<Output = LogicResult> + Unpin> Future for Caught<F> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.0).poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(settle(Ok(result))),
            Err(panic) => Poll::Ready(settle(Err(panic))),
        }
    }
}

/// A future's output; `None` where it panicked.
pub(crate) async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        },
    )
    .await
}

/// Polls a future once, in place: one that is ready costs no task. Without tokio's budget, or a free mutex would say
/// that it is not once the budget of the connection's task is spent.
pub(crate) fn first_poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    let unconstrained = pin!(tokio::task::unconstrained(future));
    unconstrained.poll(&mut context)
}
