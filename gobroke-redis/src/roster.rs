//! [`Roster`]: who is in the cluster, as this instance has told its core.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use gobroke_core::cluster::{InstanceId, Leaving, Notice};
use tokio::time::Instant;

/// How many of those that left are remembered, so that what they left behind is not taken for them.
const REMEMBERED: usize = 1024;

/// The list of instances, and what follows from its changes.
///
/// After a loss of data the list fills again as instances come back: whoever was there has a lease's time for it.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    known: BTreeSet<InstanceId>,
    /// Those in the list, and the highest version of envelopes that each of them knows.
    listed: BTreeMap<InstanceId, u8>,
    /// Those that left, newest last.
    gone: HashSet<InstanceId>,
    order: VecDeque<InstanceId>,
    /// Until then, nobody is gone for not being listed.
    grace: Option<Instant>,
    /// Others are writing again what was lost.
    pub(crate) rewriting: bool,
    /// Until then, what is written may be of somebody who has left long since.
    distrusted: Option<Instant>,
    /// When somebody was heard of last who is not in a list that was asked for before.
    heard: Option<Instant>,
    /// Since when the list has somebody who has left, as core was told.
    risen: Option<Instant>,
}

impl Roster {
    /// What was written is lost: who was there may come back until then.
    pub(crate) fn lost(&mut self, now: Instant, lease: Duration) {
        // Older data is cleaned up a lease after it was found.
        self.distrusted = Some(now + 2 * lease);
        if !self.known.is_empty() {
            self.grace = Some(now + lease);
        }
    }

    /// Somebody joined, as a notice says. Says whether that is new.
    pub(crate) fn heard(
        &mut self,
        joined: InstanceId,
        version: u8,
        now: Instant,
    ) -> Option<Notice> {
        let predecessor = self.known.iter().any(|known| known.name == joined.name);
        // Its predecessor leaves before it comes, as the list will tell.
        if predecessor || self.gone.contains(&joined) {
            return None;
        }
        self.heard = Some(now);
        self.known.insert(joined.clone());
        self.listed.insert(joined.clone(), version);
        Some(Notice::Joined(joined, version))
    }

    /// Whether a list that was asked for at this time may be older than what has been heard.
    pub(crate) fn is_newer_than(&self, asked: Instant) -> bool {
        self.heard.is_some_and(|heard| heard >= asked)
    }

    /// Takes the list as it is now, this instance left out, and why those left that left lately.
    pub(crate) fn listed(
        &mut self,
        listed: BTreeMap<InstanceId, u8>,
        why: &HashMap<InstanceId, Leaving>,
        now: Instant,
    ) -> Vec<Notice> {
        self.listed = listed;
        self.update(why, now)
    }

    /// Says what is new, the list being as it was.
    pub(crate) fn update(
        &mut self,
        why: &HashMap<InstanceId, Leaving>,
        now: Instant,
    ) -> Vec<Notice> {
        let waits = self.grace.is_some_and(|grace| now < grace);
        if !waits || self.known.iter().all(|id| self.listed.contains_key(id)) {
            self.grace = None;
        }
        let mut notices = Vec::new();
        let by_name: BTreeMap<_, _> = self.listed.keys().map(|id| (&id.name, id)).collect();
        let mut left = Vec::new();
        for id in self.known.iter().filter(|id| !self.listed.contains_key(id)) {
            // Older data has older incarnations.
            let successor = by_name.get(&id.name).filter(|listed| **listed > id);
            let successor = successor.map(|_| Leaving::Replaced);
            match why.get(id).copied().or(successor) {
                Some(why) => left.push((id.clone(), why)),
                None if waits => {}
                None => left.push((id.clone(), Leaving::Expired)),
            }
        }
        for (id, why) in left {
            self.known.remove(&id);
            self.remember(id.clone());
            notices.push(Notice::Left(id, why));
        }
        for (id, version) in &self.listed {
            let stays = self.known.iter().any(|known| known.name == id.name);
            // Who has left, of an incarnation, does not come back in it.
            if !stays && !self.gone.contains(id) {
                self.known.insert(id.clone());
                notices.push(Notice::Joined(id.clone(), *version));
            }
        }
        let risen = self.listed.keys().any(|id| self.gone.contains(id));
        self.risen = risen.then(|| self.risen.unwrap_or(now));
        notices
    }

