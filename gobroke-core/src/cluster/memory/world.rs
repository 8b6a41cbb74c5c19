//! [`World`]: who is in the cluster, and the directory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::{
    ClientId, ClientInfo, Name,
    cluster::{
        Came, Changed, Changes, Claim, ClusterError, Cursor, Inbox, Incarnation, InstanceId,
        Leaving, Notice, Page, Record, Registered, Registration, To, VERSION,
    },
};

#[derive(Debug, Default)]
pub(super) struct World {
    instances: BTreeMap<Name, Member>,
    /// Where each client is.
    places: HashMap<ClientId, (InstanceId, Registration)>,
    last: u64,
    /// Of logic that runs once: the token, and who holds it until when.
    singletons: HashMap<Name, (u64, Option<(InstanceId, Instant)>)>,
}

#[derive(Debug)]
struct Member {
    id: InstanceId,
    inbox: Inbox,
    clients: BTreeMap<ClientId, ClientInfo>,
    groups: BTreeSet<Name>,
    /// It is gone without a word; its lease has not ended yet.
    dead: bool,
    /// The cluster is away for it.
    away: bool,
}

impl World {
    /// A number that was not drawn before, nor before a restart: the time in microseconds, or one more than the last.
    fn draw(&mut self) -> u64 {
        let now = UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_micros() as u64;
        self.last = now.max(self.last + 1);
        self.last
    }

    pub(super) fn join(&mut self, name: &Name, inbox: Inbox) -> InstanceId {
        if let Some(older) = self.instances.get(name).map(|member| member.id.clone()) {
            self.tell(&older, Notice::Superseded);
            self.remove(&older, Leaving::Replaced);
        }
        let id = InstanceId::new(name, Incarnation::new(self.draw(), 0));
        for other in self.instances.values() {
            other.inbox.notice(Notice::Joined(id.clone(), VERSION));
            inbox.notice(Notice::Joined(other.id.clone(), VERSION));
        }
        let member = Member {
            id: id.clone(),
            inbox,
            clients: BTreeMap::new(),
            groups: BTreeSet::new(),
            dead: false,
            away: false,
        };
        self.instances.insert(name.clone(), member);
        id
    }

    pub(super) fn claim(
        &mut self,
        id: &InstanceId,
        logic: &Name,
        held: Option<u64>,
        take: bool,
        lease: Duration,
    ) -> Claim {
        let now = Instant::now();
        let drawn = self.draw();
        let (token, holder) = self.singletons.entry(logic.clone()).or_default();
        let free = holder.as_ref().is_none_or(|(_, until)| *until <= now);
        let mine = holder.as_ref().is_some_and(|(holder, _)| holder == id);
        if held == Some(*token) || mine && !free {
            *holder = Some((id.clone(), now + lease));
        } else if free && take {
            *token = drawn.max(*token + 1);
            *holder = Some((id.clone(), now + lease));
        } else if free {
            *holder = None;
        }
        Claim {
            token: *token,
            holder: holder.as_ref().map(|(holder, _)| holder.clone()),
        }
    }

    pub(super) fn release(&mut self, logic: &Name, token: u64) {
        if let Some((known, holder)) = self.singletons.get_mut(logic)
            && *known == token
        {
            *holder = None;
        }
    }

    /// Takes an instance and its clients away, and tells the others.
    pub(super) fn remove(&mut self, id: &InstanceId, why: Leaving) {
        if self.member(id).is_none() {
            return;
        }
        self.instances.remove(&id.name);
        self.places.retain(|_, (at, _)| at != id);
        for other in self.instances.values() {
            other.inbox.notice(Notice::Left(id.clone(), why));
        }
    }

    /// It says nothing any more. Says whether it was there.
    pub(super) fn crash(&mut self, id: &InstanceId) -> bool {
        match self.instances.get_mut(&id.name) {
            Some(member) if member.id == *id && !member.dead => {
                member.dead = true;
                true
            }
            _ => false,
        }
    }

    fn member(&self, id: &InstanceId) -> Option<&Member> {
        self.instances
            .get(&id.name)
            .filter(|member| member.id == *id)
    }

    fn tell(&self, id: &InstanceId, notice: Notice) {
        if let Some(member) = self.member(id) {
            member.inbox.notice(notice);
        }
    }

    /// Who hears what an instance publishes.
    pub(super) fn targets(&self, from: &InstanceId, to: &To) -> Vec<Inbox> {
        if self.reachable(from).is_err() {
            return Vec::new();
        }
        let hears = |member: &&Member| match to {
            To::All => member.id != *from,
            To::Instance(id) => member.id == *id,
        };
        let members = self
            .instances
            .values()
            .filter(|member| !member.dead && !member.away);
        members
            .filter(hears)
            .map(|member| member.inbox.clone())
            .collect()
    }

