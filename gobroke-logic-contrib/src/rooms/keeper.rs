//! [`Keeper`]: the worker that keeps the rooms.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use gobroke_core::{
    Client, ClientId, CloseReason, LogicContext, LogicError, LogicResult, Message, Name, SendError,
    Worker, async_trait,
};

use super::{
    Limits,
    elsewhere::{self, Elsewhere},
    protocol::{Event, Member, PREFIX, Request, RoomEntry},
};

/// Keeps the rooms of this instance's clients.
pub(super) struct Keeper {
    limits: Limits,
    people: HashMap<ClientId, Person>,
    /// By group name. None is empty.
    rooms: HashMap<Name, BTreeSet<ClientId>>,
    elsewhere: Elsewhere,
}

/// A client that is in a room, at least one.
struct Person {
    member: Member,
    groups: Vec<Name>,
}

/// Why a request comes to nothing.
enum Refused {
    /// The client did something wrong; it is told.
    Request(Cow<'static, str>),
    /// The router did not take an event; the error hook is told.
    Router(LogicError),
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Request(why.into())
    }
}

impl From<&'static str> for Refused {
    fn from(why: &'static str) -> Self {
        Self::Request(why.into())
    }
}

impl From<SendError> for Refused {
    fn from(error: SendError) -> Self {
        Self::Router(error.into())
    }
}

#[async_trait]
impl Worker for Keeper {
    async fn handle(&mut self, message: Message, ctx: &LogicContext) -> LogicResult {
        let client = message
            .client()
            .ok_or("rooms take messages of clients alone")?;
        let done = match message.parse::<Request>() {
            Ok(request) => self.carry_out(client, request, ctx).await,
            Err(error) => Err(format!("not a request to the rooms: {error}").into()),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Refused::Request(why)) => Ok(tell(client, &Event::Error { message: &why }, ctx)?),
            Err(Refused::Router(error)) => Err(error),
        }
    }

    async fn left(
        &mut self,
        client: &Client,
        _reason: &CloseReason,
        ctx: &LogicContext,
    ) -> LogicResult {
        // A newer connection of the same client may be in rooms already: those stay.
        let stays = ctx
            .local_client(client.id())
            .map(|newer| newer.groups())
            .unwrap_or_default();
        let Some(person) = self.people.get(&client.id()) else {
            return Ok(());
        };
        let member = person.member.clone();
        let gone: Vec<Name> = person
            .groups
            .iter()
            .filter(|group| !stays.contains(group))
            .cloned()
            .collect();
        let mut result = Ok(());
        for group in gone {
            self.take_out(&member, &group);
            let told = tell_others(&group, &member, &Event::left(&group, &member), ctx);
            // The first error is reported, behind all that could be done.
            result = result.and(told);
        }
        Ok(result?)
    }
}

