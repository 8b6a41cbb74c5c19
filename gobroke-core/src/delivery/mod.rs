//! How what was sent reaches sockets: turns gather it, lanes order it, passes write it, outboxes keep what a socket did
//! not take.
//!
//! A *turn* is a batch of work: what one read gave a connection, the next messages of a worker. Within it a send only
//! appends to the *lanes*, the ordered queues of a share of the clients each. When the turn ends, a *pass* takes all
//! that is queued in a lane, joins it into contiguous *runs*, and writes each member its bytes in one call. A write
//! costs 4 to 8 µs whatever is in it, so everything is decided by how many messages go into one.

mod ahead;
pub(crate) mod context;
pub(crate) mod demand;
pub(crate) mod entry;
#[cfg(all(test, gobroke_interleavings))]
mod interleavings;
pub(crate) mod lane;
pub(crate) mod members;
pub(crate) mod outbox;
pub(crate) mod pass;
pub(crate) mod room;
pub(crate) mod run;
pub(crate) mod turn;
pub(crate) mod wire;

pub use self::{
    outbox::{Frames, OutboxState},
    wire::{Encoder, ErrorFrame, Wire},
};

/// What happens to a message for a client whose outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The client is closed as a [slow consumer](crate::CloseReason::SlowConsumer): it misses nothing unknowingly.
    #[default]
    Disconnect,
    /// The oldest waiting messages are dropped: the client sees the newest (positions, prices).
    DropOldest,
    /// The message is dropped: the client sees what it saw first.
    DropNewest,
}
