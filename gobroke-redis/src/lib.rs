//! GoBroke over Redis: one program, many instances.
//!
//! ```no_run
//! use gobroke_core::{Broke, Logic};
//! use gobroke_redis::RedisCluster;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broke = Broke::builder()
//!     .instance("instance-1")
//!     .logic(Logic::dispatched("chat", |message, ctx| {
//!         ctx.broadcast(message)?; // to the clients of all instances
//!         Ok(())
//!     }))
//!     .cluster(RedisCluster::new("redis://127.0.0.1:6379"))
//!     .start()
//!     .await?;
//! broke.until_signal().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`RedisCluster`] implements the seam [`gobroke_core::cluster::Cluster`]; what the instances promise each other
//! stands there. Redis 7.0 or newer, or Valkey, without persistence or with it: what it loses is written again; a single
//! server, the master that Sentinels name ([`RedisCluster::sentinel`]), or a Redis Cluster ([`RedisCluster::cluster`]).
//!
//! | what | how |
//! |---|---|
//! | messages | a channel for each instance and one for all; many messages in one PUBLISH, at once when idle |
//! | directory | hashes, written in batches by scripts that name the batch before, so that a loss of data is noticed |
//! | instances | leases in a sorted set, by Redis' own clock; a heartbeat each fifth of a lease |
//! | forgery | with a [secret](RedisCluster::secret), what instances carry to each other is sealed and numbered; forged or repeated, it is refused |
//! | Redis away | local traffic does not notice; what is for others waits, bounded; on its return everything is subscribed and written again |
//! | a new master | asked for at every reconnect and with every heartbeat, of all Sentinels or nodes; a server that says it is no master is not talked to |
//! | many nodes | in a Redis Cluster sharded channels by the origin's trunk, of which there are 16: all that one origin sends passes one node; the directory is in one slot |
//! | a deaf subscription | found by a probe when it has been quiet for 5 s, and made anew |
//!
//! No command is sent for a message between clients of one instance.
//!
//! Who runs it finds the set-up, the counters and what to do when in [`docs::operating`], and where one Redis ends in
//! [`docs::scaling`].

mod carrier;
mod cluster;
mod commands;
mod config;
mod directory;
pub mod docs;
mod error;
#[cfg(test)]
mod fake;
mod instance;
mod keys;
mod lease;
mod nodes;
mod roster;
mod script;
mod sentinel;
mod servers;
mod stats;
mod supervisor;

/// The client library, for [`RedisCluster::from_client`].
pub use redis;

pub use self::{cluster::RedisCluster, stats::RedisStats};
