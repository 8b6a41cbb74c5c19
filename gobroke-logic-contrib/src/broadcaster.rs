//! [`Broadcaster`]: what it receives, all receive.

use gobroke_core::{Logic, LogicContext, LogicResult, Message, Name, Target};

/// Sends what it receives to all clients, or to a group.
///
/// Payload, format, metadata and id stay as they were. The sender gets its own message too, unless
/// [`except_sender`](Self::except_sender) says otherwise: that tells it where its message stands among the others'.
///
/// Both kinds keep the order of each sender. A dispatched one runs on the senders' own connections, so two senders do
/// not wait for each other; a worker takes all messages one after another.
///
/// ```
/// use gobroke_core::Broke;
/// use gobroke_logic_contrib::Broadcaster;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), gobroke_core::StartError> {
/// let broke = Broke::builder()
///     .logic(Broadcaster::dispatched("news"))
///     .logic(Broadcaster::worker("lobby").to_group("lobby").except_sender())
///     .start()
///     .await?;
/// # broke.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a broadcaster does nothing until it is added to a router"]
pub struct Broadcaster {
    name: Name,
    kind: Kind,
    target: Target,
    except_sender: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Dispatched,
    Worker,
}

impl Broadcaster {
    /// A broadcaster that handles the messages of different clients side by side.
    pub fn dispatched(name: impl Into<Name>) -> Self {
        Self::new(name.into(), Kind::Dispatched)
    }

    /// A broadcaster that handles one message at a time.
    pub fn worker(name: impl Into<Name>) -> Self {
        Self::new(name.into(), Kind::Worker)
    }

    fn new(name: Name, kind: Kind) -> Self {
        Self {
            name,
            kind,
            target: Target::All,
            except_sender: false,
        }
    }

    /// Sends to the clients of this group. Default: to all clients.
    pub fn to_group(mut self, group: impl Into<Name>) -> Self {
        self.target = Target::Group(group.into());
        self
    }

    /// Leaves out the client that sent the message. Default: it gets it too.
    pub fn except_sender(mut self) -> Self {
        self.except_sender = true;
        self
    }

    fn forward(&self, mut message: Message, ctx: &LogicContext) -> LogicResult {
        let sender = message.client();
        let targets = message.targets_mut();
        targets.clear();
        targets.add(self.target.clone());
        if self.except_sender
            && let Some(sender) = sender
        {
            targets.exclude(sender);
        }
        ctx.send(message)?;
        Ok(())
    }
}

impl From<Broadcaster> for Logic {
    fn from(broadcaster: Broadcaster) -> Self {
        let name = broadcaster.name.clone();
        match broadcaster.kind {
            Kind::Dispatched => {
                Self::dispatched(name, move |message, ctx| broadcaster.forward(message, ctx))
            }
            Kind::Worker => {
                Self::worker(name, move |message, ctx| broadcaster.forward(message, ctx))
            }
        }
    }
}
