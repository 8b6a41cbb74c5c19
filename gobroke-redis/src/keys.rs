//! [`Keys`]: what the keys and channels of a namespace are called.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use gobroke_core::{
    ClientId,
    cluster::{Incarnation, InstanceId, Registration, To},
};

/// In a Redis Cluster, where messages go: each origin has one of these trunks, a hash tag and its slot. The slots spread
/// evenly, so all nodes carry messages; and what one origin sends passes one node, in one order.
pub(crate) const TRUNKS: [(&str, u16); 16] = [
    ("u0", 511),
    ("qp", 1535),
    ("dj", 2562),
    ("wz", 3603),
    ("d2", 4607),
    ("pv", 5640),
    ("uh", 6658),
    ("iy", 7692),
    ("ly", 8697),
    ("h9", 9721),
    ("uv", 10749),
    ("q6", 11773),
    ("9s", 12793),
    ("qn", 13824),
    ("dt", 14845),
    ("ha", 15876),
];

/// Into how many parts the records of an instance's clients are split, so that each part of 100,000 is read by one
/// command, in far less than 5 ms, while others are asked for. A prime, so that all bits of a client's id count.
pub(crate) const PARTS: usize = 31;

/// In which part a client's record is, as the scripts have it: the sum of its id's four words, modulo [`PARTS`].
pub(crate) fn part_of(client: ClientId) -> usize {
    let (high, low) = client.as_uuid().as_u64_pair();
    let words = [high >> 32, high & 0xffff_ffff, low >> 32, low & 0xffff_ffff];
    (words.iter().sum::<u64>() % PARTS as u64) as usize
}

/// By what a channel's node is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Directory,
    Trunk(usize),
}

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
    /// Hash: those instances that are writing again what was lost.
    pub(crate) rewriting: String,
    /// Hash: logic module that runs once to its token, when it was renewed, and holder.
    pub(crate) singletons: String,
    /// Hash: client to registration and instance.
    pub(crate) places: String,
    /// Before an instance and a part: hash of the records of its clients; see [`part_of`].
    pub(crate) clients: String,
    /// Before an instance: set of the groups that have members there.
    pub(crate) groups: String,
    /// Before a group: set of the instances that have members.
    pub(crate) group: String,
    /// Channel: the list of instances changed.
    pub(crate) notices: String,
    namespace: String,
    /// Whether channels are those of a Redis Cluster: published to a shard, by the trunk of who publishes.
    sharded: bool,
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
            rewriting: key("rewriting"),
            singletons: key("singletons"),
            places: key("places"),
            clients: key("clients:"),
            groups: key("groups:"),
            group: key("group:"),
            notices: key("notices"),
            namespace: namespace.to_owned(),
            sharded: false,
        }
    }

    /// The same in a Redis Cluster.
    pub(crate) fn sharded(namespace: &str) -> Self {
        Self {
            sharded: true,
            ..Self::new(namespace)
        }
    }

    /// The command by which something is published.
    pub(crate) fn publish(&self) -> &'static str {
        match self.sharded {
            true => "SPUBLISH",
            false => "PUBLISH",
        }
    }

    /// On which node the channels are that an instance publishes to.
    pub(crate) fn trunk(&self, origin: &InstanceId) -> Place {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        match self.sharded {
            true => Place::Trunk((hasher.hash_one(origin) % TRUNKS.len() as u64) as usize),
            false => Place::Directory,
        }
    }

    /// All channels that an instance listens to, and on which node each is.
    pub(crate) fn heard(&self, by: &InstanceId) -> Vec<(Place, String)> {
        let places: Vec<Place> = match self.sharded {
            true => (0..TRUNKS.len()).map(Place::Trunk).collect(),
            false => vec![Place::Directory],
        };
        let to = [To::Instance(by.clone()), To::All];
        let channels = places.into_iter().flat_map(|place| {
            let to = to.each_ref();
            to.map(|to| (place, self.channel(place, to)))
        });
        let notices = (Place::Directory, self.notices.clone());
        channels.chain([notices]).collect()
    }

    /// The channel of a target, for who publishes on this trunk.
    pub(crate) fn channel(&self, trunk: Place, to: &To) -> String {
        let namespace = &self.namespace;
        let prefix = match trunk {
            Place::Directory => format!("{{{namespace}}}"),
            Place::Trunk(trunk) => format!("{{{}}}:{namespace}", TRUNKS[trunk].0),
        };
        match to {
            To::All => format!("{prefix}:all"),
            To::Instance(id) => format!("{prefix}:to:{}", instance(id)),
        }
    }

    /// Whether a channel is heard by all: that of one instance ends in an incarnation, whatever its name.
    pub(crate) fn is_to_all(channel: &str) -> bool {
        channel.ends_with(":all")
    }

    pub(crate) fn clients_of(&self, id: &str, part: usize) -> String {
        format!("{}{id}:{part}", self.clients)
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
    fn an_origin_publishes_where_others_listen() {
        let (origin, target) = (
            InstanceId::new("a", Incarnation::new(7, 7)),
            InstanceId::new("b:all", Incarnation::new(8, 8)),
        );
        for (keys, count) in [(Keys::new("x"), 3), (Keys::sharded("x"), 33)] {
            let heard = keys.heard(&target);
            assert_eq!(heard.len(), count);
            let trunk = keys.trunk(&origin);
            for to in [To::All, To::Instance(target.clone())] {
                let channel = keys.channel(trunk, &to);
                assert_eq!(Keys::is_to_all(&channel), to == To::All);
                assert!(heard.contains(&(trunk, channel)));
            }
        }
    }

    #[test]
    fn trunks_spread_evenly() {
        for (number, (tag, slot)) in TRUNKS.iter().enumerate() {
            assert_eq!(usize::from(*slot) / 1024, number);
            // As the specification of Redis Cluster has it: CRC-16/XMODEM, of 16,384 slots.
            let crc = tag.bytes().fold(0u16, |crc, byte| {
                (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
                    (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
                })
            });
            assert_eq!(crc % 16_384, *slot, "{tag}");
        }
        let keys = Keys::sharded("x");
        let used: std::collections::HashSet<_> = (0..1000)
            .map(
                |number| match keys.trunk(&InstanceId::new("a", Incarnation::new(number, 0))) {
                    Place::Trunk(trunk) => trunk,
                    Place::Directory => unreachable!("it is sharded"),
                },
            )
            .collect();
        assert_eq!(used.len(), TRUNKS.len());
    }

    #[test]
    fn namespaces_do_not_meet() {
        let (one, two) = (Keys::new("one"), Keys::new("one:two"));
        assert_ne!(one.clients_of("x", 0), two.clients_of("x", 0));
        assert!(one.places.starts_with("{one}:") && two.places.starts_with("{one:two}:"));
    }
}
