//! UDP: [`UdpEndpoint`].

mod cookie;
mod datagram;
mod encoder;
mod inbox;
mod server;
mod session;

use std::{sync::Arc, time::Duration};

use gobroke_core::{Endpoint, EndpointError, EndpointOptions, Gate, Name, async_trait};

use self::{datagram::LARGEST, server::Server};
use crate::codec::{Codec, RawCodec};

/// Clients over UDP: one datagram, one frame.
///
/// A client proves that it has the address that it sends from before anything is kept for it; then it has a session,
/// named by a connection id, and keeps it when its address changes. How datagrams look, and what a client has to do, is
/// in [a guide](crate::docs::udp).
///
/// Datagrams are lost, doubled and disordered by the network, and nothing here mends that. For what must arrive take
/// another transport, for what is old at once (positions in a game) take this one, with [numbers](Self::numbered).
/// Nothing is encrypted: use it within a network that you trust, or carry nothing secret.
///
/// ```no_run
/// use gobroke_core::{Broke, Logic};
/// use gobroke_endpoints::{RawCodec, UdpEndpoint};
///
/// # async fn program() -> Result<(), Box<dyn std::error::Error>> {
/// let broke = Broke::builder()
///     .endpoint(UdpEndpoint::bind("0.0.0.0:9001").codec(RawCodec::to_logic("positions")).numbered())
///     .logic(Logic::dispatched("positions", |message, ctx| {
///         ctx.broadcast(message)?;
///         Ok(())
///     }))
///     .start()
///     .await?;
/// broke.until_signal().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct UdpEndpoint {
    address: String,
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    name: Name,
    codec: Arc<dyn Codec>,
    options: EndpointOptions,
    numbered: bool,
}

impl UdpEndpoint {
    /// Listens on an address: `0.0.0.0:9001`, `[::]:9001`, `localhost:0` (any free port). Its name is `udp`.
    pub fn bind(address: impl Into<String>) -> Self {
        let mut options = EndpointOptions::default();
        options.pong_timeout = Duration::from_secs(35);
        options.max_message = LARGEST;
        Self {
            address: address.into(),
            settings: Settings {
                name: "udp".into(),
                codec: Arc::new(RawCodec::new()),
                options,
                numbered: false,
            },
        }
    }

    /// What it is called: in [`Client::endpoint`](gobroke_core::Client::endpoint), statistics and traces.
    #[must_use]
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// What its frames mean. Default: [`RawCodec::new`], payloads without a target.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.settings.codec = Arc::new(codec);
        self
    }

    /// Numbers the frames to clients, so that these can pass over those that are older than one they have. Clients may
    /// number theirs in any case; of those the older ones are dropped here. Default: not numbered.
    #[must_use]
    pub fn numbered(mut self) -> Self {
        self.settings.numbered = true;
        self
    }

    /// Changes some of its bounds and times: `.configure(|options| options.max_message = 1200)`.
    ///
    /// The defaults are those of [`EndpointOptions`], but for two: a client is silent for 60 s until it is closed (25 s
    /// until it is pinged, and 35 s from then), and a frame is as long as a datagram can be.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut EndpointOptions)) -> Self {
        change(&mut self.settings.options);
        self
    }
}

#[async_trait]
impl Endpoint for UdpEndpoint {
    fn name(&self) -> Name {
        self.settings.name.clone()
    }

    fn options(&self) -> EndpointOptions {
        self.settings.options.clone()
    }

    async fn serve(&self, gate: Gate) -> Result<(), EndpointError> {
        let server = Server::bind(&self.address, gate, self.settings.clone()).await?;
        server.run().await;
        Ok(())
    }
}

/// Reads a datagram as the server does, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    use datagram::{CONNECT, Datagram, HELLO, MAGIC};

    let address = ([192, 0, 2, 1], 5000).into();
    let baker = cookie::Baker::with_key(&[7; cookie::KEY]);
    let mut out = Vec::new();
    match Datagram::read(data) {
        Some(Datagram::Hello(nonce)) => datagram::write(&mut out, HELLO, &[MAGIC, &nonce]),
        Some(Datagram::Connect {
            nonce,
            cookie,
            first,
        }) => {
            datagram::write(&mut out, CONNECT, &[MAGIC, &nonce, cookie.bytes(), first]);
            assert!(!baker.knows(&cookie, cookie::Use::Connect, &nonce, address));
        }
        Some(Datagram::Of(..)) | None => return,
    }
    assert_eq!(out, data, "what is read is all that there is");
}
