//! [`Session`]: an endpoint's hold on one connection, and its two halves.

mod incoming;

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use self::incoming::Door;
pub use self::incoming::Incoming;
use crate::{
    Client, CloseReason, broke::router::Router, client::ClientShared, delivery::Frames, gate::Slot,
};

/// An endpoint's hold on one connection.
///
/// Dropping it unregisters the client, whatever happened: from the registry, its groups, the cluster, and with logic,
/// which is told that it left. Nothing else does.
#[repr(C)]
pub struct Session {
    /// Counts the connection against the endpoint's limits. No read touches it, the rest each does.
    _slot: Slot,
    client: Client,
    router: Arc<Router>,
    /// The task that asked last to write what waits.
    driver: Option<Waker>,
    door: Door,
}

impl Session {
    pub(crate) fn new(client: Arc<ClientShared>, router: Arc<Router>, slot: Slot) -> Self {
        let door = Door::new(router.greet(&client));
        Self {
            _slot: slot,
            client: Client(client),
            router,
            driver: None,
            door,
        }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Closes the client behind all that was sent to it before: the close frame is the last that goes out, and then
    /// [`Outgoing::drive`] (or [`Outgoing::next`]) ends.
    pub fn close(&self, reason: CloseReason) {
        self.router.close(&self.client.0, reason);
    }

    /// Ends the client at once: what waits for it is dropped. For transports that find their socket lost or stalled.
    pub fn end(&self, reason: CloseReason) {
        self.router.end(&self.client.0, reason);
    }

    /// The two halves: receiving may wait (that is back-pressure), and must not stop the writing meanwhile.
    pub fn halves(&mut self) -> (Incoming<'_>, Outgoing<'_>) {
        let Self {
            client,
            router,
            door,
            driver,
            ..
        } = self;
        (
            Incoming {
                client,
                router,
                door,
            },
            Outgoing { client, driver },
        )
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The connection's task panicked.
        self.router
            .stats
            .panics
            .add(std::thread::panicking().into());
        self.router.forget(&self.client.0);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// The half of a [`Session`] that gives what goes out.
#[derive(Debug)]
pub struct Outgoing<'a> {
    client: &'a Client,
    driver: &'a mut Option<Waker>,
}

impl Outgoing<'_> {
    /// For endpoints that gave a [`Wire`](crate::Wire): finishes what the socket did not take at once, for as long as
    /// the connection lasts. Ends once the client is closed and everything before the close, and the close frame, is
    /// written and the wire is shut down; or the socket is lost. Says why. Cancel-safe.
    pub fn drive(&mut self) -> impl Future<Output = CloseReason> + Send {
        poll_fn(|cx| self.poll_drive(cx))
    }

    /// The same for a task that does other things too: to be asked each time that the task is woken.
    #[inline]
    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.client.0.outbox.poll_drive(cx, self.driver)
    }

    /// For endpoints without a wire: whole frames, ready to be written. Asking for more says that what was given
    /// before is written. `None` once the client is closed and its close frame was given.
    ///
    /// Cancel-safe: what a dropped call would have given is given by the next one.
    pub async fn next(&mut self) -> Option<Frames> {
        poll_fn(|cx| self.client.0.outbox.poll_next(cx)).await
    }

    /// Says that the transport took so many bytes of the frames that were given last: without it, a slow but steady
    /// client looks stalled until all of them are out. Asking for more says the same of what is left.
    pub fn written(&self, bytes: usize) {
        self.client.0.outbox.written(bytes);
    }

    /// Why the client is closed, once it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.client.0.outbox.closing()
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::{Batch, delivery::outbox::Outbox};

    #[test]
    fn what_each_connection_holds_does_not_grow() {
        // With the task of its connection and the socket's registration: 2 KiB for one that is idle.
        assert!(size_of::<Client>() <= 8, "{}", size_of::<Client>());
        assert!(
            size_of::<ClientShared>() <= 448,
            "{}",
            size_of::<ClientShared>()
        );
        assert!(size_of::<Outbox>() <= 216, "{}", size_of::<Outbox>());
        assert!(size_of::<Session>() <= 120, "{}", size_of::<Session>());
        assert!(size_of::<Batch>() <= 40, "{}", size_of::<Batch>());
    }

    #[test]
    fn a_read_and_a_delivery_touch_a_line_of_their_own() {
        const LINE: usize = 64;
        assert_eq!(align_of::<ClientShared>(), LINE);
        assert_eq!(offset_of!(ClientShared, outbox), LINE);
        assert!(Outbox::touched_where_nothing_waits() <= LINE);
    }
}
