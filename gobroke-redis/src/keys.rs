//! [`Keys`]: what the keys and channels of a namespace are called.

use gobroke_core::cluster::{Incarnation, InstanceId, Registration, To};

/// The names of everything that a namespace has in Redis.
///
/// All keys carry one hash tag, so that one atomic script can use any of them, in a Redis Cluster too.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Hash: the epoch, the last number drawn, the last heartbeat, the version of the list of instances.
    pub(crate) state: String,
    /// Hash: name to incarnation.
    pub(crate) instances: String,
    /// Hash: name to the highest version of envelopes that it knows.
    pub(crate) versions: String,
    /// Sorted set: name by deadline, in milliseconds of Redis' clock.
    pub(crate) leases: String,
    /// Hash: instance to the number of its last batch.
    pub(crate) batches: String,
    /// Hash: instance to why and when it left.
    pub(crate) left: String,
    /// Hash: instance to the end of the claim to clean up after it.
    pub(crate) unswept: String,
    /// Hash: client to registration and instance.
    pub(crate) places: String,
    /// Before an instance: hash of its clients' records.
    pub(crate) clients: String,
    /// Before an instance: set of the groups that have members there.
    pub(crate) groups: String,
    /// Before a group: set of the instances that have members.
    pub(crate) group: String,
    /// Channel: to every instance.
    pub(crate) all: String,
    /// Channel: the list of instances changed.
    pub(crate) notices: String,
    /// Before an instance: the channel to it.
    to: String,
}

impl Keys {
    pub(crate) fn new(namespace: &str) -> Self {
        let key = |name: &str| format!("{{{namespace}}}:{name}");
        Self {
            state: key("state"),
            instances: key("instances"),
            versions: key("versions"),
            leases: key("leases"),
            batches: key("batches"),
            left: key("left"),
            unswept: key("unswept"),
            places: key("places"),
            clients: key("clients:"),
            groups: key("groups:"),
            group: key("group:"),
            all: key("all"),
            notices: key("notices"),
            to: key("to:"),
        }
    }

    /// The channel of a target.
    pub(crate) fn channel(&self, to: &To) -> String {
        match to {
            To::All => self.all.clone(),
            To::Instance(id) => format!("{}{}", self.to, instance(id)),
        }
    }

    pub(crate) fn clients_of(&self, id: &str) -> String {
        format!("{}{id}", self.clients)
    }

    pub(crate) fn groups_of(&self, id: &str) -> String {
        format!("{}{id}", self.groups)
    }
}

/// An incarnation as it is written: its number and nonce.
pub(crate) fn incarnation(incarnation: Incarnation) -> String {
    format!("{}.{:x}", incarnation.number(), incarnation.nonce())
}

/// An instance as it is written: `name#number.nonce`.
pub(crate) fn instance(id: &InstanceId) -> String {
    format!("{}#{}", id.name, incarnation(id.incarnation))
}

/// A registration as it is written.
pub(crate) fn registration(registration: Registration) -> String {
    format!("{}.{:x}", registration.number(), registration.nonce())
}

fn parse_drawn(text: &str) -> Option<(u64, u32)> {
    let (number, nonce) = text.split_once('.')?;
    Some((number.parse().ok()?, u32::from_str_radix(nonce, 16).ok()?))
}

pub(crate) fn parse_incarnation(text: &str) -> Option<Incarnation> {
    parse_drawn(text).map(|(number, nonce)| Incarnation::new(number, nonce))
}

pub(crate) fn parse_registration(text: &str) -> Option<Registration> {
    parse_drawn(text).map(|(number, nonce)| Registration::new(number, nonce))
}

pub(crate) fn parse_instance(text: &str) -> Option<InstanceId> {
    let (name, incarnation) = text.rsplit_once('#')?;
    Some(InstanceId::new(name, parse_incarnation(incarnation)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let id = InstanceId::new("a#b c", Incarnation::new(1_763_940_000_000_000, 0xbeef));
        assert_eq!(instance(&id), "a#b c#1763940000000000.beef");
        assert_eq!(parse_instance(&instance(&id)), Some(id));
        let newest = Registration::new(u64::MAX, u32::MAX);
        assert_eq!(parse_registration(&registration(newest)), Some(newest));
        for bad in ["", "a", "a#", "a#1", "a#1.x", "#.", "a#-1.0"] {
            assert_eq!(parse_instance(bad), None, "{bad}");
        }
    }

    #[test]
    fn namespaces_do_not_meet() {
        let (one, two) = (Keys::new("one"), Keys::new("one:two"));
        assert_ne!(one.clients_of("x"), two.clients_of("x"));
        assert!(one.places.starts_with("{one}:") && two.places.starts_with("{one:two}:"));
    }
}
