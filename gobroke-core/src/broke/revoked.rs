//! What was revoked and has not ended by itself: [`RevocationList`], on every instance the same.

use std::{collections::HashMap, sync::Arc};

use super::router::Router;
use crate::{
    CloseReason, Grant, Reach, Refusal, Revocation, client::ClientShared, grant::Revoked,
    id::unix_millis, sync::Mutex,
};

/// How many revocations are remembered. Beyond that, those that end first are forgotten.
const MOST: usize = 65_536;
/// How many are told another instance at a time.
const TOLD: usize = 256;

/// Revocations, until the last token that they are about has ended.
#[derive(Debug, Default)]
pub(crate) struct RevocationList(Mutex<HashMap<Revoked, Times>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    issued_until: u64,
    until: u64,
}

impl RevocationList {
    /// Adds one. Says whether it says more than what was there.
    fn add(&self, revocation: &Revocation, now: u64) -> bool {
        let mut list = self.0.lock();
        if !list.contains_key(&revocation.of) && list.len() >= MOST {
            list.retain(|_, times| times.until > now);
            if list.len() >= MOST {
                tracing::warn!(
                    "{MOST} revocations are remembered; the one that ends first is forgotten"
                );
                let first = list.iter().min_by_key(|(_, times)| times.until);
                let first = first.map(|(of, _)| of.clone());
                first.and_then(|first| list.remove(&first));
            }
        }
        let times = list.entry(revocation.of.clone()).or_insert(Times {
            issued_until: 0,
            until: 0,
        });
        let before = *times;
        times.issued_until = before.issued_until.max(revocation.issued_until);
        times.until = before.until.max(revocation.until);
        *times != before
    }

    /// Whether it takes this grant back.
    pub(crate) fn has(&self, grant: &Grant) -> bool {
        let token = grant.token.clone().map(Revoked::Token);
        let subject = grant.subject.clone().map(Revoked::Subject);
        let list = self.0.lock();
        [token, subject].into_iter().flatten().any(|of| {
            let times = list.get(&of);
            times.is_some_and(|times| {
                grant.issued <= times.issued_until && times.until > unix_millis()
            })
        })
    }

    /// All of them.
    fn all(&self, now: u64) -> Vec<Revocation> {
        let mut list = self.0.lock();
        list.retain(|_, times| times.until > now);
        let all = list.iter().map(|(of, times)| Revocation {
            of: of.clone(),
            issued_until: times.issued_until,
            until: times.until,
        });
        all.collect()
    }
}

impl Reach {
    /// Takes back a token, or all that a subject was granted so far, on every instance: who was let in by it is closed, as
    /// [`Refused`](CloseReason::Refused), and who comes with it is refused with 401. Says how many clients of this
    /// instance are closed.
    ///
    /// Other instances learn it as soon as they can be reached, those that start later when they join. It is kept in
    /// memory, for 65,536 revocations at most: after a restart of all instances none is left, so let tokens end soon.
    pub fn revoke(&self, revocation: Revocation) -> usize {
        if !self.0.revocations.add(&revocation, unix_millis()) {
            return 0;
        }
        let closed = self.0.close_revoked(std::slice::from_ref(&revocation));
        if let Some(link) = self.0.link.get() {
            link.revoked(None, vec![revocation]);
        }
        closed
    }
}

impl Router {
    /// Another instance says what was revoked.
    pub(super) fn learn_revoked(&self, revocations: &[Revocation]) {
        let now = unix_millis();
        for revocation in revocations {
            self.revocations.add(revocation, now);
        }
        self.close_revoked(revocations);
    }

    /// Tells an instance that came what was revoked.
    pub(super) fn tell_revoked(&self, instance: &crate::cluster::InstanceId) {
        if let Some(link) = self.link.get() {
            for part in self.revocations.all(unix_millis()).chunks(TOLD) {
                link.revoked(Some(instance.clone()), part.to_vec());
            }
        }
    }

    fn close_revoked(&self, revocations: &[Revocation]) -> usize {
        let mut found = Vec::new();
        self.registry.for_each(|client| {
            let grant = client.state.lock().grant.clone();
            if grant.is_some_and(|grant| revocations.iter().any(|one| one.is_of(&grant))) {
                found.push(client.clone());
            }
        });
        for client in &found {
            self.close_as_revoked(client);
        }
        found.len()
    }

    /// Whether a grant is good now.
    pub(crate) fn check_grant(&self, grant: &Grant) -> Result<(), Refusal> {
        if grant.until.is_some_and(|until| until <= unix_millis()) {
            return Err(Refusal::unauthorized("this token has ended"));
        }
        if self.revocations.has(grant) {
            return Err(Refusal::unauthorized("this token was revoked"));
        }
        Ok(())
    }

    /// Closes a client whose grant was revoked while it could not be found.
    pub(crate) fn check_revoked(&self, client: &Arc<ClientShared>) {
        let grant = client.state.lock().grant.clone();
        if grant.is_some_and(|grant| self.revocations.has(&grant)) {
            self.close_as_revoked(client);
        }
    }

    fn close_as_revoked(&self, client: &Arc<ClientShared>) {
        self.close(client, CloseReason::Refused("revoked".into()));
    }
}

impl Revocation {
    fn is_of(&self, grant: &Grant) -> bool {
        let of = match &self.of {
            Revoked::Token(token) => grant.token.as_ref() == Some(token),
            Revoked::Subject(subject) => grant.subject.as_ref() == Some(subject),
        };
        of && grant.issued <= self.issued_until
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_revocation_holds_for_what_was_issued_before_and_as_long_as_it_has_to() {
        let list = RevocationList::default();
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        let old = Grant::of_subject("ann").token("1").issued(now - hour);
        let new = Grant::of_subject("ann").token("2").issued(now + hour);
        assert!(!list.has(&old));
        assert!(list.add(&Revocation::subject("ann"), 0));
        assert!(list.has(&old) && !list.has(&new) && !list.has(&Grant::of_subject("bob")));
        assert!(list.add(&Revocation::token("2").until(now + hour), 0));
        assert!(
            !list.add(&Revocation::token("2").until(now), 0),
            "it says less"
        );
        assert!(list.has(&new));
        assert!(list.add(&Revocation::token("3").until(now - hour), 0));
        assert!(!list.has(&Grant::new().token("3")), "it has ended");
        assert_eq!(list.all(unix_millis()).len(), 2);
    }
}
