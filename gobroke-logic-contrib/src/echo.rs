//! [`Echo`]: what it receives, it sends back.

use gobroke_core::{Logic, Message, Name};

/// Sends back what it receives, to the client or the logic module that sent it.
///
/// Payload, format (text or binary) and metadata stay as they were, and so does the id: a client knows by it which of
/// its messages came back.
///
/// ```
/// use gobroke_core::Broke;
/// use gobroke_logic_contrib::Echo;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), gobroke_core::StartError> {
/// let broke = Broke::builder().logic(Echo::dispatched("echo")).start().await?;
/// # broke.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "an echo does nothing until it is added to a router"]
pub struct Echo {
    name: Name,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Dispatched,
    Worker,
}

impl Echo {
    /// An echo that answers the clients side by side.
    pub fn dispatched(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Dispatched,
        }
    }

    /// An echo that answers one message at a time.
    pub fn worker(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Worker,
        }
    }
}

impl From<Echo> for Logic {
    fn from(echo: Echo) -> Self {
        // A clone shares the payload; `reply` replaces its targets.
        fn answer(
            message: &Message,
            ctx: &gobroke_core::LogicContext,
        ) -> gobroke_core::LogicResult {
            ctx.reply(message, message.clone())?;
            Ok(())
        }
        match echo.kind {
            Kind::Dispatched => Self::dispatched(echo.name, |message, ctx| answer(&message, ctx)),
            Kind::Worker => Self::worker(echo.name, |message, ctx| answer(&message, ctx)),
        }
    }
}