impl Keeper {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            people: HashMap::new(),
            rooms: HashMap::new(),
            elsewhere: Elsewhere::default(),
        }
    }

    async fn carry_out(
        &mut self,
        client: ClientId,
        request: Request,
        ctx: &LogicContext,
    ) -> Result<(), Refused> {
        match request {
            Request::Join { room, name } => self.join(client, &room, &name, ctx).await,
            Request::Leave { room } => self.leave(client, &room, ctx),
            Request::Say { room, text } => self.say(client, &room, &text, ctx),
            Request::Rooms => self.list_rooms(client, ctx).await,
            Request::Members { room } => {
                let group = self.group(&room)?;
                self.list_members(client, &group, ctx).await
            }
        }
    }

    async fn join(
        &mut self,
        client: ClientId,
        room: &str,
        name: &str,
        ctx: &LogicContext,
    ) -> Result<(), Refused> {
        let group = self.group(room)?;
        let name = short("name", name, self.limits.name)?;
        // Gone meanwhile: nobody is left to join, or to tell.
        let Some(connected) = ctx.local_client(client) else {
            return Ok(());
        };
        let member = Member {
            client,
            name: Arc::from(name),
        };
        let (known, renamed, rooms) = match self.people.get(&client) {
            Some(person) => (
                person.groups.contains(&group),
                person.member != member,
                person.groups.len(),
            ),
            None => (false, true, 0),
        };
        if !known && rooms >= self.limits.rooms {
            return Err(format!(
                "you are in {rooms} rooms, which is as many as one may be in; leave one first"
            )
            .into());
        }
        if renamed {
            connected.set_metadata("name", name);
        }
        // Also where it is known: from an older connection of the same client, whose end has not been told yet.
        connected.join(&group);
        let person = self.people.entry(client).or_insert_with(|| Person {
            member: member.clone(),
            groups: Vec::new(),
        });
        person.member = member.clone();
        if !known {
            person.groups.push(group.clone());
            self.rooms.entry(group.clone()).or_default().insert(client);
        }
        self.list_members(client, &group, ctx).await?;
        for room in &self.people[&client].groups {
            if renamed || (!known && *room == group) {
                tell_others(room, &member, &Event::joined(room, &member), ctx)?;
            }
        }
        Ok(())
    }

    fn leave(&mut self, client: ClientId, room: &str, ctx: &LogicContext) -> Result<(), Refused> {
        let group = self.group(room)?;
        let member = self.member(client, &group)?.clone();
        if let Some(connected) = ctx.local_client(client) {
            connected.leave(&group);
        }
        self.take_out(&member, &group);
        let left = Event::left(&group, &member);
        Ok(tell_others(&group, &member, &left, ctx)?)
    }

    fn say(
        &self,
        client: ClientId,
        room: &str,
        text: &str,
        ctx: &LogicContext,
    ) -> Result<(), Refused> {
        let group = self.group(room)?;
        let from = self.member(client, &group)?;
        if text.trim().is_empty() {
            return Err("the text is empty".into());
        }
        within("text", text, self.limits.text)?;
        // A clock before 1970 reads as 1970.
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let said = event(&Event::said(&group, from, text, at));
        ctx.send(said.to_group(&group))?;
        Ok(())
    }

    async fn list_rooms(&mut self, client: ClientId, ctx: &LogicContext) -> Result<(), Refused> {
        let here = self
            .rooms
            .iter()
            .map(|(room, members)| (room, members.len()));
        let mut members: HashMap<&Name, usize> = here.collect();
        for (room, count) in self.elsewhere.rooms(ctx).await {
            *members.entry(room).or_default() += count;
        }
        let mut rooms: Vec<_> = members.into_iter().map(RoomEntry::new).collect();
        let more = rooms.len().saturating_sub(self.limits.listed);
        if more > 0 {
            rooms.select_nth_unstable(self.limits.listed);
            rooms.truncate(self.limits.listed);
        }
        rooms.sort_unstable();
        Ok(tell(client, &Event::Rooms { rooms, more }, ctx)?)
    }

    async fn list_members(
        &self,
        client: ClientId,
        group: &Name,
        ctx: &LogicContext,
    ) -> Result<(), Refused> {
        let elsewhere = elsewhere::members(group, ctx).await;
        let ids = self.rooms.get(group).into_iter().flatten();
        let here = ids.filter_map(|id| Some(&self.people.get(id)?.member));
        let mut members: Vec<_> = here.chain(&elsewhere).collect();
        let more = members.len().saturating_sub(self.limits.listed);
        members.truncate(self.limits.listed);
        Ok(tell(client, &Event::members(group, members, more), ctx)?)
    }

    fn group(&self, room: &str) -> Result<Name, Refused> {
        Ok(Name::from(format!(
            "{PREFIX}{}",
            short("room", room, self.limits.room)?
        )))
    }

    fn member(&self, client: ClientId, group: &Name) -> Result<&Member, Refused> {
        let person = self
            .people
            .get(&client)
            .filter(|person| person.groups.contains(group));
        Ok(&person.ok_or("join the room first")?.member)
    }

    fn take_out(&mut self, member: &Member, group: &Name) {
        if let Some(members) = self.rooms.get_mut(group) {
            members.remove(&member.client);
            if members.is_empty() {
                self.rooms.remove(group);
            }
        }
        if let Some(person) = self.people.get_mut(&member.client) {
            person.groups.retain(|joined| joined != group);
            if person.groups.is_empty() {
                self.people.remove(&member.client);
            }
        }
    }
}

fn event(event: &Event<'_>) -> Message {
    let payload = serde_json::to_string(event).expect("events are plain structs with string keys");
    Message::text(payload)
}

fn tell(client: ClientId, what: &Event<'_>, ctx: &LogicContext) -> Result<(), SendError> {
    ctx.send(event(what).to_client(client)).map(drop)
}

/// Tells all in a room but the one that it is about.
fn tell_others(
    group: &Name,
    about: &Member,
    what: &Event<'_>,
    ctx: &LogicContext,
) -> Result<(), SendError> {
    ctx.send(event(what).to_group(group).except(about.client))
        .map(drop)
}

/// A name of one line, without spaces around it.
fn short<'a>(what: &str, name: &'a str, most: usize) -> Result<&'a str, String> {
    let name = name.trim();
    if name.is_empty() {
        return Err(format!("the {what} is empty"));
    }
    if name.contains(char::is_control) {
        return Err(format!("the {what} has control characters"));
    }
    within(what, name, most)?;
    Ok(name)
}

fn within(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.len() > most && text.chars().nth(most).is_some() {
        return Err(format!("the {what} has more than {most} characters"));
    }
    Ok(())
}
