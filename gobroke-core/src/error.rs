//! Errors: one type for each operation that can fail.

use std::{fmt, io};

use crate::{Message, Name};

/// What a logic module's handler returns.
pub type LogicResult = Result<(), LogicError>;

/// Why a message went nowhere. What was sent comes back where that helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A queue on the way has no room. Nothing was queued anywhere; the message comes back.
    #[error("{queue} is full; the message comes back, nothing of it was queued")]
    Full {
        /// Which one: `lane`, `logic <name>` or `cluster`.
        queue: Name,
        /// The message, as the send middleware left it. Sent again, it does not go through that again.
        message: Box<Message>,
    },
    /// Send middleware rejected it.
    #[error("send middleware rejected the message: {reason}")]
    Rejected {
        /// The reason that it gave.
        reason: String,
    },
    /// No logic module has this name.
    #[error("no logic module is called {0:?}; add it with `add_logic` first")]
    UnknownLogic(Name),
    /// A passive logic module never receives messages.
    #[error("logic module {0:?} is passive: it runs by itself and takes no messages")]
    PassiveLogic(Name),
    /// Logic modules answered each other for too long.
    #[error(
        "the message passed {hops} logic modules, which is more than 32: do modules answer each other for ever?"
    )]
    TooManyHops {
        /// How many it had passed.
        hops: u8,
    },
    /// The message has no target.
    #[error("the message has no target: add one with to_client, to_group, to_all or to_logic")]
    NoTarget,
    /// `reply` or `send_back`, where no client and no logic module sent the message.
    #[error("the message has no sender to reply to: the program itself sent it")]
    NoSender,
    /// The router is stopping or has stopped.
    #[error("the router has stopped")]
    Stopped,
}

impl SendError {
    /// The message, where it comes back.
    ///
    /// ```
    /// # use gobroke_core::{Message, SendError};
    /// # fn later(_: Message) {}
    /// # fn handle(error: SendError) {
    /// if let Some(message) = error.into_message() {
    ///     later(message);
    /// }
    /// # }
    /// ```
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::Full { message, .. } => Some(*message),
            _ => None,
        }
    }
}

/// Why `start` did not start. What had been started is stopped again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An endpoint does not listen.
    #[error("endpoint {endpoint:?} does not listen")]
    Endpoint {
        /// Which one.
        endpoint: Name,
        /// Why.
        source: EndpointError,
    },
    /// Two endpoints have one name.
    #[error("two endpoints are called {0:?}; give one of them another name")]
    DuplicateEndpoint(Name),
    /// A logic module could not be added.
    #[error(transparent)]
    Logic(#[from] AddLogicError),
    /// The cluster cannot be joined.
    #[error("the cluster cannot be joined")]
    Cluster(#[from] crate::cluster::ClusterError),
    /// There is no tokio runtime.
    #[error(
        "start was called outside a tokio runtime; call it in an async main (`#[tokio::main]`)"
    )]
    NoRuntime,
}

/// Why a logic module was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddLogicError {
    /// One of this name is there.
    #[error("a logic module is called {0:?} already; remove it first, or choose another name")]
    Duplicate(Name),
    /// A dispatched module runs where its messages come in; only workers and passive modules run elsewhere, or once.
    #[error("the dispatched module {0:?} cannot run on a named instance or once: make it a worker")]
    Dispatched(Name),
    /// The router is stopping or has stopped.
    #[error("the router has stopped")]
    Stopped,
}

/// Why an endpoint cannot listen, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address that was asked for.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// It returned, or panicked, without having said that it listens.
    #[error("it ended before it was ready")]
    NotReady,
    /// Its code panicked.
    #[error("it panicked")]
    Panicked,
    /// Anything else.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// What went wrong in a handler: any error, or a text.
///
/// ```
/// use gobroke_core::LogicResult;
/// fn handle(text: &str) -> LogicResult {
///     let number: u32 = text.parse()?;
///     if number > 9 {
///         return Err("one digit at most".into());
///     }
///     Ok(())
/// }
/// assert_eq!(handle("12").unwrap_err().to_string(), "one digit at most");
/// ```
pub struct LogicError(Box<dyn std::error::Error + Send + Sync>);

impl LogicError {
    /// The error inside.
    pub fn get_ref(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

// `LogicError` is no `std::error::Error` itself, so that `?` can turn every such error into one.
impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for LogicError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for LogicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for LogicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What the error hook is told: which logic module failed, and how.
#[derive(Debug)]
#[non_exhaustive]
pub struct LogicFailure {
    /// The module.
    pub logic: Name,
    /// How it failed.
    pub kind: FailureKind,
}

/// How a logic module failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum FailureKind {
    /// A handler returned an error.
    Error(LogicError),
    /// A handler panicked, with this message where there is one.
    Panic(String),
}

impl fmt::Display for LogicFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FailureKind::Error(error) => write!(f, "logic {:?} failed: {error}", self.logic),
            FailureKind::Panic(message) => write!(f, "logic {:?} panicked: {message}", self.logic),
        }
    }
}

/// The client is closed: nothing more is received from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is closed")]
pub struct Closed;
