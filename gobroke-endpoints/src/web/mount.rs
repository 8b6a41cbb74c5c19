//! A place in an HTTP server that is there: [`Mount`].

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use gobroke_core::{Gate, Refusal};
use hyper::Request;

/// What answers a route's requests, while the router runs.
#[derive(Debug)]
pub(crate) struct Mount<S>(Arc<RwLock<Option<Arc<S>>>>);

impl<S> Clone for Mount<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Default for Mount<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S> Mount<S> {
    /// Lets `server` answer until the gate closes.
    pub(crate) async fn serve(&self, gate: &Gate, server: Arc<S>) {
        self.set(Some(server));
        // Taken back however this ends.
        let _closed = OnDrop(|| self.set(None));
        gate.ready(None);
        gate.closing().await;
    }

    fn set(&self, server: Option<Arc<S>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = server;
    }

    /// Who answers now.
    pub(crate) fn server(&self) -> Result<Arc<S>, Refusal> {
        let server = self.0.read().unwrap_or_else(PoisonError::into_inner);
        server
            .clone()
            .ok_or_else(|| Refusal::unavailable("the server is not running; try again later"))
    }
}

/// Where a request comes from, where the server says so.
pub(crate) fn remote<B>(request: &Request<B>) -> Option<SocketAddr> {
    let extensions = request.extensions();
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(remote)) = extensions.get() {
        return Some(*remote);
    }
    extensions.get().copied()
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
