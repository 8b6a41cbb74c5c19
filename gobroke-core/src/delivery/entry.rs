//! [`Entry`]: what is queued in a lane.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{CloseReason, Message, client::ClientShared, registry::Group};

/// What is queued in a lane, in order.
pub(crate) enum Entry {
    Message {
        message: Message,
        to: Recipients,
    },
    /// An encoded control frame: a pong, an error, a ping.
    Frame {
        client: Arc<ClientShared>,
        frame: Bytes,
    },
    /// A client comes; its welcome is its first frame.
    Admit(Arc<ClientShared>),
    Join(Arc<ClientShared>, Arc<Group>),
    Leave(Arc<ClientShared>, Arc<Group>),
    Close(Arc<ClientShared>, CloseReason),
    /// A session is gone.
    Forget(Arc<ClientShared>),
}

/// To whom of a lane a message goes.
pub(crate) enum Recipients {
    Client(Arc<ClientShared>),
    Group(Arc<Group>),
    Everyone,
    Many(Box<Many>),
}

/// Any mix, and who is left out.
#[derive(Default, Clone)]
pub(crate) struct Many {
    pub(crate) everyone: bool,
    pub(crate) groups: SmallVec<[Arc<Group>; 2]>,
    pub(crate) clients: SmallVec<[Arc<ClientShared>; 2]>,
    pub(crate) except: SmallVec<[Arc<ClientShared>; 1]>,
}

impl Entry {
    /// What its frame will need, about.
    pub(crate) fn payload(&self) -> usize {
        match self {
            Self::Message { message, .. } => message.payload().len(),
            Self::Frame { frame, .. } => frame.len(),
            _ => 0,
        }
    }

    pub(crate) fn weight(&self) -> usize {
        let targets = match self {
            Self::Message {
                to: Recipients::Many(many),
                ..
            } => {
                size_of::<Many>()
                    + size_of::<usize>()
                        * (many.groups.len() + many.clients.len() + many.except.len())
            }
            _ => 0,
        };
        size_of::<Self>() + self.payload() + targets
    }
}
