//! [`Own`]: the client whose turn it is, and what it is answered.

use std::{cell::RefCell, sync::Arc};

use crate::{
    ClientId, Message, client::ClientShared, delivery::pass::Tally, registry::Registry,
    sync::thread_local,
};

/// The client whose turn it is, of a door's, and whether its outbox keeps answers until the end. The door keeps it from
/// turn to turn, so that no turn changes the count of who holds the client.
pub(crate) struct Own {
    client: Arc<ClientShared>,
    answered: bool,
}

impl Own {
    pub(crate) fn new(client: Arc<ClientShared>) -> Self {
        Self {
            client,
            answered: false,
        }
    }

    /// Writes the answers that were kept.
    pub(super) fn settle(&mut self) {
        if !std::mem::take(&mut self.answered) {
            return;
        }
        let lane = &self.client.lane;
        let mut tally = Tally::default();
        tally.flush(&self.client, &lane.context);
        lane.count(&tally);
        lane.context.relieve();
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.settle();
    }
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// Begins, in a turn, that of this client.
pub(super) fn set(own: Option<Own>) {
    OWN.with_borrow_mut(|place| *place = own);
}

/// Ends it.
pub(super) fn take() -> Option<Own> {
    OWN.with_borrow_mut(Option::take)
}

/// The client whose turn it is, if it is the one that is meant.
pub(super) fn client(
    is_meant: impl FnOnce(&&Arc<ClientShared>) -> bool,
) -> Option<Arc<ClientShared>> {
    OWN.with_borrow(|own| {
        own.as_ref()
            .map(|own| &own.client)
            .filter(is_meant)
            .cloned()
    })
}

/// Keeps an answer to the client whose turn it is until that ends, without a way through its lane; not where something
/// is queued there that the answer would overtake, or is in its outbox. Says whether it took it.
#[inline]
pub(crate) fn answer(registry: &Arc<Registry>, id: ClientId, place: &mut Option<Message>) -> bool {
    OWN.with_borrow_mut(|own| match own {
        Some(Own { client, answered }) if is_meant(client, id, registry) => {
            let kept = client.lane.is_quiet() && client.outbox.answer(place);
            *answered |= kept;
            kept
        }
        _ => false,
    })
}

pub(super) fn is_meant(known: &ClientShared, id: ClientId, registry: &Arc<Registry>) -> bool {
    known.id == id && !known.is_closed() && Arc::ptr_eq(&known.lane.context.registry, registry)
}