    /// Whether an instance can read and write.
    pub(super) fn reachable(&self, id: &InstanceId) -> Result<(), ClusterError> {
        match self.member(id) {
            None => Err(ClusterError::Expelled),
            Some(member) if member.dead || member.away => {
                Err(ClusterError::Unreachable("it is away".to_owned()))
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn write(
        &mut self,
        id: &InstanceId,
        changes: &Changes,
    ) -> Result<Vec<Registered>, ClusterError> {
        self.reachable(id)?;
        for (client, registration) in &changes.went {
            if self.is_at(*client, id, *registration) {
                self.places.remove(client);
                if let Some(member) = self.instances.get_mut(&id.name) {
                    member.clients.remove(client);
                }
            }
        }
        let registered = changes
            .came
            .iter()
            .map(|came| self.register(id, came))
            .collect();
        for changed in &changes.changed {
            if self.is_at(changed.client, id, changed.registration)
                && let Some(member) = self.instances.get_mut(&id.name)
                && let Some(info) = member.clients.get_mut(&changed.client)
            {
                apply(info, changed);
            }
        }
        if let Some(member) = self.instances.get_mut(&id.name) {
            for group in &changes.groups_lost {
                member.groups.remove(group);
            }
            member.groups.extend(changes.groups_gained.iter().cloned());
        }
        Ok(registered)
    }

    pub(super) fn replace(
        &mut self,
        id: &InstanceId,
        record: &Record,
    ) -> Result<Vec<Registered>, ClusterError> {
        self.reachable(id)?;
        self.places.retain(|_, (at, _)| at != id);
        if let Some(member) = self.instances.get_mut(&id.name) {
            member.clients.clear();
            member.groups = record.groups.iter().cloned().collect();
        }
        Ok(record
            .clients
            .iter()
            .map(|came| self.register(id, came))
            .collect())
    }

    fn is_at(&self, client: ClientId, id: &InstanceId, registration: Registration) -> bool {
        self.places
            .get(&client)
            .is_some_and(|(at, known)| at == id && *known == registration)
    }

    fn register(&mut self, id: &InstanceId, came: &Came) -> Registered {
        let client = came.info.id;
        let older = self.places.get(&client).cloned();
        if let (Some(own), Some((_, known))) = (came.registration, &older)
            && own < *known
        {
            return Registered::Elsewhere { newer: *known };
        }
        let registration = came
            .registration
            .unwrap_or_else(|| Registration::new(self.draw(), 0));
        let replaced = older.map(|(at, _)| at).filter(|at| at != id);
        if let Some(older) = &replaced
            && let Some(member) = self.instances.get_mut(&older.name)
        {
            member.clients.remove(&client);
        }
        self.places.insert(client, (id.clone(), registration));
        if let Some(member) = self.instances.get_mut(&id.name) {
            member.clients.insert(client, came.info.clone());
        }
        Registered::Here {
            registration,
            replaced,
        }
    }

    pub(super) fn locate(&self, client: ClientId) -> Option<InstanceId> {
        self.places.get(&client).map(|(at, _)| at.clone())
    }

    pub(super) fn with_members(&self, group: &Name) -> Vec<InstanceId> {
        let members = self
            .instances
            .values()
            .filter(|member| member.groups.contains(group));
        members.map(|member| member.id.clone()).collect()
    }

    pub(super) fn client(&self, client: ClientId) -> Option<ClientInfo> {
        let at = self.locate(client)?;
        self.member(&at)?.clients.get(&client).cloned()
    }

    pub(super) fn count(&self, but: &InstanceId) -> usize {
        let others = self.instances.values().filter(|member| member.id != *but);
        others.map(|member| member.clients.len()).sum()
    }

    /// A page in the order of instances and clients; the cursor is the last client and its instance.
    pub(super) fn page(
        &self,
        but: &InstanceId,
        group: Option<&Name>,
        cursor: &Cursor,
        limit: usize,
    ) -> Result<Page, ClusterError> {
        let (last, from) = match cursor.as_str().split_once(' ') {
            None => (None, ""),
            Some((client, instance)) => {
                let refused =
                    |_| ClusterError::Refused(format!("{:?} is no cursor", cursor.as_str()));
                (Some(client.parse::<ClientId>().map_err(refused)?), instance)
            }
        };
        let mut page = Page::default();
        for (name, member) in self
            .instances
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
        {
            if member.id == *but {
                continue;
            }
            let start = match last {
                Some(last) if **name == *from => Bound::Excluded(last),
                _ => Bound::Unbounded,
            };
            for (client, info) in member.clients.range((start, Bound::Unbounded)) {
                if group.is_some_and(|group| !info.groups.contains(group)) {
                    continue;
                }
                page.clients.push(info.clone());
                if page.clients.len() >= limit.max(1) {
                    page.next = Some(Cursor::new(format!("{client} {name}")));
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }
}

/// What only tests do.
#[cfg(feature = "testing")]
impl World {
    pub(super) fn away(&mut self, instance: &str, away: bool) {
        if let Some(member) = self.instances.get_mut(instance) {
            member.away = away;
            member
                .inbox
                .notice(if away { Notice::Away } else { Notice::Back });
        }
    }

    pub(super) fn kill(&mut self, instance: &str) -> Option<InstanceId> {
        let id = self.instances.get(instance)?.id.clone();
        self.crash(&id).then_some(id)
    }

    pub(super) fn expel(&mut self, instance: &str) {
        if let Some(id) = self.instances.get(instance).map(|member| member.id.clone()) {
            self.tell(&id, Notice::Expelled);
            self.remove(&id, Leaving::Expired);
        }
    }

    pub(super) fn lose(&mut self) {
        self.places.clear();
        for member in self.instances.values_mut() {
            member.clients.clear();
            member.groups.clear();
            member.inbox.notice(Notice::OutOfStep);
        }
    }
}

fn apply(info: &mut ClientInfo, changed: &Changed) {
    if let Some(metadata) = &changed.metadata {
        info.metadata = Arc::clone(metadata);
    }
    if let Some(time) = changed.last_message {
        info.last_message = time;
    }
    info.groups.retain(|group| !changed.left.contains(group));
    for group in &changed.joined {
        if !info.groups.contains(group) {
            info.groups.push(group.clone());
        }
    }
}
