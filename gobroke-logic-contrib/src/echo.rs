//! [`Echo`]: what it receives, it sends back.

use gobroke_core::{Logic, LogicContext, LogicResult, Message, Name};

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
        fn answer(message: Message, ctx: &LogicContext) -> LogicResult {
            ctx.send_back(message)?;
            Ok(())
        }
        match echo.kind {
            Kind::Dispatched => Self::dispatched(echo.name, answer),
            Kind::Worker => Self::worker(echo.name, answer),
        }
    }
}
