//! [`Permit`]: room for one message, taken before anything of it is queued anywhere.

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    Shared,
    outgoing::{Handed, Outgoing},
    pending::{Key, Resolving, Share, for_targets, to_all},
};
use crate::{
    ClientId, Message, Name, Target,
    cluster::{
        InstanceId, To,
        envelope::{Cargo, Content, Load},
    },
};

/// Room that is reserved for a message, so that sending it cannot fail any more. Dropping it gives the room back.
pub(crate) struct Permit<'a> {
    pub(super) shared: &'a Shared,
    /// `None` while the cluster is away and no room is left: the message is dropped and counted.
    pub(super) share: Option<Share>,
}

/// The targets of a message that are not here, or not only.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    /// Clients that are not here.
    pub(crate) clients: SmallVec<[ClientId; 1]>,
    pub(crate) groups: SmallVec<[Name; 1]>,
    pub(crate) all: bool,
}

impl Remote {
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.groups.is_empty() && !self.all
    }
}

impl Permit<'_> {
    /// Sends a message to those of its targets that are elsewhere; `message` says who is left out.
    /// `logic` is the module that sends it.
    pub(crate) fn send(self, message: Message, remote: Remote, logic: Option<&Name>) -> Handed {
        if remote.all {
            // Whoever and whatever group is addressed beside everyone is part of everyone.
            return self.commit(|outgoing, share, now| {
                if outgoing.instances.is_empty() {
                    return None;
                }
                let Some(share) = share else {
                    outgoing.counts.dropped += u64::from(outgoing.reach(&To::All));
                    return None;
                };
                let sender = outgoing.sender(message.source(), logic);
                Some(outgoing.send(&sender, to_all(message), share, now))
            });
        }
        let clients = remote.clients.into_iter().map(Key::Client);
        let keys = clients.chain(remote.groups.into_iter().map(Key::Group));
        self.resolve(Resolving::new(Load::Message(message)), keys, logic)
    }

    /// Sends a message to a logic module of this instance, and to nothing else.
    pub(super) fn carry(self, message: &Message, logic: &Name, to: &InstanceId) {
        let mut carried = for_targets(message.clone(), Target::Logic(logic.clone()).into());
        carried.set_hops(message.hops().saturating_add(1));
        let cargo = Cargo {
            redirected: false,
            native: message.instance().is_none(),
            load: Load::Message(carried),
        };
        let parts = std::iter::once((To::Instance(to.clone()), Content::Cargo(cargo))).collect();
        let source = message.source();
        self.commit(|outgoing, share, now| {
            let Some(share) = share else {
                outgoing.counts.dropped += 1;
                return None;
            };
            Some(outgoing.send(source, parts, share, now))
        });
    }

    pub(super) fn resolve(
        self,
        resolving: Resolving,
        keys: impl IntoIterator<Item = Key>,
        logic: Option<&Name>,
    ) -> Handed {
        self.commit(|outgoing, share, now| {
            let Some(share) = share else {
                outgoing.drop_unsent(resolving, keys);
                return None;
            };
            let sender = outgoing.sender(resolving.load.source(), logic);
            Some(outgoing.resolve(&sender, resolving, keys, share, now))
        })
    }

    /// Uses the share: `send` takes it over, or says with `None` that nothing is sent; where there is none, it counts
    /// what it drops.
    fn commit(
        mut self,
        send: impl FnOnce(&mut Outgoing, Option<Share>, Instant) -> Option<Handed>,
    ) -> Handed {
        let now = Instant::now();
        let mut outgoing = self.shared.lock();
        let Some(handed) = send(&mut outgoing, self.share, now) else {
            return Handed::default();
        };
        self.share = None;
        outgoing.flush(now);
        self.shared.wake(&outgoing);
        handed
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(share) = self.share.filter(|share| share.pressing) {
            self.shared.room.release(1, share.weight);
        }
    }
}