    fn remember(&mut self, id: InstanceId) {
        if self.gone.insert(id.clone()) {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    /// Whether somebody who was taken for gone has been in the list for two leases, and so is there.
    pub(crate) fn has_been_wrong(&self, now: Instant, lease: Duration) -> bool {
        let long = |since| now.duration_since(since) > 2 * lease;
        self.risen.is_some_and(long)
    }

    /// Whether it is known to have left.
    pub(crate) fn has_left(&self, id: &InstanceId) -> bool {
        self.gone.contains(id)
    }

    /// Whether what is written of an instance is to be believed: somebody of whom nothing was heard may be new, but not
    /// where older data has come back.
    pub(crate) fn believes(&self, id: &InstanceId, now: Instant) -> bool {
        match self.distrusted.is_some_and(|end| now < end) {
            true => self.known.contains(id),
            false => !self.gone.contains(id),
        }
    }

    /// Whether what was there before a loss of data may not be there again yet.
    pub(crate) fn is_awaiting(&self, now: Instant) -> bool {
        self.rewriting || self.grace.is_some_and(|end| now < end)
    }

    /// The others, in order.
    pub(crate) fn others(&self) -> &BTreeSet<InstanceId> {
        &self.known
    }
}

#[cfg(test)]
mod tests {
    use gobroke_core::cluster::Incarnation;

    use super::*;

    fn id(name: &str, number: u64) -> InstanceId {
        InstanceId::new(name, Incarnation::new(number, 0))
    }

    fn list<const N: usize>(ids: [&InstanceId; N]) -> BTreeMap<InstanceId, u8> {
        ids.into_iter().map(|id| (id.clone(), 1)).collect()
    }

    #[test]
    fn comings_and_goings_follow_from_the_list_once() {
        let (mut roster, now, none) = (Roster::default(), Instant::now(), HashMap::new());
        let (a, b, b2) = (id("a", 1), id("b", 1), id("b", 2));
        let joined = |id: &InstanceId| Notice::Joined(id.clone(), 1);
        assert_eq!(
            roster.listed(list([&a, &b]), &none, now),
            [joined(&a), joined(&b)]
        );
        assert_eq!(roster.listed(list([&a, &b]), &none, now), []);
        let replaced = Notice::Left(b.clone(), Leaving::Replaced);
        assert_eq!(
            roster.listed(list([&a, &b2]), &none, now),
            [replaced, joined(&b2)]
        );
        let why = HashMap::from([(a.clone(), Leaving::Stopped)]);
        assert_eq!(
            roster.listed(list([&b2]), &why, now),
            [Notice::Left(a.clone(), Leaving::Stopped)]
        );
        assert_eq!(
            roster.listed(list([]), &none, now),
            [Notice::Left(b2.clone(), Leaving::Expired)]
        );
        assert!(roster.has_left(&a) && roster.has_left(&b2) && roster.others().is_empty());
    }

    #[test]
    fn who_is_heard_of_is_there_and_an_older_list_does_not_take_it_away() {
        let (mut roster, now, none) = (Roster::default(), Instant::now(), HashMap::new());
        let (a, a2, b) = (id("a", 1), id("a", 2), id("b", 1));
        roster.listed(list([&a]), &none, now);
        assert_eq!(
            roster.heard(b.clone(), 1, now),
            Some(Notice::Joined(b.clone(), 1))
        );
        assert_eq!(roster.heard(b.clone(), 1, now), None);
        assert!(roster.is_newer_than(now) && !roster.is_newer_than(now + Duration::from_millis(1)));
        assert_eq!(
            roster.heard(a2.clone(), 1, now),
            None,
            "its predecessor leaves first"
        );
        assert_eq!(roster.listed(list([&a, &b]), &none, now), []);
        let replaced = Notice::Left(a, Leaving::Replaced);
        assert_eq!(
            roster.listed(list([&a2, &b]), &none, now),
            [replaced, Notice::Joined(a2, 1)]
        );
    }

    #[test]
    fn after_a_loss_of_data_others_have_a_lease_to_come_back() {
        let (mut roster, now, none) = (Roster::default(), Instant::now(), HashMap::new());
        let lease = Duration::from_secs(15);
        let (a, b) = (id("a", 1), id("b", 1));
        roster.listed(list([&a, &b]), &none, now);
        roster.lost(now, lease);
        assert_eq!(roster.listed(list([]), &none, now), []);
        assert_eq!(roster.listed(list([&b]), &none, now + lease / 2), []);
        assert!(roster.is_awaiting(now + lease / 2));
        let gone = Notice::Left(a, Leaving::Expired);
        assert_eq!(roster.update(&none, now + lease), [gone]);
        assert_eq!(roster.others(), &BTreeSet::from([b]));
    }

    #[test]
    fn after_a_loss_of_data_nobody_is_believed_in_who_is_not_known() {
        let (mut roster, now, none) = (Roster::default(), Instant::now(), HashMap::new());
        let (a, stranger, lease) = (id("a", 1), id("b", 1), Duration::from_secs(15));
        roster.listed(list([&a]), &none, now);
        assert!(roster.believes(&a, now) && roster.believes(&stranger, now));
        roster.lost(now, lease);
        assert!(roster.believes(&a, now) && !roster.believes(&stranger, now));
        assert!(roster.believes(&stranger, now + 2 * lease));
    }

    #[test]
    fn an_older_incarnation_in_older_data_replaces_nobody() {
        let (mut roster, now, none) = (Roster::default(), Instant::now(), HashMap::new());
        let (older, newer) = (id("a", 1), id("a", 2));
        roster.listed(list([&newer]), &none, now);
        roster.lost(now, Duration::from_secs(15));
        assert_eq!(roster.listed(list([&older]), &none, now), []);
        assert_eq!(roster.listed(list([&newer]), &none, now), []);
        assert_eq!(roster.others(), &BTreeSet::from([newer]));
    }

    #[test]
    fn who_left_stays_away_and_being_wrong_about_it_shows_when_its_lease_is_renewed() {
        let (mut roster, now, none) = (Roster::default(), Instant::now(), HashMap::new());
        let (a, lease) = (id("a", 1), Duration::from_secs(15));
        roster.listed(list([&a]), &none, now);
        let gone = Notice::Left(a.clone(), Leaving::Expired);
        assert_eq!(roster.listed(list([]), &none, now), [gone]);
        // A failover that lost its removal: its lease ends once more.
        assert_eq!(roster.listed(list([&a]), &none, now), []);
        assert!(!roster.has_been_wrong(now + lease, lease));
        roster.listed(list([]), &none, now + lease);
        assert!(!roster.has_been_wrong(now + 3 * lease, lease));
        roster.listed(list([&a]), &none, now + 3 * lease);
        assert_eq!(roster.update(&none, now + 6 * lease), []);
        assert!(roster.has_been_wrong(now + 6 * lease, lease));
    }
}
