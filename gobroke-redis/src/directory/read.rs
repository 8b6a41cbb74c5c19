//! What is read from the directory.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use gobroke_core::{
    ClientId, ClientInfo, Name,
    cluster::{ClusterError, Cursor, InstanceId, Page},
};
use tokio::time::Instant;

use super::record;
use crate::{
    instance::Instance,
    keys::{self, parse_instance},
    script,
};

/// How many clients one command reads: few enough that it takes Redis less than 5 ms.
const MOST: usize = 1000;

/// Where these clients are.
pub(super) async fn locate(
    instance: &Instance,
    clients: &[ClientId],
) -> Result<Vec<Option<InstanceId>>, ClusterError> {
    let mut commands = instance.commands()?;
    let mut pipe = redis::pipe();
    let command = pipe.cmd("HMGET").arg(&instance.keys.places);
    for client in clients {
        command.arg(&client.as_uuid().as_bytes()[..]);
    }
    pipe.cmd("HGET").arg(&instance.keys.state).arg("epoch");
    let (places, epoch): (Vec<Option<String>>, Option<String>) = pipe
        .query_async(&mut commands)
        .await
        .map_err(|error| instance.failed("HMGET", &error))?;
    let whole = instance.is_whole(epoch.as_deref());
    let (roster, now) = (instance.roster.lock(), Instant::now());
    let located: Vec<_> = places
        .into_iter()
        .map(|place| {
            let (_, at) = place.as_deref()?.split_once(' ')?;
            parse_instance(at).filter(|at| *at == instance.id || roster.believes(at, now))
        })
        .collect();
    if located.iter().any(Option::is_none) && (!whole || roster.is_awaiting(now)) {
        return Err(ClusterError::Unreachable(
            "instances have not come back yet".to_owned(),
        ));
    }
    Ok(located)
}

/// Which instances have members of these groups.
pub(super) async fn group_instances(
    instance: &Instance,
    groups: &[Name],
) -> Result<Vec<Vec<InstanceId>>, ClusterError> {
    let mut commands = instance.commands()?;
    let mut pipe = redis::pipe();
    for group in groups {
        pipe.cmd("SMEMBERS")
            .arg(format!("{}{group}", instance.keys.group));
    }
    let found: Vec<Vec<String>> = pipe
        .query_async(&mut commands)
        .await
        .map_err(|error| instance.failed("SMEMBERS", &error))?;
    let (roster, now) = (instance.roster.lock(), Instant::now());
    // What was lost may not be written again yet: then any of them may have members, and says so where it has none.
    let maybe = match roster.is_awaiting(now) {
        true => roster.others().clone(),
        false => BTreeSet::new(),
    };
    let there = |ids: Vec<String>| {
        let ids = ids.iter().filter_map(|id| parse_instance(id));
        let ids: BTreeSet<InstanceId> = ids
            .filter(|id| *id == instance.id || roster.believes(id, now))
            .collect();
        ids.union(&maybe).cloned().collect()
    };
    Ok(found.into_iter().map(there).collect())
}

/// What is known of a client.
pub(super) async fn client(
    instance: &Instance,
    client: ClientId,
) -> Result<Option<ClientInfo>, ClusterError> {
    let mut commands = instance.commands()?;
    let keys = &instance.keys;
    let found: Vec<Bytes> = script::CLIENT
        .key(&keys.places)
        .arg(&client.as_uuid().as_bytes()[..])
        .arg(&keys.clients)
        .invoke_async(&mut commands)
        .await
        .map_err(|error| instance.failed("reading a client", &error))?;
    let [at, found] = &found[..] else {
        return Ok(None);
    };
    let at = std::str::from_utf8(at).ok().and_then(parse_instance);
    let Some(at) = at.filter(|at| !instance.roster.lock().has_left(at)) else {
        return Ok(None);
    };
    let info = read(client, &at, found);
    info.map(Some)
        .inspect_err(|error| instance.counters.illegible(error))
}

