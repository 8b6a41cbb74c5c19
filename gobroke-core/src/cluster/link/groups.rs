//! [`Groups`]: which instances have members of a group.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::cache::Cache;
use crate::{Name, cluster::InstanceId};

/// How many groups, and instances of them, are remembered.
const BOUND: usize = 131_072;
/// How many groups may be looked up at a time on behalf of commands; for messages, their own bound holds.
const LOADING: usize = 16_384;
/// How long an instance that was told to let a client join is not believed that it has no members: what it says may
/// be about a message before.
const EXPECTED: Duration = Duration::from_secs(2);

/// What is remembered of groups.
///
/// A group that is remembered is kept right by notes: instances say when their first member has joined. What a note
/// adds while a group is looked up is added to the answer. An instance that is addressed in vain says so.
#[derive(Debug)]
pub(super) struct Groups {
    known: Cache<Name, Vec<InstanceId>>,
    loading: HashMap<Name, Vec<InstanceId>>,
    /// Instances that were told to let a client join, and when.
    expected: HashMap<Name, Vec<(InstanceId, Instant)>>,
    /// How many groups are expected when the old ones are taken out.
    crowded: usize,
    /// Raised when notes may have been missed: what was asked before is not remembered.
    pub(super) era: u64,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self {
            known: Cache::new(BOUND, weight),
            loading: HashMap::new(),
            expected: HashMap::new(),
            crowded: 0,
            era: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&mut self, group: &str) -> Option<&[InstanceId]> {
        self.known.get(group).map(|instances| &**instances)
    }

    /// Notes that a group is looked up. Says whether it was not yet.
    pub(super) fn load(&mut self, group: &Name) -> bool {
        let new = !self.loading.contains_key(group);
        if new {
            self.loading.insert(group.clone(), Vec::new());
        }
        new
    }

    /// The answer to a look-up that was made in this era; gives back the instances.
    pub(super) fn loaded(
        &mut self,
        group: &Name,
        mut instances: Vec<InstanceId>,
        era: u64,
    ) -> Vec<InstanceId> {
        for added in self.loading.remove(group).unwrap_or_default() {
            add(&mut instances, &added);
        }
        if era == self.era {
            self.known.insert(group.clone(), instances.clone());
        }
        instances
    }

    /// An instance has members from now on. Those who do not care for the group ignore it.
    pub(super) fn gained(&mut self, group: &Name, instance: &InstanceId) {
        let known = self
            .known
            .change(&**group, |instances| add(instances, instance));
        if let Some(added) = self.loading.get_mut(group).filter(|_| !known) {
            add(added, instance);
        }
    }

    /// An instance is about to have a member, by a command that was sent to it: what is sent to the group afterwards
    /// goes there. Says whether the group has to be looked up for that.
    pub(super) fn expect(&mut self, group: &Name, instance: &InstanceId) -> bool {
        let now = Instant::now();
        if self.expected.len() >= self.crowded {
            self.expected.retain(|_, instances| {
                instances.retain(|(_, since)| now.duration_since(*since) < EXPECTED);
                !instances.is_empty()
            });
            self.crowded = 2 * self.expected.len() + 16;
        }
        let expected = self.expected.entry(group.clone()).or_default();
        expected.retain(|(known, _)| known != instance);
        expected.push((instance.clone(), now));
        let known = self.known.get(&**group).is_some();
        let load = !known && self.loading.len() < LOADING && self.load(group);
        self.gained(group, instance);
        load
    }

    /// An instance has no members.
    pub(super) fn vain(&mut self, group: &str, instance: &InstanceId) {
        let expected = self.expected.get(group).into_iter().flatten();
        if expected
            .filter(|(_, since)| since.elapsed() < EXPECTED)
            .any(|(known, _)| known == instance)
        {
            return;
        }
        self.known.change(group, |instances| {
            instances.retain(|known| known != instance);
        });
    }

    /// An instance is gone.
    pub(super) fn left(&mut self, instance: &InstanceId) {
        self.known.retain(|instances| {
            instances.retain(|known| known != instance);
            true
        });
        for added in self.loading.values_mut() {
            added.retain(|known| known != instance);
        }
    }

    /// Notes may have been missed.
    pub(super) fn forget(&mut self) {
        self.era += 1;
        self.known.clear();
    }
}

#[allow(clippy::ptr_arg, reason = "the cache asks with what it holds")]
fn weight(instances: &Vec<InstanceId>) -> usize {
    1 + instances.len()
}

fn add(instances: &mut Vec<InstanceId>, instance: &InstanceId) {
    if !instances.contains(instance) {
        instances.push(instance.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Incarnation;

    fn instance(name: &str) -> InstanceId {
        InstanceId::new(name, Incarnation::new(1, 0))
    }

    #[test]
    fn a_note_during_a_look_up_is_added_to_its_answer() {
        let (mut groups, room) = (Groups::new(), Name::from("room"));
        groups.gained(&room, &instance("ignored"));
        assert!(groups.load(&room));
        assert!(!groups.load(&room));
        groups.gained(&room, &instance("b"));
        groups.loaded(&room, vec![instance("a")], 0);
        assert_eq!(groups.get("room").unwrap(), [instance("a"), instance("b")]);
        groups.vain("room", &instance("a"));
        groups.gained(&room, &instance("c"));
        groups.left(&instance("b"));
        assert_eq!(groups.get("room").unwrap(), [instance("c")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_instance_says_of_before_a_join_that_it_was_told_of_is_not_believed() {
        let (mut groups, room) = (Groups::new(), Name::from("room"));
        groups.load(&room);
        groups.loaded(&room, vec![instance("a"), instance("b")], 0);
        assert!(!groups.expect(&room, &instance("a")));
        groups.vain("room", &instance("a"));
        groups.vain("room", &instance("b"));
        assert_eq!(groups.get("room").unwrap(), [instance("a")]);
        tokio::time::sleep(EXPECTED).await;
        groups.vain("room", &instance("a"));
        assert_eq!(groups.get("room").unwrap(), []);
    }

    #[test]
    fn what_was_asked_before_notes_were_missed_is_not_remembered() {
        let (mut groups, room) = (Groups::new(), Name::from("room"));
        groups.load(&room);
        groups.forget();
        assert_eq!(
            groups.loaded(&room, vec![instance("a")], 0),
            [instance("a")]
        );
        assert_eq!(groups.get("room"), None);
    }
}
