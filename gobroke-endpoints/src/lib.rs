//! The ways in to a [GoBroke](gobroke_core) server.

pub mod codec;

pub use self::codec::{JsonCodec, RawCodec};
