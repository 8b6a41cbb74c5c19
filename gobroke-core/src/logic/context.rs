//! [`LogicContext`]: what a logic module does with the router.

use std::{fmt, ops::Deref, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::duty::Reign;
use crate::{
    ClientId, CloseReason, Message, Name, Receipt, SendError, Source,
    broke::{Reach, router::Router},
};

/// A logic module's hold on the router: its name, its cancellation, and all that it does with clients and messages
/// (through [`Reach`], to which it dereferences). Cloning it copies a pointer.
#[derive(Clone)]
pub struct LogicContext(Arc<Inner>);

struct Inner {
    reach: Reach,
    name: Name,
    cancelled: CancellationToken,
    /// Of a module that runs once, for how long.
    reign: Option<Reign>,
}

impl LogicContext {
    pub(crate) fn new(name: Name, router: Arc<Router>, cancelled: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            reach: Reach(router),
            name,
            cancelled,
            reign: None,
        }))
    }

    /// The same for a module that runs once, for as long as this instance runs it.
    pub(super) fn in_reign(&self, reign: &Reign) -> Self {
        Self(Arc::new(Inner {
            reach: Reach(self.router().clone()),
            name: self.0.name.clone(),
            cancelled: reign.cancellation().clone(),
            reign: Some(reign.clone()),
        }))
    }

    /// The fencing token of a module that runs once ([`Logic::singleton`](crate::Logic::singleton)): larger with each
    /// instance that comes to run it. Send it along with what is written outside, and have whoever stores it refuse what
    /// comes with a smaller one than the largest seen: a process that stood still and does not know yet that its time
    /// is over writes with an old one. `None` for other modules, and when the time of this instance is over.
    pub fn fencing_token(&self) -> Option<u64> {
        let reign = self.0.reign.as_ref()?;
        (!reign.is_over()).then(|| reign.token())
    }

    /// Whether another instance is to run the module: nothing more is begun.
    pub(super) fn is_over(&self) -> bool {
        self.0.reign.as_ref().is_some_and(Reign::is_over)
    }

    /// The module's name.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// Sends a message; it comes from this module, unless it is a client's that is passed on. Never waits: within a
    /// handler it is queued at once, and written when the turn ends.
    ///
    /// # Errors
    /// See [`SendError`]. Nothing is queued anywhere then.
    #[inline]
    pub fn send(&self, message: Message) -> Result<Receipt, SendError> {
        self.router()
            .send_from(&mut Some(message), Some(&self.0.name))
    }

    /// Sends an answer to the client or logic module that sent `to`, in place of the targets that it has.
    ///
    /// # Errors
    /// [`SendError::NoSender`] where the program itself sent it; else see [`SendError`].
    #[inline]
    pub fn reply(&self, to: &Message, message: Message) -> Result<Receipt, SendError> {
        let (place, sender) = (&mut Some(message), Some(to.source()));
        self.router().answer_from(place, sender, Some(&self.0.name))
    }

    /// Sends a message back to the client or logic module that sent it, in place of the targets that it has: what came,
    /// as it is or with another payload.
    ///
    /// ```
    /// use gobroke_core::Logic;
    /// let shout = Logic::dispatched("shout", |mut message, ctx| {
    ///     let louder = message.payload().to_ascii_uppercase();
    ///     message.set_payload(louder);
    ///     ctx.send_back(message)?;
    ///     Ok(())
    /// });
    /// ```
    ///
    /// # Errors
    /// [`SendError::NoSender`] where the program itself sent it; else see [`SendError`].
    #[inline]
    pub fn send_back(&self, message: Message) -> Result<Receipt, SendError> {
        self.router()
            .answer_from(&mut Some(message), None, Some(&self.0.name))
    }

    /// Sends a message to every client, in place of the targets that it has; who is left out stays so.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn broadcast(&self, mut message: Message) -> Result<Receipt, SendError> {
        let excluded: smallvec::SmallVec<[_; 2]> = message.targets().excluded().collect();
        message.targets_mut().clear();
        for client in excluded {
            message.targets_mut().exclude(client);
        }
        self.send(message.to_all())
    }

    /// Ends the connection of a client of any instance; see [`Reach::disconnect`]. In order with what this module sends.
    pub fn disconnect(&self, client: ClientId, reason: CloseReason) -> bool {
        self.0.reach.disconnect_by(&self.source(), client, reason)
    }

    /// Puts a client of any instance into a group; see [`Reach::join`]. In order with what this module sends.
    pub fn join(&self, client: ClientId, group: impl Into<Name>) -> bool {
        self.0.reach.join_by(&self.source(), client, group.into())
    }

    /// Takes a client of any instance out of a group; see [`Reach::leave`]. In order with what this module sends.
    pub fn leave(&self, client: ClientId, group: impl Into<Name>) -> bool {
        self.0.reach.leave_by(&self.source(), client, group.into())
    }

    /// Sets a metadata entry of a client of any instance; see [`Reach::set_metadata`].
    pub fn set_metadata(
        &self,
        client: ClientId,
        key: impl Into<String>,
        value: impl Into<serde_json::Value>,
    ) -> bool {
        let reach = &self.0.reach;
        reach.set_metadata_by(&self.source(), client, key.into(), value.into())
    }

    fn source(&self) -> Source {
        Source::Logic(self.0.name.clone())
    }

    /// Waits until the module is cancelled: removed, the router stops, or another instance is to run it. Cancel-safe.
    pub async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    /// Whether the module is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_cancelled()
    }

    /// The module's cancellation, to hand on to what it starts.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.0.cancelled
    }

    /// Waits until every lane is below half: for passive logic, which has no turn to wait before. Cancel-safe.
    pub async fn room(&self) {
        for lane in &self.router().lanes {
            if lane.room.is_pressed() {
                lane.room.eased().await;
            }
        }
    }

    pub(crate) fn cancel(&self) {
        self.0.cancelled.cancel();
    }

    pub(crate) fn router(&self) -> &Arc<Router> {
        &self.0.reach.0
    }
}

impl Deref for LogicContext {
    type Target = Reach;

    fn deref(&self) -> &Reach {
        &self.0.reach
    }
}

impl fmt::Debug for LogicContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicContext")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}
