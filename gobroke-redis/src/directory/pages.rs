//! Listings of clients, page by page. What comes next is asked for before what has come is read, so that Redis works
//! meanwhile.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use gobroke_core::{
    ClientId, Name,
    cluster::{ClusterError, Cursor, InstanceId, Page},
};
use tokio::{task::yield_now, time::Instant};

use super::{
    read::{client_id, group_instances},
    record::Reader,
};
use crate::{
    instance::Instance,
    keys::{self, parse_instance},
};

/// How many clients one command reads: few enough that it takes Redis far less than 5 ms.
const MOST: usize = 1024;

/// Where a listing stands: at an instance, and within its hash.
struct Place {
    id: InstanceId,
    within: String,
}

/// The cursor within the hash, what was found, and the epoch.
type Scanned = ((String, Vec<Bytes>), Option<String>);

/// A page of the clients of others: instance by instance in their order, each in that of its hash. The cursor is the
/// instance's, and that within it.
pub(super) async fn page(
    instance: &Instance,
    group: Option<&Name>,
    cursor: &Cursor,
    limit: usize,
) -> Result<Page, ClusterError> {
    let from = parse(cursor)?;
    let there = instances(instance, group, from.as_ref()).await?;
    let mut rest = there.into_iter();
    let first = rest.next();
    let mut at = match (from, first) {
        (Some(from), Some(first)) if from.id == first => Some(from),
        // That within which it stopped is gone.
        (_, first) => first.map(Place::beginning),
    };
    let limit = limit.max(1);
    let mut listing = Listing {
        instance,
        group,
        page: Page {
            partial: instance.roster.lock().is_awaiting(Instant::now()),
            ..Page::default()
        },
        seen: HashSet::new(),
        reader: Reader::default(),
    };
    let mut ahead: Option<Scanned> = None;
    while let Some(place) = at.take() {
        let ((within, found), epoch) = match ahead.take() {
            Some(scanned) => scanned,
            None => scan(instance, &place, limit).await?,
        };
        at = match &*within {
            "0" => rest.next().map(Place::beginning),
            _ => Some(Place {
                id: place.id.clone(),
                within,
            }),
        };
        listing.page.partial |= !instance.is_whole(epoch.as_deref());
        // Whether more than this is wanted, whatever is in it.
        let certain = listing.page.clients.len() + found.len() / 2 < limit;
        let next = at.as_ref().filter(|_| certain);
        let scan_ahead = async {
            match next {
                Some(next) => scan(instance, next, limit).await.map(Some),
                None => Ok(None),
            }
        };
        let read = async {
            // First the connection's task writes the question.
            yield_now().await;
            listing.read(&place.id, &found);
        };
        let (scanned, ()) = tokio::join!(scan_ahead, read);
        ahead = scanned?;
        if listing.page.clients.len() >= limit {
            listing.page.next = at.map(|at| at.cursor());
            break;
        }
    }
    Ok(listing.page)
}

/// A page as it fills.
struct Listing<'a> {
    instance: &'a Instance,
    group: Option<&'a Name>,
    page: Page,
    seen: HashSet<ClientId>,
    reader: Reader,
}

impl Listing<'_> {
    /// Reads fields and values of an instance's hash.
    fn read(&mut self, at: &InstanceId, found: &[Bytes]) {
        for pair in found.chunks_exact(2) {
            let info =
                client_id(&pair[0]).and_then(|client| self.reader.read(client, at, &pair[1]));
            let info = match info {
                Ok(info) => info,
                Err(error) => {
                    self.instance.counters.illegible(&error);
                    self.page.partial = true;
                    continue;
                }
            };
            let wanted = self.group.is_none_or(|group| info.groups.contains(group));
            if wanted && self.seen.insert(info.id) {
                self.page.clients.push(info);
            }
        }
    }
}

impl Place {
    fn beginning(id: InstanceId) -> Self {
        Self {
            id,
            within: "0".to_owned(),
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor::new(format!("{} {}", self.within, keys::instance(&self.id)))
    }
}

/// Where a listing goes on; `None` for the beginning.
fn parse(cursor: &Cursor) -> Result<Option<Place>, ClusterError> {
    let Some((within, id)) = cursor.as_str().split_once(' ') else {
        return Ok(None);
    };
    let refused = || ClusterError::Refused(format!("{:?} is no cursor", cursor.as_str()));
    Ok(Some(Place {
        id: parse_instance(id).ok_or_else(refused)?,
        within: within.to_owned(),
    }))
}

/// The other instances that have clients, or members of the group, from one on.
async fn instances(
    instance: &Instance,
    group: Option<&Name>,
    from: Option<&Place>,
) -> Result<BTreeSet<InstanceId>, ClusterError> {
    let members = match group {
        Some(group) => group_instances(instance, std::slice::from_ref(group))
            .await?
            .pop(),
        None => None,
    };
    let roster = instance.roster.lock();
    let there = roster.others().iter().filter(|id| {
        members.as_ref().is_none_or(|members| members.contains(id))
            && from.is_none_or(|from| **id >= from.id)
    });
    Ok(there.cloned().collect())
}

/// Reads a part of an instance's hash, and the epoch with it.
async fn scan(instance: &Instance, at: &Place, limit: usize) -> Result<Scanned, ClusterError> {
    let mut commands = instance.commands()?;
    let mut pipe = redis::pipe();
    pipe.cmd("HSCAN")
        .arg(instance.keys.clients_of(&keys::instance(&at.id)))
        .arg(&at.within)
        .arg("COUNT")
        .arg(limit.min(MOST));
    pipe.cmd("HGET").arg(&instance.keys.state).arg("epoch");
    pipe.query_async(&mut commands)
        .await
        .map_err(|error| instance.failed("HSCAN", &error))
}
