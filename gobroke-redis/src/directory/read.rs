//! What is read from the directory.

use std::collections::BTreeSet;

use bytes::Bytes;
use gobroke_core::{
    ClientId, ClientInfo, Name,
    cluster::{ClusterError, Count, InstanceId, Whereabouts},
};
use tokio::time::Instant;

use super::record::Reader;
use crate::{
    instance::Instance,
    keys::{PARTS, parse_instance},
    script,
};

/// Where these clients are.
pub(super) async fn locate(
    instance: &Instance,
    clients: &[ClientId],
) -> Result<Vec<Whereabouts>, ClusterError> {
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
    // Who is in no place may be on an instance that has not written everything again yet.
    let nowhere = match whole && !roster.is_awaiting(now) {
        true => Whereabouts::Nowhere,
        false => Whereabouts::Unknown,
    };
    let at = |place: Option<String>| {
        let (_, at) = place.as_deref()?.split_once(' ')?;
        parse_instance(at).filter(|at| *at == instance.id || roster.believes(at, now))
    };
    let located = places
        .into_iter()
        .map(|place| at(place).map_or(nowhere.clone(), Whereabouts::At));
    Ok(located.collect())
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
        .key(&keys.state)
        .key(&keys.places)
        .arg(&client.as_uuid().as_bytes()[..])
        .arg(&keys.clients)
        .arg(PARTS)
        .invoke_async(&mut commands)
        .await
        .map_err(|error| instance.failed("reading a client", &error))?;
    let epoch = found
        .first()
        .and_then(|epoch| std::str::from_utf8(epoch).ok());
    let whole = instance.is_whole(epoch);
    if let [_, at, record] = &found[..] {
        let at = std::str::from_utf8(at).ok().and_then(parse_instance);
        if let Some(at) = at.filter(|at| !instance.roster.lock().has_left(at)) {
            let info = Reader::default().read(&at, record);
            let info = info.inspect_err(|error| instance.counters.illegible(error));
            return info.map(Some);
        }
    }
    match whole && !instance.roster.lock().is_awaiting(Instant::now()) {
        true => Ok(None),
        false => Err(ClusterError::Other(
            "not all clients are in the directory again".into(),
        )),
    }
}

/// How many clients others have.
pub(super) async fn count(instance: &Instance) -> Result<Count, ClusterError> {
    let mut commands = instance.commands()?;
    let keys = &instance.keys;
    let counted = script::COUNT
        .key(&keys.state)
        .key(&keys.places)
        .key(&keys.unswept)
        .arg(&instance.written)
        .arg(&keys.clients)
        .arg(PARTS)
        .invoke_async(&mut commands)
        .await;
    let (clients, epoch): (usize, String) =
        counted.map_err(|error| instance.failed("counting", &error))?;
    let whole = instance.is_whole(Some(&epoch));
    let awaiting = instance.roster.lock().is_awaiting(Instant::now());
    Ok(Count {
        clients,
        partial: !whole || awaiting,
    })
}
