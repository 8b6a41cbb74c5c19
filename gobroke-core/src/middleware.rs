//! Middleware: plain functions that see every message, in the order in which they were attached.

use std::{fmt, pin::Pin};

use crate::Message;

pub(crate) type Plain = Box<dyn Fn(&mut Message) + Send + Sync>;
pub(crate) type Boxed = Pin<Box<dyn Future<Output = Message> + Send>>;
pub(crate) type Waiting = Box<dyn Fn(Message) -> Boxed + Send + Sync>;

/// One step of the chain at the door, where waiting is allowed.
pub(crate) enum Step {
    Plain(Plain),
    Waiting(Waiting),
}

/// The chain at the door, and the chain of sends.
#[derive(Default)]
pub(crate) struct Middleware {
    pub(crate) receive: Vec<Step>,
    pub(crate) send: Vec<Plain>,
    pub(crate) receive_waits: bool,
}

impl Middleware {
    pub(crate) fn add_receive(&mut self, step: Step) {
        self.receive_waits |= matches!(step, Step::Waiting(_));
        self.receive.push(step);
    }

    /// Runs the chain at the door, where no step waits. Ends at the first that rejects.
    pub(crate) fn receive_now(&self, message: &mut Message) {
        for step in &self.receive {
            if let Step::Plain(plain) = step {
                plain(message);
            }
            if message.is_rejected() {
                return;
            }
        }
    }

    /// Runs the chain at the door.
    pub(crate) async fn receive(&self, mut message: Message) -> Message {
        for step in &self.receive {
            match step {
                Step::Plain(plain) => plain(&mut message),
                Step::Waiting(waiting) => message = waiting(message).await,
            }
            if message.is_rejected() {
                break;
            }
        }
        message
    }

    pub(crate) fn send(&self, message: &mut Message) {
        for plain in &self.send {
            plain(message);
            if message.is_rejected() {
                return;
            }
        }
    }
}

impl fmt::Debug for Middleware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Middleware")
            .field("receive", &self.receive.len())
            .field("send", &self.send.len())
            .finish()
    }
}
