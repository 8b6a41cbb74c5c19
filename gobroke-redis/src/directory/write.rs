//! What is written into the directory: batches, each of them one script, each naming the one before.

use std::collections::HashSet;

use futures_util::stream::{FuturesOrdered, TryStreamExt};
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

/// How many scripts are under way.
const UNDER_WAY: usize = 2;

/// A part of what changed that one script writes.
#[derive(Clone, Copy, Default)]
struct Part<'a> {
    went: &'a [(ClientId, Registration)],
    came: &'a [Came],
    changed: &'a [Changed],
    lost: &'a [Name],
    gained: &'a [Name],
}

/// Writes what changed. Many changes take several scripts, none of which holds up Redis for long; where one of them
/// fails, core writes everything again.
pub(super) async fn changes(
    instance: &Instance,
    changes: &Changes,
) -> Result<Vec<Registered>, ClusterError> {
    let mut answers = Vec::with_capacity(changes.came.len());
    write_all(instance, split(changes), &mut answers).await?;
    Ok(answers)
}

/// Writes everything over what is there, then takes away what should not be. What stays the same is never missing.
pub(super) async fn replace(
    instance: &Instance,
    all: &Record,
) -> Result<Vec<Registered>, ClusterError> {
    // The first batch follows whatever there is.
    let mut answers = write(instance, Part::default(), true).await?;
    let (strangers, lost) = surplus(instance, all).await?;
    let whole = Changes {
        went: strangers,
        groups_lost: lost,
        ..Changes::default()
    };
    let none = Part::default();
    let came = all.clients.chunks(CHUNK).map(|came| Part { came, ..none });
    let gained = all
        .groups
        .chunks(CHUNK)
        .map(|gained| Part { gained, ..none });
    let parts = split(&whole)
        .into_iter()
        .chain(came)
        .chain(gained)
        .collect();
    write_all(instance, parts, &mut answers).await?;
    instance.standing.lock().told = false;
    Ok(answers)
}

/// Writes part after part: one is sent while Redis writes the one before, which it names.
async fn write_all(
    instance: &Instance,
    parts: Vec<Part<'_>>,
    answers: &mut Vec<Registered>,
) -> Result<(), ClusterError> {
    let mut parts = parts.into_iter();
    let mut under_way = FuturesOrdered::new();
    loop {
        while under_way.len() < UNDER_WAY
            && let Some(part) = parts.next()
        {
            under_way.push_back(write(instance, part, false));
        }
        match under_way.try_next().await? {
            Some(registered) => answers.extend(registered),
            None => return Ok(()),
        }
    }
}

fn split(changes: &Changes) -> Vec<Part<'_>> {
    let Changes {
        went,
        came,
        changed,
        groups_lost: lost,
        groups_gained: gained,
    } = changes;
    let count = went.len() + came.len() + changed.len() + lost.len() + gained.len();
    if count <= CHUNK {
        return vec![Part {
            went,
            came,
            changed,
            lost,
            gained,
        }];
    }
    let none = Part::default();
    let went = went.chunks(CHUNK).map(|went| Part { went, ..none });
    let came = came.chunks(CHUNK).map(|came| Part { came, ..none });
    let changed = changed
        .chunks(CHUNK)
        .map(|changed| Part { changed, ..none });
    let lost = lost.chunks(CHUNK).map(|lost| Part { lost, ..none });
    let gained = gained.chunks(CHUNK).map(|gained| Part { gained, ..none });
    went.chain(came)
        .chain(changed)
        .chain(lost)
        .chain(gained)
        .collect()
}

/// What the directory has of this instance and should not: clients with their registrations, and groups.
async fn surplus(
    instance: &Instance,
    all: &Record,
) -> Result<(Vec<(ClientId, Registration)>, Vec<Name>), ClusterError> {
    let mut commands = instance.commands()?;
    let here: HashSet<ClientId> = all.clients.iter().map(|came| came.info.id).collect();
    let mut strangers = HashSet::new();
    for part in 0..PARTS {
        let key = instance.keys.clients_of(&instance.written, part);
        let mut cursor = "0".to_owned();
        loop {
            let (next, found): (String, Vec<bytes::Bytes>) = redis::cmd("HSCAN")
                .arg(&key)
                .arg(&cursor)
                .arg("COUNT")
                .arg(CHUNK)
                .query_async(&mut commands)
                .await
                .map_err(|error| instance.failed("HSCAN", &error))?;
            for field in found.iter().step_by(2) {
                let client = client_id(field)?;
                if !here.contains(&client) {
                    strangers.insert(client);
                }
            }
            if next == "0" {
                break;
            }
            cursor = next;
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
fn client_id(field: &[u8]) -> Result<ClientId, ClusterError> {
    let uuid = uuid::Uuid::from_slice(field);
    uuid.map(ClientId::from)
        .map_err(|_| ClusterError::Refused(format!("{field:?} is no client in the directory")))
}

/// Writes one batch.
async fn write(
    instance: &Instance,
    part: Part<'_>,
    first: bool,
) -> Result<Vec<Registered>, ClusterError> {
    let mut commands = instance.commands()?;
    let (epoch, batch, before) = {
        let mut standing = instance.standing.lock();
        standing.issued += 1;
        let before = if first {
            String::new()
        } else {
            (standing.issued - 1).to_string()
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
        .key(keys.groups_of(&instance.written));
    for part in 0..PARTS {
        invocation.key(keys.clients_of(&instance.written, part));
    }
    invocation
        .arg(&keys.group)
        .arg(&keys.clients)
        .arg(&*instance.id.name)
        .arg(keys::incarnation(instance.id.incarnation))
        .arg(epoch)
        .arg(batch)
        .arg(before)
        .arg(format!("{nonce:x}"));
    part.lay(&mut invocation);
    let (drawn, told): (u64, Vec<(usize, String)>) =
        invocation
            .invoke_async(&mut commands)
            .await
            .map_err(|error| instance.failed("writing a batch", &error))?;
    let mut standing = instance.standing.lock();
    standing.confirmed = standing.confirmed.max(batch);
    drop(standing);
    let mut registered = part.registered(drawn, nonce);
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
            let before = parse_instance(before)?;
            // Whoever has left has nobody to be told.
            let is_there = !instance.roster.lock().has_left(&before);
            *replaced = is_there.then_some(before);
        }
        _ => return None,
    }
    Some(())
}

impl Part<'_> {
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
