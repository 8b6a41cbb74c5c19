//! What is written into the directory: batches, each of them one script, each naming the one before.

use std::collections::HashSet;

use gobroke_core::{
    ClientId, Name,
    cluster::{Came, Changed, Changes, ClusterError, Record, Registered, Registration},
};
use redis::ScriptInvocation;

use super::{read::client_id, record};
use crate::{
    config::CHUNK,
    instance::Instance,
    keys::{self, parse_instance, parse_registration},
    script,
};

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
    for part in split(changes) {
        answers.extend(write(instance, part, false).await?);
    }
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
    for went in strangers.chunks(CHUNK) {
        write(
            instance,
            Part {
                went,
                ..Part::default()
            },
            false,
        )
        .await?;
    }
    for came in all.clients.chunks(CHUNK) {
        answers.extend(
            write(
                instance,
                Part {
                    came,
                    ..Part::default()
                },
                false,
            )
            .await?,
        );
    }
    for lost in lost.chunks(CHUNK) {
        write(
            instance,
            Part {
                lost,
                ..Part::default()
            },
            false,
        )
        .await?;
    }
    for gained in all.groups.chunks(CHUNK) {
        write(
            instance,
            Part {
                gained,
                ..Part::default()
            },
            false,
        )
        .await?;
    }
    instance.standing.lock().told = false;
    Ok(answers)
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
    let mut cursor = "0".to_owned();
    loop {
        let (next, found): (String, Vec<bytes::Bytes>) = redis::cmd("HSCAN")
            .arg(instance.keys.clients_of(&instance.written))
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
    let mut invocation = script::WRITE.prepare_invoke();
    invocation
        .key(&keys.state)
        .key(&keys.instances)
        .key(&keys.batches)
        .key(&keys.places)
        .key(keys.clients_of(&instance.written))
        .key(keys.groups_of(&instance.written))
        .arg(&keys.group)
        .arg(&keys.clients)
        .arg(&*instance.id.name)
        .arg(keys::incarnation(instance.id.incarnation))
        .arg(epoch)
        .arg(batch)
        .arg(before)
        .arg(format!("{:x}", uuid::Uuid::new_v4().as_fields().0));
    part.lay(&mut invocation);
    let answers: Vec<String> = invocation
        .invoke_async(&mut commands)
        .await
        .map_err(|error| instance.failed("writing a batch", &error))?;
    let mut standing = instance.standing.lock();
    standing.confirmed = standing.confirmed.max(batch);
    drop(standing);
    let registered: Option<Vec<_>> = answers
        .iter()
        .map(|answer| registered(instance, answer))
        .collect();
    registered
        .ok_or_else(|| ClusterError::Refused(format!("a batch was answered with {answers:?}")))
}

fn registered(instance: &Instance, answer: &str) -> Option<Registered> {
    let (kind, rest) = answer.split_at_checked(1)?;
    if kind == "e" {
        return Some(Registered::Elsewhere {
            newer: parse_registration(rest)?,
        });
    }
    let (registration, before) = rest.split_once(' ').unwrap_or((rest, ""));
    // Whoever has left has nobody to be told.
    let replaced = parse_instance(before).filter(|before| !instance.roster.lock().has_left(before));
    Some(Registered::Here {
        registration: parse_registration(registration)?,
        replaced,
    })
}

impl Part<'_> {
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
