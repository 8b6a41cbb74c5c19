//! What is written into the directory: batches, each of them one script, each naming the one before.

use std::collections::HashSet;

use gobroke_core::{
    ClientId, Name,
    cluster::{Came, Changed, Changes, ClusterError, Record, Registered, Registration},
};
use redis::ScriptInvocation;

use super::record;
use crate::{
    config::CHUNK,
    instance::Instance,
    keys::{self, PARTS, parse_instance, parse_registration},
    script,
};

/// What one script writes.
#[derive(Clone, Copy, Default)]
struct Batch<'a> {
    went: &'a [(ClientId, Registration)],
    came: &'a [Came],
    changed: &'a [Changed],
    lost: &'a [Name],
    gained: &'a [Name],
}

/// The position of a batch among others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// It follows whatever there is.
    First,
    Behind,
    /// With it, everything is written that the instance has.
    Last,
}

/// Writes what changed. Many changes take several scripts, none of which holds up Redis for long; where one of them
/// fails, core writes everything again.
pub(super) async fn changes(
    instance: &Instance,
    changes: &Changes,
) -> Result<Vec<Registered>, ClusterError> {
    let mut answers = Vec::with_capacity(changes.came.len());
    let all = Batch {
        went: &changes.went,
        came: &changes.came,
        changed: &changes.changed,
        lost: &changes.groups_lost,
        gained: &changes.groups_gained,
    };
    for batch in all.split() {
        answers.extend(write(instance, batch, Position::Behind).await?);
    }
    Ok(answers)
}

/// Writes everything over what is there, then takes away what should not be. What stays the same is never missing.
pub(super) async fn replace(
    instance: &Instance,
    all: &Record,
) -> Result<Vec<Registered>, ClusterError> {
    // The first batch follows whatever there is.
    let mut answers = write(instance, Batch::default(), Position::First).await?;
    let (strangers, lost) = surplus(instance, all).await?;
    let rest = Batch {
        went: &strangers,
        came: &all.clients,
        lost: &lost,
        gained: &all.groups,
        ..Batch::default()
    };
    let mut batches = rest.split().into_iter().peekable();
    while let Some(batch) = batches.next() {
        let position = match batches.peek() {
            Some(_) => Position::Behind,
            None => Position::Last,
        };
        answers.extend(write(instance, batch, position).await?);
    }
    instance.standing.lock().told = false;
    Ok(answers)
}

/// What the directory has of this instance and should not: clients with their registrations, and groups.
async fn surplus(
    instance: &Instance,
    all: &Record,
) -> Result<(Vec<(ClientId, Registration)>, Vec<Name>), ClusterError> {
    let mut commands = instance.commands()?;
    let here: HashSet<ClientId> = all.clients.iter().map(|came| came.info.id).collect();
    let mut strangers = HashSet::new();
    let key = |part| instance.keys.clients_of(&instance.written, part);
    // Parts that are not read to their end, and where to go on.
    let mut open: Vec<(usize, u64)> = (0..PARTS).map(|part| (part, 0)).collect();
    while !open.is_empty() {
        let mut pipe = redis::pipe();
        for (part, from) in &open {
            pipe.cmd("HSCAN").arg(key(*part)).arg(from);
            pipe.arg("COUNT").arg(CHUNK);
        }
        let scanned: Vec<(u64, Vec<Vec<u8>>)> = pipe
            .query_async(&mut commands)
            .await
            .map_err(|error| instance.failed("HSCAN", &error))?;
        let mut misplaced = redis::pipe();
        for ((part, from), (next, found)) in open.iter_mut().zip(scanned) {
            *from = next;
            for field in found.iter().step_by(2) {
                match client_id(field).filter(|client| keys::part_of(*client) == *part) {
                    Some(client) if here.contains(&client) => {}
                    Some(client) => drop(strangers.insert(client)),
                    None => drop(misplaced.cmd("HDEL").arg(key(*part)).arg(field).ignore()),
                }
            }
        }
        open.retain(|(_, from)| *from != 0);
        if !misplaced.is_empty() {
            misplaced
                .query_async::<()>(&mut commands)
                .await
                .map_err(|error| instance.failed("HDEL", &error))?;
        }
    }
    let mut went = Vec::with_capacity(strangers.len());
    let strangers: Vec<ClientId> = strangers.into_iter().collect();
    for strangers in strangers.chunks(CHUNK) {
        let mut command = redis::cmd("HMGET");
        command.arg(&instance.keys.places);
        for client in strangers {
            command.arg(&client.as_uuid().as_bytes()[..]);
        }
        let places: Vec<Option<String>> = command
            .query_async(&mut commands)
            .await
            .map_err(|error| instance.failed("HMGET", &error))?;
        for (client, place) in strangers.iter().zip(places) {
            // Whatever the place says: where it is not here, the record goes by itself.
            let registration = place
                .as_deref()
                .and_then(|place| place.split_once(' '))
                .and_then(|(known, _)| parse_registration(known));
            went.push((*client, registration.unwrap_or(Registration::new(0, 0))));
        }
    }
    let groups: Vec<String> = redis::cmd("SMEMBERS")
        .arg(instance.keys.groups_of(&instance.written))
        .query_async(&mut commands)
        .await
        .map_err(|error| instance.failed("SMEMBERS", &error))?;
    let kept: HashSet<&str> = all.groups.iter().map(Name::as_str).collect();
    let lost = groups
        .iter()
        .filter(|group| !kept.contains(group.as_str()))
        .map(Name::from)
        .collect();
    Ok((went, lost))
}

