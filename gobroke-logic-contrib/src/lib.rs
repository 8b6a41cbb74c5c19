//! Stock logic modules for GoBroke, one feature each.
//!
//! | feature | module | what it does | on by default |
//! |---|---|---|---|
//! | `broadcaster` | [`Broadcaster`] | sends what it receives to all clients, or to a group | yes |
//! | `echo` | [`Echo`] | sends back what it receives | yes |
//! | `inactivity` | [`InactivityMonitor`] | disconnects clients that say nothing for too long | yes |
//! | `rooms` | [`Rooms`] | rooms to join, leave and talk in: what a chat needs | yes |
//! | `rate_limit` | [`RateLimit`] | receive middleware that bounds how much each client sends | no: it needs `governor` |
//!
//! Each is added where the router is built:
//!
//! ```
//! # #[cfg(all(feature = "broadcaster", feature = "inactivity"))]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), gobroke_core::StartError> {
//! use std::time::Duration;
//! use gobroke_core::Broke;
//! use gobroke_logic_contrib::{Broadcaster, InactivityMonitor};
//!
//! let broke = Broke::builder()
//!     .logic(Broadcaster::dispatched("chat"))
//!     .logic(InactivityMonitor::passive("inactivity", Duration::from_secs(15 * 60)))
//!     .start()
//!     .await?;
//! # broke.stop().await;
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "broadcaster", feature = "inactivity")))]
//! # fn main() {}
//! ```

#[cfg(feature = "broadcaster")]
mod broadcaster;
#[cfg(feature = "echo")]
mod echo;
#[cfg(feature = "inactivity")]
mod inactivity;
#[cfg(feature = "rate_limit")]
mod rate_limit;
#[cfg(feature = "rooms")]
mod rooms;

#[cfg(feature = "broadcaster")]
pub use self::broadcaster::Broadcaster;
#[cfg(feature = "echo")]
pub use self::echo::Echo;
#[cfg(feature = "inactivity")]
pub use self::inactivity::InactivityMonitor;
#[cfg(feature = "rate_limit")]
pub use self::rate_limit::RateLimit;
#[cfg(feature = "rooms")]
pub use self::rooms::Rooms;
