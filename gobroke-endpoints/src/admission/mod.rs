//! Who comes in: what an endpoint checks by itself before it asks the program's `on_connect` hook.

#[cfg(any(feature = "ws", feature = "http"))]
mod origins;
#[cfg(any(feature = "ws", feature = "tcp", feature = "http"))]
mod proxies;

#[cfg(any(feature = "ws", feature = "http"))]
pub use self::origins::Origins;
#[cfg(all(any(test, fuzzing), any(feature = "ws", feature = "tcp")))]
pub(crate) use self::proxies::source;
#[cfg(any(feature = "ws", feature = "tcp", feature = "http"))]
pub use self::proxies::{NetworkError, TrustedProxies};