/// A page of the clients of others: instance by instance in their order, each in that of its hash. The cursor is the
/// instance's, and that within it.
pub(super) async fn page(
    instance: &Instance,
    group: Option<&Name>,
    cursor: &Cursor,
    limit: usize,
) -> Result<Page, ClusterError> {
    let mut commands = instance.commands()?;
    let (mut within, from) = match cursor.as_str().split_once(' ') {
        None => ("0".to_owned(), None),
        Some((within, id)) => {
            let refused = || ClusterError::Refused(format!("{:?} is no cursor", cursor.as_str()));
            (
                within.to_owned(),
                Some(parse_instance(id).ok_or_else(refused)?),
            )
        }
    };
    let there: BTreeSet<InstanceId> = {
        let members = match group {
            Some(group) => Some(
                group_instances(instance, std::slice::from_ref(group))
                    .await?
                    .pop()
                    .unwrap_or_default(),
            ),
            None => None,
        };
        let roster = instance.roster.lock();
        let others = roster.others().iter();
        let others =
            others.filter(|id| members.as_ref().is_none_or(|members| members.contains(id)));
        others
            .filter(|id| from.as_ref().is_none_or(|from| *id >= from))
            .cloned()
            .collect()
    };
    if from.is_some() && there.first() != from.as_ref() {
        // The instance within which it stopped is gone.
        "0".clone_into(&mut within);
    }
    let limit = limit.max(1);
    let mut page = Page {
        partial: instance.roster.lock().is_awaiting(Instant::now()),
        ..Page::default()
    };
    let mut seen = HashSet::new();
    for id in &there {
        let at = keys::instance(id);
        loop {
            let mut pipe = redis::pipe();
            pipe.cmd("HSCAN")
                .arg(instance.keys.clients_of(&at))
                .arg(&within)
                .arg("COUNT")
                .arg(limit.min(MOST));
            pipe.cmd("HGET").arg(&instance.keys.state).arg("epoch");
            type Scanned = ((String, Vec<Bytes>), Option<String>);
            let ((next, found), epoch): Scanned = pipe
                .query_async(&mut commands)
                .await
                .map_err(|error| instance.failed("HSCAN", &error))?;
            page.partial |= !instance.is_whole(epoch.as_deref());
            for pair in found.chunks_exact(2) {
                let info = client_id(&pair[0]).and_then(|client| read(client, id, &pair[1]));
                let info = match info {
                    Ok(info) => info,
                    Err(error) => {
                        instance.counters.illegible(&error);
                        page.partial = true;
                        continue;
                    }
                };
                let client = info.id;
                if group.is_none_or(|group| info.groups.contains(group)) && seen.insert(client) {
                    page.clients.push(info);
                }
            }
            within = next;
            let ends = within == "0";
            if page.clients.len() >= limit {
                let next = if ends {
                    there.range(id.clone()..).nth(1).cloned()
                } else {
                    Some(id.clone())
                };
                page.next = next.map(|id| Cursor::new(format!("{within} {}", keys::instance(&id))));
                return Ok(page);
            }
            if ends {
                break;
            }
        }
    }
    Ok(page)
}

/// How many clients others have.
pub(super) async fn count(instance: &Instance) -> Result<usize, ClusterError> {
    let mut commands = instance.commands()?;
    let keys = &instance.keys;
    let counted = script::COUNT
        .key(&keys.instances)
        .key(&keys.state)
        .arg(&instance.written)
        .arg(&keys.clients)
        .invoke_async(&mut commands)
        .await;
    let (count, epoch): (usize, String) =
        counted.map_err(|error| instance.failed("counting", &error))?;
    instance.is_whole(Some(&epoch));
    Ok(count)
}

/// The client that a field of a hash stands for.
pub(super) fn client_id(field: &[u8]) -> Result<ClientId, ClusterError> {
    let uuid = uuid::Uuid::from_slice(field);
    uuid.map(ClientId::from)
        .map_err(|_| ClusterError::Refused(format!("{field:?} is no client in the directory")))
}

fn read(client: ClientId, at: &InstanceId, found: &[u8]) -> Result<ClientInfo, ClusterError> {
    let refused = || {
        ClusterError::Refused(format!(
            "the record of client {client} on {at} cannot be read"
        ))
    };
    record::read(client, &at.name, found).ok_or_else(refused)
}
