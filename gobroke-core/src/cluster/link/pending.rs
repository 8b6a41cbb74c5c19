//! [`Pending`]: what is to be sent, until it is known to which instances.

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{
    ClientId, Message, Name, Source, Target, Targets,
    cluster::{
        InstanceId, To,
        envelope::{Cargo, Command, Content, Load},
    },
};

/// What a look-up is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Client(ClientId),
    Group(Name),
}

/// Contents and where they go: at most one for each instance.
pub(super) type Parts = SmallVec<[(To, Content); 1]>;

/// What is ready to be sent.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) parts: Parts,
    pub(super) share: Share,
}

/// What a parcel takes of the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) weight: usize,
    /// Whether it counts against the room that doors wait for: not what has waited since the cluster was away.
    pub(super) pressing: bool,
}

/// What waits for its own look-ups, or behind those of its sender.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) job: Job,
    /// How many keys it waits for.
    pub(super) missing: usize,
    pub(super) since: Instant,
    pub(super) share: Share,
}

#[derive(Debug)]
pub(super) enum Job {
    /// Known where it goes; it keeps its place behind others of its sender.
    Ready(Parts),
    Resolving(Resolving),
}

/// A message or a command, and what is known of where its targets are.
#[derive(Debug)]
pub(super) struct Resolving {
    pub(super) load: Load,
    pub(super) redirected: bool,
    /// The instance that handed it back: the targets are not there, whatever the directory says.
    pub(super) not_at: Option<InstanceId>,
    pub(super) at: SmallVec<[(InstanceId, Targets); 1]>,
    /// Groups, with what was found for them. They are placed last, when it is its turn: a join that was sent before
    /// it, by the same sender, may have brought a group to one more instance.
    pub(super) groups: Vec<(Name, Vec<InstanceId>)>,
    /// How many clients are nowhere.
    pub(super) unknown: u64,
}

impl Resolving {
    pub(super) fn new(load: Load) -> Self {
        Self {
            load,
            redirected: false,
            not_at: None,
            at: SmallVec::new(),
            groups: Vec::new(),
            unknown: 0,
        }
    }

    /// Takes the answer of a look-up, or of the caches: where a key is.
    pub(super) fn found(&mut self, key: &Key, instances: &[InstanceId]) {
        match key {
            Key::Group(name) => self.groups.push((name.clone(), instances.to_vec())),
            Key::Client(id) => {
                let elsewhere = |instance: &&InstanceId| self.not_at.as_ref() != Some(*instance);
                match instances.iter().find(elsewhere).cloned() {
                    Some(instance) => self.place(Target::Client(*id), &instance),
                    None => self.unknown += 1,
                }
            }
        }
    }

    /// One of its targets is there.
    pub(super) fn place(&mut self, target: Target, instance: &InstanceId) {
        match self.at.iter_mut().find(|(known, _)| known == instance) {
            Some((_, targets)) => targets.push(target),
            None => self.at.push((instance.clone(), target.into())),
        }
    }

    /// To how many instances it goes, as far as is known.
    pub(super) fn instances(&self, me: &InstanceId) -> usize {
        let groups = self.groups.iter().flat_map(|(_, instances)| instances);
        let groups = groups.filter(|instance| *instance != me);
        let mut new: SmallVec<[&InstanceId; 4]> = SmallVec::new();
        for instance in groups {
            if !self.at.iter().any(|(known, _)| known == instance) && !new.contains(&instance) {
                new.push(instance);
            }
        }
        self.at.len() + new.len()
    }

    /// What goes where.
    pub(super) fn parts(self) -> Parts {
        let Self {
            load,
            redirected,
            mut at,
            ..
        } = self;
        let Some((last, targets)) = at.pop() else {
            return Parts::new();
        };
        let part = |instance, load: Load, targets| {
            let cargo = Cargo {
                redirected,
                native: is_native(&load),
                load: match load {
                    Load::Message(message) => Load::Message(for_targets(message, targets)),
                    command @ Load::Command { .. } => command,
                },
            };
            (To::Instance(instance), Content::Cargo(cargo))
        };
        let others = at.into_iter();
        let mut parts: Parts = others
            .map(|(instance, targets)| part(instance, load.clone(), targets))
            .collect();
        parts.push(part(last, load, targets));
        parts
    }
}

/// A message to everyone.
pub(super) fn to_all(message: Message) -> Parts {
    let load = Load::Message(for_targets(message, Target::All.into()));
    let cargo = Cargo {
        redirected: false,
        native: is_native(&load),
        load,
    };
    std::iter::once((To::All, Content::Cargo(cargo))).collect()
}

/// A command for a client.
pub(super) fn command(source: &Source, client: ClientId, command: Command) -> Load {
    Load::Command {
        source: source.clone(),
        client,
        command,
    }
}

/// The message, for these of its targets; who is left out stays so.
pub(super) fn for_targets(mut message: Message, mut targets: Targets) -> Message {
    targets.except_as(message.targets());
    *message.targets_mut() = targets;
    message
}

/// Whether the source is here, as far as can be seen: what came from another instance and is passed on is not.
fn is_native(load: &Load) -> bool {
    match load {
        Load::Message(message) => message.instance().is_none(),
        Load::Command { .. } => false,
    }
}
