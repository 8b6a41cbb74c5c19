//! Where a message goes.

use std::sync::Arc;

use crate::{ClientId, Name};

/// One place that a message goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every client.
    All,
    /// One client.
    Client(ClientId),
    /// Every client that joined the group.
    Group(Name),
    /// A logic module.
    Logic(Name),
}

/// The places that a message goes to: any mix of clients, groups, all, and logic modules, and who is left out.
///
/// A client that several targets include gets the message once. Cloning copies no list.
#[derive(Clone, Debug)]
pub struct Targets {
    list: List,
    /// The usual one left out: the sender. Nil for none, which spares the eight bytes that keep a message small enough
    /// to be moved without a call.
    except: ClientId,
}

impl Default for Targets {
    fn default() -> Self {
        List::Empty.into()
    }
}

#[derive(Clone, Debug, Default)]
enum List {
    #[default]
    Empty,
    One(Target),
    Many(Arc<Many>),
}

#[derive(Clone, Debug, Default)]
struct Many {
    targets: Vec<Target>,
    /// Those left out beside `Targets::except`.
    except: Vec<ClientId>,
}

impl Targets {
    /// The targets, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.as_slice().iter()
    }

    /// The clients that are left out.
    pub fn excluded(&self) -> impl Iterator<Item = ClientId> {
        let more: &[ClientId] = match &self.list {
            List::Many(many) => &many.except,
            _ => &[],
        };
        let first = (self.except != ClientId::NIL).then_some(self.except);
        first.into_iter().chain(more.iter().copied())
    }

    /// Whether a client is left out.
    pub(crate) fn excludes_any(&self) -> bool {
        let more = matches!(&self.list, List::Many(many) if !many.except.is_empty());
        more || self.except != ClientId::NIL
    }

    /// The client, where it goes to one alone.
    pub(crate) fn one_client(&self) -> Option<ClientId> {
        match &self.list {
            List::One(Target::Client(id)) if self.except == ClientId::NIL => Some(*id),
            _ => None,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Whether a logic module is among them.
    pub fn has_logic(&self) -> bool {
        self.iter().any(|target| matches!(target, Target::Logic(_)))
    }

    /// Adds one, unless it is there.
    pub fn add(&mut self, target: Target) {
        if !self.as_slice().contains(&target) {
            self.push(target);
        }
    }

    /// Adds one that is not there.
    pub(crate) fn push(&mut self, target: Target) {
        match self.list {
            List::Empty => self.list = List::One(target),
            _ => self.many().targets.push(target),
        }
    }

    /// The lists, to be changed.
    fn many(&mut self) -> &mut Many {
        if !matches!(self.list, List::Many(_)) {
            let mut targets = Vec::new();
            if let List::One(first) = std::mem::take(&mut self.list) {
                // With room for the one that most often comes next, so that it is allocated once.
                targets.reserve_exact(2);
                targets.push(first);
            }
            let except = Vec::new();
            self.list = List::Many(Arc::new(Many { targets, except }));
        }
        match &mut self.list {
            List::Many(many) => Arc::make_mut(many),
            _ => unreachable!("it has just been put there"),
        }
    }

    /// Leaves a client out.
    pub fn exclude(&mut self, client: ClientId) {
        if self.excluded().any(|known| known == client) {
            return;
        }
        if self.except == ClientId::NIL {
            self.except = client;
        } else {
            self.many().except.push(client);
        }
    }

    /// Leaves out whom `other` does, where nobody is left out yet: in one step however many.
    pub(crate) fn except_as(&mut self, other: &Self) {
        self.except = other.except;
        match &other.list {
            List::Many(many) if !many.except.is_empty() => {
                self.many().except.clone_from(&many.except);
            }
            _ => {}
        }
    }

    /// Targets of which each is there once already: what comes from another instance, in one step however many.
    pub(crate) fn from_lists(mut targets: Vec<Target>, mut except: Vec<ClientId>) -> Self {
        let first = if except.is_empty() {
            ClientId::NIL
        } else {
            except.remove(0)
        };
        let list = match (targets.len(), except.is_empty()) {
            (0, true) => List::Empty,
            (1, true) => targets.pop().map_or(List::Empty, List::One),
            _ => List::Many(Arc::new(Many { targets, except })),
        };
        Self {
            list,
            except: first,
        }
    }

    /// Takes all targets and exceptions away: what `broadcast` begins with.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The targets as a slice, in the order in which they were added.
    pub fn as_slice(&self) -> &[Target] {
        match &self.list {
            List::Empty => &[],
            List::One(target) => std::slice::from_ref(target),
            List::Many(many) => &many.targets,
        }
    }
}

impl From<Target> for Targets {
    fn from(target: Target) -> Self {
        List::One(target).into()
    }
}

impl From<List> for Targets {
    fn from(list: List) -> Self {
        Self {
            list,
            except: ClientId::NIL,
        }
    }
}

impl FromIterator<Target> for Targets {
    fn from_iter<I: IntoIterator<Item = Target>>(targets: I) -> Self {
        let mut list = Self::default();
        for target in targets {
            list.add(target);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_counts_once_and_keeps_its_place() {
        let client = Target::Client(ClientId::new());
        let all = [Target::All, client.clone(), Target::Logic("chat".into())];
        let targets: Targets = all.iter().cloned().chain([client]).collect();
        assert_eq!(targets.as_slice(), &all);
    }

    #[test]
    fn lists_are_taken_as_they_are() {
        let clients: Vec<_> = (0..3).map(|_| ClientId::new()).collect();
        for count in 0..3 {
            let list: Vec<_> = clients[..count]
                .iter()
                .map(|client| Target::Client(*client))
                .collect();
            let targets = Targets::from_lists(list.clone(), clients[..count].to_vec());
            assert_eq!(targets.as_slice(), &list);
            assert_eq!(targets.excluded().collect::<Vec<_>>(), &clients[..count]);
        }
    }

    #[test]
    fn whom_others_leave_out_is_left_out_whatever_the_targets_are() {
        let clients: Vec<_> = (0..3).map(|_| ClientId::new()).collect();
        for left_out in 0..3 {
            let other = Targets::from_lists(vec![Target::All], clients[..left_out].to_vec());
            for count in 0..3 {
                let list: Vec<_> = clients[..count]
                    .iter()
                    .map(|client| Target::Client(*client))
                    .collect();
                let mut targets = Targets::from_lists(list.clone(), Vec::new());
                targets.except_as(&other);
                assert_eq!(targets.as_slice(), &list);
                assert!(targets.excluded().eq(other.excluded()));
            }
        }
    }

    #[test]
    fn any_number_of_clients_can_be_left_out() {
        let clients: Vec<_> = (0..4).map(|_| ClientId::new()).collect();
        let mut targets = Targets::from(Target::All);
        for client in clients.iter().chain(&clients) {
            targets.exclude(*client);
        }
        assert_eq!(targets.excluded().collect::<Vec<_>>(), clients);
        assert_eq!(targets.as_slice(), &[Target::All]);
    }
}
