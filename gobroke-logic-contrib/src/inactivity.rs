//! [`InactivityMonitor`]: who says nothing for too long is disconnected.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use gobroke_core::{
    Client, ClientId, CloseReason, Logic, LogicContext, LogicResult, Message, Name, Passive,
    SendError, async_trait,
};
use tokio::time::timeout;

/// The longest time between two looks at the clients.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest: how coarse [`Client::idle`] is.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(250);

/// Disconnects clients that send no message for too long, with [`CloseReason::Idle`].
///
/// What counts is messages. Pings and pongs, which show that a connection lives, do not: they are the endpoint's.
/// A client that has sent none counts from when it connected.
///
/// It looks at the clients of its own instance alone, so in a cluster each instance has one. It sleeps until the
/// first client can be due, but looks no more often than every tenth of the time-out, at least 250 ms and at most
/// 10 s. By that, and half a second (silence is known to a quarter), a disconnect or a warning may be late, never early.
///
/// ```
/// use std::time::Duration;
/// use gobroke_core::{Broke, Message};
/// use gobroke_logic_contrib::InactivityMonitor;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), gobroke_core::StartError> {
/// let monitor = InactivityMonitor::passive("inactivity", Duration::from_secs(15 * 60))
///     .warning(Duration::from_secs(60), Message::text("are you still there?"));
/// let broke = Broke::builder().logic(monitor).start().await?;
/// # broke.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a monitor does nothing until it is added to a router"]
pub struct InactivityMonitor {
    name: Name,
    timeout: Duration,
    warning: Option<Warning>,
}

#[derive(Clone, Debug)]
struct Warning {
    /// After how long a silence it is sent.
    after: Duration,
    message: Message,
}

impl InactivityMonitor {
    /// A monitor that disconnects after a silence of `timeout`.
    pub fn passive(name: impl Into<Name>, timeout: Duration) -> Self {
        Self {
            name: name.into(),
            timeout,
            warning: None,
        }
    }

    /// Sends a copy of `message` to a client that long before it is disconnected, once for each silence.
    /// Default: no warning.
    ///
    /// The client stays if it sends anything after that. With `before` as long as the time-out or longer, the warning
    /// comes as soon as a client falls silent.
    pub fn warning(mut self, before: Duration, message: Message) -> Self {
        self.warning = Some(Warning {
            after: self.timeout.saturating_sub(before),
            message,
        });
        self
    }

    fn interval(&self) -> Duration {
        (self.timeout / 10).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)
    }
}

impl From<InactivityMonitor> for Logic {
    fn from(monitor: InactivityMonitor) -> Self {
        let name = monitor.name.clone();
        Watch {
            monitor,
            warned: HashMap::new(),
        }
        .into_passive(name)
    }
}

/// The monitor at work.
struct Watch {
    monitor: InactivityMonitor,
    /// Who has been warned, and in which silence: the time of the last message before it.
    warned: HashMap<ClientId, SystemTime>,
}

#[async_trait]
impl Passive for Watch {
    async fn run(&mut self, ctx: &LogicContext) -> LogicResult {
        loop {
            let pause = self.look(ctx).await;
            if timeout(pause, ctx.cancelled()).await.is_ok() {
                return Ok(());
            }
        }
    }
}

impl Watch {
    /// Warns and disconnects those who are due, and says how long nobody else will be.
    async fn look(&mut self, ctx: &LogicContext) -> Duration {
        // Whoever connects right after this look is not due before that.
        let mut pause = self
            .monitor
            .warning
            .as_ref()
            .map_or(self.monitor.timeout, |warning| warning.after);
        let mut still_warned = HashMap::new();
        for client in ctx.local_clients() {
            let silence = silence(&client);
            let Some(left) = self
                .monitor
                .timeout
                .checked_sub(silence)
                .filter(|left| !left.is_zero())
            else {
                client.disconnect(CloseReason::Idle);
                continue;
            };
            pause = pause.min(left);
            let Some(warning) = &self.monitor.warning else {
                continue;
            };
            if let Some(left) = warning
                .after
                .checked_sub(silence)
                .filter(|left| !left.is_zero())
            {
                pause = pause.min(left);
                continue;
            }
            let since = client.last_message();
            if self.warned.get(&client.id()) == Some(&since)
                || warn(ctx, &client, &warning.message).await
            {
                still_warned.insert(client.id(), since);
            }
        }
        self.warned = still_warned;
        pause.max(self.monitor.interval())
    }
}

/// Sends the warning. Says whether that is done with; if not, the next look tries again.
async fn warn(ctx: &LogicContext, client: &Client, warning: &Message) -> bool {
    ctx.room().await;
    let mut message = Message::new(warning.payload().clone())
        .with_format(warning.format())
        .to_client(client.id());
    if !warning.metadata().is_empty() {
        message.metadata_mut().clone_from(warning.metadata());
    }
    // What send middleware rejects would be rejected again; the router counts it.
    !matches!(ctx.send(message), Err(SendError::Full { .. }))
}

/// For how long a client has certainly been silent: `idle` rounds up.
fn silence(client: &Client) -> Duration {
    client.idle().saturating_sub(SHORTEST_INTERVAL)
}
