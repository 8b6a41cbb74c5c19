//! Who comes in: what an endpoint checks by itself before it asks the program's `on_connect` hook, and ready-made hooks.

mod bearer;
#[cfg(feature = "jwt")]
mod jwt;
#[cfg(any(feature = "ws", feature = "http"))]
mod origins;
#[cfg(any(feature = "ws", feature = "tcp", feature = "http"))]
mod proxies;

pub use self::bearer::{bearer, bearer_token};
#[cfg(feature = "jwt")]
pub use self::jwt::{Claims, Jwt, JwtKeyError};
#[cfg(any(feature = "ws", feature = "http"))]
pub use self::origins::Origins;
#[cfg(all(any(test, fuzzing), any(feature = "ws", feature = "tcp")))]
pub(crate) use self::proxies::source;
#[cfg(any(feature = "ws", feature = "tcp", feature = "http"))]
pub use self::proxies::{NetworkError, TrustedProxies};
