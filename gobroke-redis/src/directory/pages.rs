//! Listings of clients, page by page. While what has come is read, more is asked for, so that Redis works meanwhile.

use std::collections::{BTreeSet, HashSet, VecDeque};

use futures_util::stream::{FuturesUnordered, StreamExt};
use gobroke_core::{
    ClientId, Name,
    cluster::{ClusterError, Cursor, InstanceId, Page},
};
use tokio::{task::yield_now, time::Instant};

use super::{parts, parts::Walk, read::group_instances, record::Reader};
use crate::instance::Instance;

/// How many questions are under way, and answers not read yet.
const AHEAD: usize = 4;

/// A page of the clients of others.
pub(super) async fn page(
    instance: &Instance,
    group: Option<&Name>,
    cursor: &Cursor,
    limit: usize,
) -> Result<Page, ClusterError> {
    let limit = limit.max(1);
    let mut walk = Walk::from(cursor, instances(instance, group).await?)?;
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
    // What the questions find that are not read yet, at the most.
    let mut expected = 0;
    loop {
        let room = limit.saturating_sub(listing.page.clients.len() + expected);
        if under_way.len() + unread.len() < AHEAD && room > 0 {
            listing.page.partial |= !walk.learn(instance, limit).await?;
            if let Some(question) = walk.next(room) {
                expected += question.most();
                under_way.push(parts::ask(instance, question));
                continue;
            }
        }
        tokio::select! {
            biased;
            Some(found) = under_way.next() => {
                let mut found = found?;
                walk.goes_on(found.next.take());
                unread.push_back(found);
            }
            // First the connection's task writes what has been asked.
            () = yield_now(), if !unread.is_empty() => {
                if let Some(found) = unread.pop_front() {
                    expected -= found.most;
                    listing.page.partial |= !instance.is_whole(found.epoch.as_deref());
                    for (at, records) in &found.records {
                        listing.read(at, records);
                    }
                }
            }
            else => break,
        }
    }
    listing.page.next = walk.cursor();
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
