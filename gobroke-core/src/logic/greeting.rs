//! Telling logic who comes and goes: [`Greeting`] holds a client's first message back until logic has seen it join.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{sync::Notify, task::JoinHandle};

use crate::{Client, ClientId};

/// How many clients are kept in mind before those whose telling is over are forgotten.
const MANY: usize = 64;

/// Tells a client's door that the dispatched modules have seen it join.
#[derive(Default)]
pub(crate) struct Greeting {
    left: AtomicUsize,
    done: Notify,
}

impl Greeting {
    pub(crate) fn expect(self: &Arc<Self>) -> Greeted {
        self.left.fetch_add(1, Relaxed);
        Greeted(Some(self.clone()))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Relaxed) == 0
    }

    pub(crate) async fn done(&self) {
        loop {
            let mut done = std::pin::pin!(self.done.notified());
            done.as_mut().enable();
            if self.is_done() {
                return;
            }
            done.await;
        }
    }
}

/// One module's part of a greeting; dropping it says that it is done, or will not come.
pub(crate) struct Greeted(pub(super) Option<Arc<Greeting>>);

impl Drop for Greeted {
    fn drop(&mut self) {
        if let Some(greeting) = &self.0
            && greeting.left.fetch_sub(1, Relaxed) == 1
        {
            greeting.done.notify_waiters();
        }
    }
}

/// What a dispatched module is being told of clients, where that waits: of one client it hears one thing after the
/// other, however long each takes.
#[derive(Default)]
pub(super) struct Telling(HashMap<ClientId, JoinHandle<()>>);

impl Telling {
    /// What must be over before the client's next.
    pub(super) fn before(&mut self, client: &Client) -> Option<JoinHandle<()>> {
        self.0.remove(&client.id())
    }

    pub(super) fn goes_on(&mut self, client: ClientId, task: Option<JoinHandle<()>>) {
        let Some(task) = task else { return };
        if self.0.len() >= MANY {
            self.0.retain(|_, task| !task.is_finished());
        }
        self.0.insert(client, task);
    }
}

pub(super) async fn over(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        // A panic of its handler was caught and reported there.
        let _ = task.await;
    }
}