/// The client that a field of a hash stands for.
fn client_id(field: &[u8]) -> Option<ClientId> {
    uuid::Uuid::from_slice(field).ok().map(ClientId::from)
}

/// Writes one batch.
async fn write(
    instance: &Instance,
    batch: Batch<'_>,
    position: Position,
) -> Result<Vec<Registered>, ClusterError> {
    let mut commands = instance.commands()?;
    let (epoch, number, before) = {
        let mut standing = instance.standing.lock();
        standing.issued += 1;
        let before = match position {
            Position::First => String::new(),
            Position::Behind | Position::Last => (standing.issued - 1).to_string(),
        };
        (standing.epoch.clone(), standing.issued, before)
    };
    let keys = &instance.keys;
    let nonce = uuid::Uuid::new_v4().as_fields().0;
    let mut invocation = script::WRITE.prepare_invoke();
    invocation
        .key(&keys.state)
        .key(&keys.instances)
        .key(&keys.batches)
        .key(&keys.places)
        .key(keys.groups_of(&instance.written))
        .key(&keys.rewriting);
    for part in 0..PARTS {
        invocation.key(keys.clients_of(&instance.written, part));
    }
    invocation
        .arg(&keys.group)
        .arg(&keys.clients)
        .arg(&*instance.id.name)
        .arg(keys::incarnation(instance.id.incarnation))
        .arg(epoch)
        .arg(number)
        .arg(before)
        .arg(format!("{nonce:x}"))
        .arg(u8::from(position == Position::Last))
        .arg(&keys.notices)
        .arg(keys.publish());
    batch.lay(&mut invocation);
    let (drawn, told): (u64, Vec<(usize, String)>) =
        invocation
            .invoke_async(&mut commands)
            .await
            .map_err(|error| instance.failed("writing a batch", &error))?;
    let mut standing = instance.standing.lock();
    standing.confirmed = standing.confirmed.max(number);
    drop(standing);
    let mut registered = batch.registered(drawn, nonce);
    for (number, told) in &told {
        let place = registered.get_mut(*number);
        if place
            .and_then(|place| tell(instance, place, told))
            .is_none()
        {
            let told = format!("a batch was answered with {told:?} for number {number}");
            return Err(ClusterError::Refused(told));
        }
    }
    Ok(registered)
}

/// What a script tells of one of those that came; `None` if it is not to be understood.
fn tell(instance: &Instance, place: &mut Registered, told: &str) -> Option<()> {
    match (told.split_at_checked(1)?, place) {
        (("e", newer), place) => {
            let newer = parse_registration(newer)?;
            *place = Registered::Elsewhere { newer };
        }
        (("b", before), Registered::Here { replaced, .. }) => {
            // Whoever has left has nobody to be told.
            let roster = instance.roster.lock();
            *replaced = parse_instance(before).filter(|before| !roster.has_left(before));
        }
        _ => return None,
    }
    Some(())
}

impl<'a> Batch<'a> {
    /// The same in as many as it takes, in the order of the fields.
    fn split(self) -> Vec<Self> {
        let Self {
            went,
            came,
            changed,
            lost,
            gained,
        } = self;
        if went.len() + came.len() + changed.len() + lost.len() + gained.len() <= CHUNK {
            return vec![self];
        }
        let none = Self::default();
        let went = went.chunks(CHUNK).map(|went| Self { went, ..none });
        let came = came.chunks(CHUNK).map(|came| Self { came, ..none });
        let changed = changed
            .chunks(CHUNK)
            .map(|changed| Self { changed, ..none });
        let lost = lost.chunks(CHUNK).map(|lost| Self { lost, ..none });
        let gained = gained.chunks(CHUNK).map(|gained| Self { gained, ..none });
        let parts = went.chain(came).chain(changed).chain(lost).chain(gained);
        parts.collect()
    }

    /// What those that came have where nothing else is told of them: their registration, or the next behind this number.
    fn registered(self, drawn: u64, nonce: u32) -> Vec<Registered> {
        let mut drawn = drawn;
        let registration = |came: &Came| {
            came.registration.unwrap_or_else(|| {
                drawn += 1;
                Registration::new(drawn, nonce)
            })
        };
        self.came
            .iter()
            .map(registration)
            .map(|registration| Registered::Here {
                registration,
                replaced: None,
            })
            .collect()
    }

    /// Lays the arguments in the order in which the script takes them.
    fn lay(self, to: &mut ScriptInvocation<'_>) {
        to.arg(self.went.len());
        for (client, registration) in self.went {
            to.arg(&client.as_uuid().as_bytes()[..])
                .arg(keys::registration(*registration));
        }
        to.arg(self.came.len());
        for came in self.came {
            to.arg(&came.info.id.as_uuid().as_bytes()[..])
                .arg(
                    came.registration
                        .map(keys::registration)
                        .unwrap_or_default(),
                )
                .arg(record::write(&came.info));
        }
        to.arg(self.changed.len());
        for changed in self.changed {
            to.arg(&changed.client.as_uuid().as_bytes()[..])
                .arg(keys::registration(changed.registration))
                .arg(
                    changed
                        .last_message
                        .map(|time| time.to_string())
                        .unwrap_or_default(),
                )
                .arg(u8::from(changed.metadata.is_some()))
                .arg(
                    changed
                        .metadata
                        .as_deref()
                        .map(record::metadata)
                        .unwrap_or_default(),
                );
            names(to, &changed.left);
            names(to, &changed.joined);
        }
        names(to, self.lost);
        names(to, self.gained);
    }
}

fn names(to: &mut ScriptInvocation<'_>, names: &[Name]) {
    to.arg(names.len());
    for name in names {
        to.arg(&**name);
    }
}
