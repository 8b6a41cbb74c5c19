//! [`Elsewhere`]: the rooms of clients that are connected to other instances.

use std::{collections::HashMap, time::Duration};

use gobroke_core::{ClientInfo, LogicContext, Name, cluster::Listing};
use tokio::time::Instant;

use super::protocol::{Member, PREFIX};

/// How long the rooms of other instances are taken for what they were when they were counted, at the least.
const FRESH: Duration = Duration::from_secs(1);
/// And for how many times as long as it took to count them: at the most this part of the time is spent on it.
const SHARE: u32 = 10;

/// How many members each room has on other instances, as it was counted last.
#[derive(Default)]
pub(super) struct Elsewhere {
    rooms: HashMap<Name, usize>,
    fresh_until: Option<Instant>,
}

impl Elsewhere {
    /// Counts again, unless that was done a moment ago: it reads all clients of the cluster.
    pub(super) async fn rooms(&mut self, ctx: &LogicContext) -> &HashMap<Name, usize> {
        let begun = Instant::now();
        if self.fresh_until.is_some_and(|until| begun < until) {
            return &self.rooms;
        }
        if ctx.instances().is_empty() {
            self.rooms.clear();
            return &self.rooms;
        }
        let clients = ctx.clients().await;
        // What was counted last is nearer to the truth than a count of some.
        if !clients.partial {
            self.rooms.clear();
            for client in elsewhere(clients, ctx) {
                let groups = client.groups.into_iter();
                for room in groups.filter(|group| group.starts_with(PREFIX)) {
                    *self.rooms.entry(room).or_default() += 1;
                }
            }
        }
        self.fresh_until = Some(Instant::now() + FRESH.max(SHARE * begun.elapsed()));
        &self.rooms
    }
}

/// The members of a room that are connected to other instances.
pub(super) async fn members(group: &Name, ctx: &LogicContext) -> Vec<Member> {
    if ctx.instances().is_empty() {
        return Vec::new();
    }
    let members = elsewhere(ctx.members(group).await, ctx);
    let member = |info: ClientInfo| {
        let name = info.metadata.get("name").and_then(|name| name.as_str());
        Member {
            client: info.id,
            name: name.unwrap_or_default().into(),
        }
    };
    members.map(member).collect()
}

fn elsewhere(clients: Listing, ctx: &LogicContext) -> impl Iterator<Item = ClientInfo> {
    let clients = clients.into_iter();
    clients.filter(|info| ctx.local_client(info.id).is_none())
}
