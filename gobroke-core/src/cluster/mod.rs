//! Many instances as one: the [`Cluster`] seam, and what core does on its side of it.
//!
//! An implementation is two things. A *carrier* brings bytes to one instance, or to all; it may lose, double and
//! disorder them, and be away for a while: core numbers what it sends, repairs what went missing, and counts what
//! cannot be repaired. A *directory* knows which clients there are, where each of them is, and which instances have
//! members of a group; it is written in batches and read when something is not known yet, never for each message.
//!
//! ```text
//! router ─▶ link: look-ups, queue ─▶ lines: numbers ─▶ Membership::publish ─ ─ ▶ Inbox ─▶ lines ─▶ router
//!                  ▲                                                                another instance
//!                  └── directory: Membership::{write, locate, group_instances, clients, ..}
//! ```
//!
//! [`MemoryCluster`] joins several [`Broke`](crate::Broke) in one process; the crate `gobroke-redis` joins processes.

#[cfg(feature = "testing")]
pub mod conformance;
pub(crate) mod envelope;
mod inbox;
mod instance;
mod line;
pub(crate) mod link;
mod memory;
mod page;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod seed;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::{
    envelope::VERSION,
    inbox::{Inbox, Leaving, Notice},
    instance::{Incarnation, InstanceId, Registration},
    link::ClusterStats,
    memory::MemoryCluster,
    page::{Count, Cursor, Listing, Page},
};
use crate::{ClientId, ClientInfo, Metadata, Name};

#[cfg(feature = "testing")]
pub use self::memory::Faults;

/// A way for instances to find and to reach each other.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Joins under this name, in a new incarnation, and hands over everything that comes through `inbox`.
    ///
    /// When it returns, what others publish reaches the inbox, others have been told or will be, and the instances
    /// that are there already have been put into the inbox as [`Notice::Joined`]. It is called again, with another
    /// inbox, after [`Notice::Expelled`]. Dropping the future leaves nothing behind that the lease does not clean up.
    ///
    /// # Errors
    /// Why the cluster cannot be joined.
    async fn join(&self, name: &Name, inbox: Inbox) -> Result<Box<dyn Membership>, ClusterError>;
}

#[async_trait]
impl<C: Cluster + ?Sized> Cluster for Arc<C> {
    async fn join(&self, name: &Name, inbox: Inbox) -> Result<Box<dyn Membership>, ClusterError> {
        (**self).join(name, inbox).await
    }
}

/// An instance's place in the cluster, from [`Cluster::join`] to [`leave`](Membership::leave).
///
/// Dropping one without leaving is a crash: others learn of it when the lease ends.
///
/// # Carrier
/// [`publish`](Membership::publish) and [`room`](Membership::room). Core needs no promise beyond "usually", and is
/// fastest where what one instance publishes, to one and to all, arrives in order.
///
/// # Directory
/// The other methods. A client's record is written by the instance that it is connected to and by no other; the
/// directory refuses or ignores what a former incarnation, or a registration that is no longer the newest, writes.
/// A call may wait for the network, but never for another instance, and fails within seconds where nothing answers.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// The incarnation that it joined in.
    fn incarnation(&self) -> Incarnation;

    /// Takes a frame to be carried, in order. Never waits: it is called under core's locks and must not call back.
    ///
    /// # Errors
    /// [`Full`] where its own bounded queue has no room; core keeps the frame, and calls again after
    /// [`room`](Membership::room).
    fn publish(&self, to: &To, frame: Bytes) -> Result<(), Full>;

    /// Waits until `publish` takes a frame again. Cancel-safe.
    async fn room(&self);

    /// Writes what changed here, all of it or nothing. Core has one call under way at a time. It may take as long as
    /// there is progress, and fails within seconds where there is none.
    ///
    /// The answer has one [`Registered`] for each of [`Changes::came`], in that order.
    ///
    /// # Errors
    /// Why it was not written, or why that is not known. Core answers any error with a whole
    /// [`replace`](Membership::replace), as soon as the directory is back.
    async fn write(&self, changes: &Changes) -> Result<Vec<Registered>, ClusterError>;

    /// Replaces everything that the directory has of this instance, answering as `write` does, and taking as long.
    ///
    /// # Errors
    /// Why it was not written, or why that is not known. Core tries again.
    async fn replace(&self, record: &Record) -> Result<Vec<Registered>, ClusterError>;

    /// Where these clients are, in the order asked.
    ///
    /// # Errors
    /// Why the directory does not answer.
    async fn locate(&self, clients: &[ClientId]) -> Result<Vec<Whereabouts>, ClusterError>;

    /// Which instances have members of these groups, in the order asked.
    ///
    /// # Errors
    /// Why the directory does not answer.
    async fn group_instances(&self, groups: &[Name]) -> Result<Vec<Vec<InstanceId>>, ClusterError>;

    /// What is known of a client; `None` where it is nowhere.
    ///
    /// # Errors
    /// Why the directory does not answer, or that it may not have everything: what was lost is being written again.
    async fn client(&self, client: ClientId) -> Result<Option<ClientInfo>, ClusterError>;

    /// A page of the clients of all *other* instances: about `limit` of them, from `cursor` on; `usize::MAX` for all.
    ///
    /// With a `group`, of its members alone.
    ///
    /// # Errors
    /// Why the directory does not answer.
    async fn clients(
        &self,
        group: Option<&Name>,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Page, ClusterError>;

    /// How many clients all *other* instances have.
    ///
    /// # Errors
    /// Why the directory does not answer.
    async fn count(&self) -> Result<Count, ClusterError>;

    /// How long a lease lasts: that of an instance, and that of a logic module that runs once.
    fn lease(&self) -> Duration;

    /// Renews the lease of a logic module that runs once, where this instance holds it with the token `held`; else, with
    /// `take`, takes it where nobody has it. Says who has it then.
    ///
    /// A token is the larger of the last one plus one and the time in microseconds. Who presents a larger one than is
    /// known, after a loss of data, has the lease. It is taken only where a loss of data would have been noticed: over a
    /// connection that has answered for a whole lease. What is answered has been confirmed as far as the
    /// implementation is asked to.
    ///
    /// # Errors
    /// Why it is not known. Whoever holds the lease goes on until it ends by its own clock, counted from the last call
    /// that was answered.
    async fn claim(
        &self,
        logic: &Name,
        held: Option<u64>,
        take: bool,
    ) -> Result<Claim, ClusterError>;

    /// Gives a lease back. One that is not held with this token stays.
    ///
    /// # Errors
    /// Why it may not have been given back; it then ends by itself.
    async fn release(&self, logic: &Name, token: u64) -> Result<(), ClusterError>;

    /// Leaves: carries what was published, removes the instance and its clients from the directory, and tells others.
    ///
    /// Bounded by its own time-outs; what cannot be told, others learn when the lease ends.
    async fn leave(&self);
}

