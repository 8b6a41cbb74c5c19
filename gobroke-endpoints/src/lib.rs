//! The ways in to a [GoBroke](gobroke_core) server.

pub mod codec;
#[cfg(any(feature = "ws", feature = "tcp"))]
mod stream;
#[cfg(feature = "tcp")]
mod tcp;

pub use self::codec::{JsonCodec, RawCodec};
#[cfg(any(feature = "ws", feature = "tcp"))]
pub use self::stream::ReceiveBudget;
#[cfg(feature = "tcp")]
pub use self::tcp::TcpEndpoint;
