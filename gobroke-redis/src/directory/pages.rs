//! Listings of clients, page by page. Several questions are under way at a time, so that Redis works while what has come
//! is read.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    future::ready,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use gobroke_core::{
    ClientId, Name,
    cluster::{ClusterError, Cursor, InstanceId, Page},
};
use tokio::time::Instant;

use super::{read::group_instances, record::Reader};
use crate::{
    instance::Instance,
    keys::{self, PARTS, parse_instance},
};

/// How many clients a part may have to be read by one command: few enough that it takes Redis far less than 5 ms.
const WHOLE: usize = 4096;
/// How many one command reads of a larger part.
const SCANNED: usize = 1024;
/// How many commands are under way, and answers not read yet.
const AHEAD: usize = 8;

/// Where in a part to go on.
struct Place {
    id: InstanceId,
    part: usize,
    within: u64,
}

/// Where a listing stands.
#[derive(Default)]
struct Standing {
    /// The last part that was begun, in the order of instances and parts.
    begun: Option<(InstanceId, usize)>,
    /// Those that were begun and not read to their end.
    open: Vec<Place>,
}

/// What one command found: records, where to go on behind them, and the epoch.
struct Found {
    at: InstanceId,
    records: Vec<Vec<u8>>,
    next: Option<Place>,
    epoch: Option<String>,
}

/// A page of the clients of others.
pub(super) async fn page(
    instance: &Instance,
    group: Option<&Name>,
    cursor: &Cursor,
    limit: usize,
) -> Result<Page, ClusterError> {
    let mut standing = Standing::parse(cursor)?;
    let there = instances(instance, group).await?;
    standing.open.retain(|place| there.contains(&place.id));
    let from = standing.begun.clone();
    let parts = |id: InstanceId| (0..PARTS).map(move |part| (id.clone(), part));
    let mut rest = there
        .into_iter()
        .flat_map(parts)
        .filter(|part| from.as_ref().is_none_or(|from| part > from))
        .peekable();

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
    let mut under_way = FuturesUnordered::new();
    let mut unread = VecDeque::new();
    loop {
        let ahead = under_way.len() + unread.len();
        // No more than is wanted, if each finds as many as it may.
        let certain = listing.page.clients.len() + ahead * limit.min(WHOLE);
        if ahead < AHEAD && certain < limit {
            let next = standing.open.pop().or_else(|| {
                let (id, part) = standing.begun.insert(rest.next()?).clone();
                let within = 0;
                Some(Place { id, part, within })
            });
            if let Some(place) = next {
                under_way.push(read(instance, place, limit));
                continue;
            }
        }
        // What comes next is asked for before what has come is read.
        tokio::select! {
            biased;
            Some(found) = under_way.next() => {
                let found = found?;
                listing.page.partial |= !instance.is_whole(found.epoch.as_deref());
                standing.open.extend(found.next);
                unread.push_back((found.at, found.records));
            }
            () = ready(()), if !unread.is_empty() => {
                if let Some((at, records)) = unread.pop_front() {
                    listing.read(&at, &records);
                }
            }
            else => break,
        }
    }
    if !standing.open.is_empty() || rest.peek().is_some() {
        listing.page.next = Some(standing.cursor());
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
    /// Reads records of an instance's clients.
    fn read(&mut self, at: &InstanceId, records: &[Vec<u8>]) {
        self.seen.reserve(records.len());
        for record in records {
            let info = match self.reader.read(at, record) {
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

impl Standing {
    /// As JSON: the last part that was begun, and those that are open.
    fn cursor(&self) -> Cursor {
        let begun = self
            .begun
            .as_ref()
            .map(|(id, part)| (keys::instance(id), part));
        let open = |place: &Place| (keys::instance(&place.id), place.part, place.within);
        let open: Vec<_> = self.open.iter().map(open).collect();
        Cursor::new(serde_json::json!([begun, open]).to_string())
    }

    fn parse(cursor: &Cursor) -> Result<Self, ClusterError> {
        let text = cursor.as_str();
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::read(text).ok_or_else(|| ClusterError::Refused(format!("{text:?} is no cursor")))
    }

    fn read(text: &str) -> Option<Self> {
        type Written = (Option<(String, usize)>, Vec<(String, usize, u64)>);
        let (begun, open): Written = serde_json::from_str(text).ok()?;
        let begun = match begun {
            Some((id, part)) => Some((parse_instance(&id)?, part)),
            None => None,
        };
        let place = |(id, part, within): (String, usize, u64)| {
            let id = parse_instance(&id)?;
            Some(Place { id, part, within })
        };
        Some(Self {
            begun,
            open: open.into_iter().map(place).collect::<Option<_>>()?,
        })
    }
}

/// The other instances that have clients, or members of the group.
async fn instances(
    instance: &Instance,
    group: Option<&Name>,
) -> Result<BTreeSet<InstanceId>, ClusterError> {
    let members = match group {
        Some(group) => group_instances(instance, std::slice::from_ref(group))
            .await?
            .pop(),
        None => None,
    };
    let roster = instance.roster.lock();
    let is_wanted = |id: &&InstanceId| members.as_ref().is_none_or(|members| members.contains(id));
    Ok(roster.others().iter().filter(is_wanted).cloned().collect())
}

/// Reads a part, or some of it where it is large or fewer are wanted, and the epoch with it.
async fn read(instance: &Instance, place: Place, limit: usize) -> Result<Found, ClusterError> {
    let mut commands = instance.commands()?;
    let state = &instance.keys.state;
    let key = instance
        .keys
        .clients_of(&keys::instance(&place.id), place.part);
    let failed = |error| instance.failed("reading clients", &error);
    if place.within == 0 {
        let mut length = redis::cmd("HLEN");
        let length = length.arg(&key).query_async::<usize>(&mut commands);
        if length.await.map_err(failed)? <= limit.min(WHOLE) {
            let mut pipe = redis::pipe();
            pipe.cmd("HVALS").arg(&key);
            pipe.cmd("HGET").arg(state).arg("epoch");
            let (records, epoch) = pipe.query_async(&mut commands).await.map_err(failed)?;
            return Ok(Found {
                at: place.id,
                records,
                next: None,
                epoch,
            });
        }
    }
    let mut pipe = redis::pipe();
    pipe.cmd("HSCAN").arg(&key).arg(place.within);
    pipe.arg("COUNT").arg(limit.min(SCANNED));
    pipe.cmd("HGET").arg(state).arg("epoch");
    let scanned = pipe.query_async(&mut commands).await;
    let ((within, found), epoch): ((u64, Vec<Vec<u8>>), _) = scanned.map_err(failed)?;
    Ok(Found {
        at: place.id.clone(),
        records: found.into_iter().skip(1).step_by(2).collect(),
        next: (within != 0).then_some(Place { within, ..place }),
        epoch,
    })
}