/// Where a frame goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// Every instance. Whether it comes back to its origin too is up to the carrier.
    All,
    /// This instance, in this incarnation.
    Instance(InstanceId),
}

/// What changed on an instance since it wrote last. To be applied in the order of the fields, all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Clients that went. One whose registration is not that of the directory stays: it is another session's.
    pub went: Vec<(ClientId, Registration)>,
    /// Clients that came.
    pub came: Vec<Came>,
    /// What changed of clients that stay. To be ignored where the registration is not that of the directory.
    pub changed: Vec<Changed>,
    /// Groups whose last member here left.
    pub groups_lost: Vec<Name>,
    /// Groups whose first member here joined.
    pub groups_gained: Vec<Name>,
}

/// All that an instance has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its clients.
    pub clients: Vec<Came>,
    /// The groups that have members here.
    pub groups: Vec<Name>,
}

/// A client that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    /// What is to be known of it.
    pub info: ClientInfo,
    /// The registration that it was given before, which it keeps; `None` where one is to be drawn, newer than any
    /// that the directory has for this client.
    pub registration: Option<Registration>,
}

/// What changed of a client. Whole new values; `None` and empty for what stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The client.
    pub client: ClientId,
    /// The registration that this is about.
    pub registration: Registration,
    /// Its metadata, whole.
    pub metadata: Option<Arc<Metadata>>,
    /// Groups that it left. To be applied before those that it joined.
    pub left: Vec<Name>,
    /// Groups that it joined.
    pub joined: Vec<Name>,
    /// When its last message came, in milliseconds since 1970.
    pub last_message: Option<u64>,
}

/// Where a client is, as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// On this instance.
    At(InstanceId),
    /// On none.
    Nowhere,
    /// Not known yet: the directory does not have everything again that it lost. Core asks again, for as long as what
    /// waits for it may wait.
    Unknown,
}

impl From<Option<InstanceId>> for Whereabouts {
    fn from(at: Option<InstanceId>) -> Self {
        at.map_or(Self::Nowhere, Self::At)
    }
}

/// What became of a client that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is registered here.
    Here {
        /// The registration that it has from now on.
        registration: Registration,
        /// The instance that had it until now, where that is another one. Core tells it, and it closes its session.
        replaced: Option<InstanceId>,
    },
    /// It is registered on another instance, with a newer registration. Core closes the session here.
    Elsewhere {
        /// The newer registration.
        newer: Registration,
    },
}

/// Who has the lease of a logic module that runs once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The fencing token: that of the holder, or of the last one.
    pub token: u64,
    /// Who holds it, if anybody.
    pub holder: Option<InstanceId>,
}

/// The carrier's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the carrier's queue is full")]
pub struct Full;

/// Why the cluster could not be joined, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// It cannot be reached. What was under way may have happened or not.
    #[error("the cluster cannot be reached: {0}")]
    Unreachable(String),
    /// The directory does not have what was written before: everything has to be written again.
    #[error("the directory has lost what this instance wrote")]
    OutOfStep,
    /// This incarnation has been removed, or a newer one has its name.
    #[error("this incarnation of the instance is not in the cluster any more")]
    Expelled,
    /// It answers, and what it says cannot be worked with.
    #[error("the cluster refuses: {0}")]
    Refused(String),
    /// Anything else.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}
