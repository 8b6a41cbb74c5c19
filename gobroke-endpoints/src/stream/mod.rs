//! What endpoints over a byte stream share: how a connection runs, is read, and ends.
//!
//! A connection is one small task. It holds the socket's read half and a [`Decoder`]; an idle one holds no buffer.
//! Core writes into the write half by itself ([`Wire`](gobroke_core::Wire)) where that is a plain TCP socket.

mod accept;
mod arrival;
mod budget;
#[cfg(any(feature = "ws", feature = "tcp"))]
mod connection;
mod control;
#[cfg(any(feature = "ws", feature = "tcp"))]
mod decode;
#[cfg(any(feature = "ws", feature = "tcp"))]
mod reading;
mod settings;
#[cfg(any(feature = "ws", feature = "tcp"))]
mod socket;

pub use self::budget::ReceiveBudget;
#[cfg(feature = "tcp")]
pub(crate) use self::connection::linger;
#[cfg(any(feature = "ws", all(feature = "tcp", feature = "tls")))]
pub(crate) use self::connection::run_through_task;
#[cfg(all(any(test, fuzzing), any(feature = "ws", feature = "tcp")))]
pub(crate) use self::decode::testing;
#[cfg(any(feature = "ws", feature = "http"))]
pub(crate) use self::settings::http_setters;
#[cfg(all(test, feature = "ws"))]
pub(crate) use self::socket::ReadHalf;
pub(crate) use self::{
    accept::{Listener, tune},
    arrival::{Peer, Secured},
    budget::Partial,
    control::ControlRate,
    settings::{Settings, bound_setters, setters},
};
#[cfg(any(feature = "ws", feature = "tcp"))]
pub(crate) use self::{
    connection::{Reader, run},
    decode::{Decoder, Intake},
    settings::Limits,
    socket::split,
};
