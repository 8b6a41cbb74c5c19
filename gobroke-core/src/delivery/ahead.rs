//! [`Ahead`]: what a direct message may pass by.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    entry::{Entry, Recipients},
    members::{List, Members},
    pass::Pass,
};
use crate::{client::ClientShared, registry::Group};

/// Whom the entries before one concern.
#[derive(Default)]
pub(super) struct Ahead {
    clients: SmallVec<[*const ClientShared; 16]>,
    groups: SmallVec<[*const Group; 8]>,
}

impl Ahead {
    /// Takes note of an entry that stays; true where it concerns everyone.
    pub(super) fn pass_by(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Message { to, .. } => match to {
                Recipients::Client(client) => self.clients.push(Arc::as_ptr(client)),
                Recipients::Group(group) => self.groups.push(Arc::as_ptr(group)),
                Recipients::Everyone => return true,
                Recipients::Many(many) => {
                    self.clients.extend(many.clients.iter().map(Arc::as_ptr));
                    self.groups.extend(many.groups.iter().map(Arc::as_ptr));
                    return many.everyone;
                }
            },
            Entry::Frame { client, .. }
            | Entry::Admit(client)
            | Entry::Join(client, _)
            | Entry::Leave(client, _)
            | Entry::Close(client, _)
            | Entry::Forget(client) => self.clients.push(Arc::as_ptr(client)),
        }
        false
    }

    /// The client of a direct message that nothing before it concerns.
    pub(super) fn free(
        &self,
        entry: &Entry,
        pass: &Pass,
        members: &Members,
    ) -> Option<Arc<ClientShared>> {
        let Entry::Message {
            to: Recipients::Client(client),
            ..
        } = entry
        else {
            return None;
        };
        let slot = Members::slot(client)?;
        let grouped = || {
            members.get(slot).is_some_and(|member| {
                member.lists().any(|list| match list {
                    List::Group(index) => members
                        .group_at(index)
                        .is_some_and(|group| self.groups.contains(&Arc::as_ptr(&group))),
                    List::Everyone => false,
                })
            })
        };
        let concerned = self.clients.contains(&Arc::as_ptr(client))
            || grouped()
            || pass.concerns(slot, members);
        (!concerned).then(|| client.clone())
    }
}
