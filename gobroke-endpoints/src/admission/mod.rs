//! Who comes in: what an endpoint checks by itself before it asks the program's `on_connect` hook.

#[cfg(feature = "ws")]
mod origins;
#[cfg(any(feature = "ws", feature = "tcp"))]
mod proxies;

#[cfg(feature = "ws")]
pub use self::origins::Origins;
#[cfg(all(any(test, fuzzing), any(feature = "ws", feature = "tcp")))]
pub(crate) use self::proxies::source;
#[cfg(any(feature = "ws", feature = "tcp"))]
pub use self::proxies::{NetworkError, TrustedProxies};
