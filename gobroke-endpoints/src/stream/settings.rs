//! What is set on an endpoint: [`Settings`].

use std::{sync::Arc, time::Duration};

use gobroke_core::{EndpointOptions, Name};

use super::ReceiveBudget;
#[cfg(any(feature = "ws", feature = "http"))]
use crate::admission::Origins;
use crate::{
    admission::TrustedProxies,
    codec::{Codec, RawCodec},
};

/// What every endpoint over a byte stream can be told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: Name,
    pub(crate) codec: Arc<dyn Codec>,
    pub(crate) options: EndpointOptions,
    pub(crate) message_timeout: Duration,
    pub(crate) budget: ReceiveBudget,
    pub(crate) control_frames: u32,
    pub(crate) proxies: Option<TrustedProxies>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::Tls>,
    #[cfg(any(feature = "ws", feature = "http"))]
    pub(crate) origins: Origins,
    #[cfg(feature = "ws")]
    pub(crate) deflate: bool,
}

impl Settings {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            codec: Arc::new(RawCodec::new()),
            options: EndpointOptions::default(),
            message_timeout: Duration::from_secs(60),
            budget: ReceiveBudget::process(),
            control_frames: 100,
            proxies: None,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(any(feature = "ws", feature = "http"))]
            origins: Origins::default(),
            #[cfg(feature = "ws")]
            deflate: false,
        }
    }

    #[cfg(any(feature = "ws", feature = "tcp"))]
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_message: self.options.max_message,
            budget: self.budget.clone(),
            control_frames: self.control_frames,
        }
    }
}

/// How much a connection may send before it is a message.
#[cfg(any(feature = "ws", feature = "tcp"))]
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_message: usize,
    pub(crate) budget: ReceiveBudget,
    /// How many control frames a second.
    pub(crate) control_frames: u32,
}

/// The methods by which an endpoint with a field `settings` is set.
macro_rules! setters {
    () => {
        /// What it is called: in [`Client::endpoint`](gobroke_core::Client::endpoint), statistics and traces.
        #[must_use]
        pub fn name(mut self, name: impl Into<gobroke_core::Name>) -> Self {
            self.settings.name = name.into();
            self
        }

        /// What its frames mean. Default: [`RawCodec::new`](crate::codec::RawCodec::new), payloads without a target.
        #[must_use]
        pub fn codec(mut self, codec: impl crate::codec::Codec) -> Self {
            self.settings.codec = std::sync::Arc::new(codec);
            self
        }

        /// Its bounds and times, all of them. Default: [`EndpointOptions::default`](gobroke_core::EndpointOptions).
        #[must_use]
        pub fn options(mut self, options: gobroke_core::EndpointOptions) -> Self {
            self.settings.options = options;
            self
        }

        /// Changes some of its bounds and times: `.configure(|options| options.max_message = 4096)`.
        #[must_use]
        pub fn configure(
            mut self,
            change: impl FnOnce(&mut gobroke_core::EndpointOptions),
        ) -> Self {
            change(&mut self.settings.options);
            self
        }

        /// How long a message may take from its first byte to its last; then its connection is closed, with
        /// [`PolicyViolation`](gobroke_core::CloseReason::PolicyViolation), within twice that time. Default: 60 s.
        #[must_use]
        pub fn message_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.message_timeout = timeout;
            self
        }

        /// How many control frames (pings, pongs) a client may send within a second; with one more its connection is
        /// closed, with [`PolicyViolation`](gobroke_core::CloseReason::PolicyViolation). Default: 100.
        #[must_use]
        pub fn max_control_frames(mut self, a_second: u32) -> Self {
            self.settings.control_frames = a_second;
            self
        }

        /// The memory for messages that have not arrived whole. Default:
        /// [`ReceiveBudget::process`](crate::ReceiveBudget::process), 256 MiB for all endpoints of the process.
        #[must_use]
        pub fn receive_budget(mut self, budget: crate::ReceiveBudget) -> Self {
            self.settings.budget = budget;
            self
        }

        /// Whose word is taken for where a client comes from. Default: nobody's. (The PROXY protocol is read by an
        /// endpoint with an address of its own alone.)
        #[must_use]
        pub fn behind(mut self, proxies: crate::TrustedProxies) -> Self {
            self.settings.proxies = Some(proxies);
            self
        }
    };
}
pub(crate) use setters;

/// The methods by which one with an address of its own is set.
macro_rules! bound_setters {
    () => {
        /// Speaks TLS. Default: it does not.
        #[cfg(feature = "tls")]
        #[must_use]
        pub fn tls(mut self, tls: crate::Tls) -> Self {
            self.settings.tls = Some(tls);
            self
        }
    };
}
pub(crate) use bound_setters;

/// The methods by which such an endpoint over HTTP is set.
#[cfg(any(feature = "ws", feature = "http"))]
macro_rules! http_setters {
    () => {
        /// Which web pages may connect; others are answered with 403. Default:
        /// [`Origins::same_host`](crate::Origins::same_host).
        #[must_use]
        pub fn origins(mut self, origins: crate::Origins) -> Self {
            self.settings.origins = origins;
            self
        }
    };
}
#[cfg(any(feature = "ws", feature = "http"))]
pub(crate) use http_setters;
