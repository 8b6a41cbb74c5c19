//! [`Local`]: what the link asks of the router.

use async_trait::async_trait;
use smallvec::SmallVec;

use crate::{
    ClientId, ClientInfo, Message, Name, Revocation,
    cluster::{InstanceId, Leaving, envelope::Command},
};

/// What an instance does with what comes from others. Nothing here sends to other instances what came from one.
#[async_trait]
pub(crate) trait Local: Send + Sync + 'static {
    /// Waits until there is room for a batch of arrivals: in lanes, never in logic. Cancel-safe.
    async fn room(&self);

    /// Runs a batch of arrivals as one turn.
    fn turn(&self, batch: &mut dyn FnMut());

    /// Routes a message to its targets, all of which are meant for here, and says which of them are not here.
    fn deliver(&self, message: Message) -> Missing;

    /// Does something with a client, and says whether it is here.
    fn command(&self, client: ClientId, command: Command) -> bool;

    /// The session `epoch` of a client has been replaced by a newer one on another instance: closes it.
    fn replaced(&self, client: ClientId, epoch: u64);

    /// This was revoked on another instance.
    fn revoked(&self, revocations: &[Revocation]);

    /// All clients, and the epochs of their sessions.
    fn snapshot(&self) -> Vec<(ClientInfo, u64)>;

    /// All groups with members.
    fn groups(&self) -> Vec<Name>;

    /// Whether a group has members.
    fn has_members(&self, group: &Name) -> bool;

    /// Whose last message came after this, in milliseconds since 1970, and when.
    fn heard_since(&self, unix_millis: u64) -> Vec<(ClientId, u64)>;

    /// An instance is there.
    fn instance_joined(&self, instance: &InstanceId);

    /// A logic module that runs once may have another holder.
    fn logic_moved(&self, logic: &Name);

    /// An instance is gone, and its clients with it. Told once for each incarnation.
    fn instance_left(&self, instance: &InstanceId, why: Leaving);
}

/// What a message was meant for, and is not here.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// Clients: the message goes back to its origin for them.
    pub(crate) clients: SmallVec<[ClientId; 1]>,
    /// The message, where clients are missing.
    pub(crate) message: Option<Message>,
    /// Groups without members: the origin is told.
    pub(crate) groups: SmallVec<[Name; 1]>,
}
