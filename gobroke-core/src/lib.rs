//! A message router for realtime servers: clients connect over any transport, the developer writes logic modules, and
//! GoBroke routes, fans out, holds back and cleans up.
//!
//! ```text
//! Endpoint ─ Session::receive ─▶ receive middleware ─▶ router ─▶ Logic ─┐
//!    ▲                                                    ▲             │ LogicContext::send
//!    └── Outbox ◀──── lanes ◀─── router ◀── send middleware ◀───────────┘
//!                                  └──▶ Cluster ──▶ another instance's router ─▶ its Outboxes / its Logic
//! ```
//!
//! A whole program, with the endpoints of the crate `gobroke-endpoints` in the place of the in-memory one:
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use gobroke_core::{Broke, Logic, Message, testing::TestEndpoint};
//!
//! let endpoint = TestEndpoint::to_logic("chat");
//! let broke = Broke::builder()
//!     .endpoint(endpoint.clone())
//!     .logic(Logic::dispatched("chat", |message, ctx| {
//!         ctx.broadcast(message)?;
//!         Ok(())
//!     }))
//!     .start()
//!     .await?;
//!
//! let (mut ann, mut bob) = (endpoint.connect().await?, endpoint.connect().await?);
//! ann.send("hello").await;
//! assert_eq!(bob.next().await.unwrap().payload().as_ref(), b"hello");
//! broke.stop().await;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "testing"))]
//! # fn main() {}
//! ```
//!
//! In the order in which a message meets them: [`Endpoint`] and [`Gate`], [`Session`], middleware
//! ([`BrokeBuilder::receive_middleware`]), [`Message`], [`Logic`] and [`LogicContext`], [`Broke`], [`Client`],
//! [`Encoder`] and [`Wire`]; several instances: [`cluster`]. Guides: [`docs`].

mod batch;
mod broke;
mod client;
mod close;
mod delivery;
mod endpoint;
mod error;
mod gate;
mod grant;
mod id;
mod logic;
mod message;
mod middleware;
mod name;
mod registry;
mod session;
mod stats;
mod sync;

pub mod cluster;
pub mod docs;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "testing")]
pub mod testing;

pub use async_trait::async_trait;

pub use self::{
    batch::Batch,
    broke::{Broke, BrokeBuilder, Reach, Receipt},
    client::{Client, ClientInfo},
    close::CloseReason,
    delivery::{Encoder, ErrorFrame, Frames, OutboxState, Overflow, Wire},
    endpoint::{Admission, ConnectRequest, Endpoint, EndpointOptions, Refusal, TlsClient, TlsInfo},
    error::{
        AddLogicError, Closed, EndpointError, FailureKind, LogicError, LogicFailure, LogicResult,
        SendError, StartError,
    },
    gate::{Admitted, Gate, Slot},
    grant::{Grant, Revocation},
    id::{ClientId, MessageId, Moment},
    logic::{Dispatched, Logic, LogicContext, Passive, Worker},
    message::{Format, Message, Metadata, Source, State, Tags, Target, Targets},
    name::Name,
    session::{Incoming, Outgoing, Session},
    stats::{LogicStats, Stats},
};
