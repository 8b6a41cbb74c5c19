//! [`Walk`]: a way through the parts in which Redis keeps the clients of instances.

use std::{
    collections::{BTreeSet, VecDeque, btree_set},
    iter::Peekable,
};

use gobroke_core::cluster::{ClusterError, Cursor, InstanceId};
use redis::{FromRedisValue, Value};

use crate::{
    instance::Instance,
    keys::{self, PARTS},
};

/// How many clients are read whole by one question: few enough that a command for them takes Redis far less than 5 ms.
const WHOLE: usize = 4096;
/// How many one command reads of a part that is larger.
const SCANNED: usize = 1024;
/// Of how many instances it is asked at a time how large their parts are.
const LEARNED: usize = 16;

/// A part, in the order in which they are walked.
type Part = (InstanceId, usize);

/// One that was begun, and where it goes on.
type Open = (Part, u64);

/// A way through the parts of instances, one after another; where they are large, some are open at a time.
pub(super) struct Walk {
    /// Instances of whose parts nothing is known yet.
    rest: Peekable<btree_set::IntoIter<InstanceId>>,
    /// Parts that have clients, how many, and are not begun.
    known: VecDeque<(Part, usize)>,
    /// The last part that was begun.
    begun: Option<Part>,
    /// Those that were not read to their end.
    open: Vec<Open>,
}

/// What is asked for at a time.
pub(super) enum Question {
    /// All of these parts, which have so many clients.
    Whole(Vec<Part>, usize),
    /// About so many of a part, from somewhere on.
    Piece(Open, usize),
}

/// An answer.
pub(super) struct Found {
    pub(super) records: Vec<(InstanceId, Vec<Vec<u8>>)>,
    /// Where the part goes on that was not read to its end.
    pub(super) next: Option<Open>,
    pub(super) epoch: Option<String>,
    /// How many records were expected at the most.
    pub(super) most: usize,
}

impl Walk {
    /// A way through the parts of these instances, from a cursor on.
    ///
    /// # Errors
    /// It is no cursor.
    pub(super) fn from(
        cursor: &Cursor,
        mut instances: BTreeSet<InstanceId>,
    ) -> Result<Self, ClusterError> {
        let text = cursor.as_str();
        let (begun, mut open) = match text {
            "" => (None, Vec::new()),
            _ => parse(text)
                .ok_or_else(|| ClusterError::Refused(format!("{text:?} is no cursor")))?,
        };
        // That in which it stopped may be gone.
        open.retain(|((id, _), _)| instances.contains(id));
        if let Some((id, _)) = &begun {
            instances = instances.split_off(id);
        }
        Ok(Self {
            rest: instances.into_iter().peekable(),
            known: VecDeque::new(),
            begun,
            open,
        })
    }

    /// Asks for the sizes of parts of some more instances, where none is known to be left. Says whether nothing is
    /// missing in Redis.
    pub(super) async fn learn(
        &mut self,
        instance: &Instance,
        limit: usize,
    ) -> Result<bool, ClusterError> {
        let mut whole = true;
        while self.known.is_empty() && self.open.is_empty() && self.rest.peek().is_some() {
            let ids: Vec<_> = self.rest.by_ref().take(LEARNED.min(limit)).collect();
            let parts: Vec<Part> = ids
                .into_iter()
                .flat_map(|id| (0..PARTS).map(move |part| (id.clone(), part)))
                .filter(|part| self.begun.as_ref().is_none_or(|begun| part > begun))
                .collect();
            let mut pipe = redis::pipe();
            for part in &parts {
                pipe.cmd("HLEN").arg(key(instance, part));
            }
            pipe.cmd("HGET").arg(&instance.keys.state).arg("epoch");
            let (epoch, lengths) = answers::<usize>(instance, &pipe).await?;
            whole &= instance.is_whole(epoch.as_deref());
            let known = parts.into_iter().zip(lengths);
            self.known.extend(known.filter(|(_, length)| *length > 0));
        }
        Ok(whole)
    }

    /// What to ask for next, for about so many clients.
    pub(super) fn next(&mut self, room: usize) -> Option<Question> {
        let piece = |open| Some(Question::Piece(open, room.min(SCANNED)));
        if let Some(open) = self.open.pop() {
            return piece(open);
        }
        let (mut parts, mut clients) = (Vec::new(), 0);
        while let Some((part, length)) = self
            .known
            .pop_front_if(|(_, length)| clients + *length <= room.min(WHOLE))
        {
            clients += length;
            parts.push(part);
        }
        if let Some(last) = parts.last() {
            self.begun = Some(last.clone());
            return Some(Question::Whole(parts, clients));
        }
        let (part, _) = self.known.pop_front()?;
        self.begun = Some(part.clone());
        piece((part, 0))
    }

    /// Goes on there, too.
    pub(super) fn goes_on(&mut self, next: Option<Open>) {
        self.open.extend(next);
    }

    /// Where it stands, unless it is at its end: as JSON, the last part that was begun, and those that are open.
    pub(super) fn cursor(mut self) -> Option<Cursor> {
        if self.open.is_empty() && self.known.is_empty() && self.rest.peek().is_none() {
            return None;
        }
        let written = |(id, part): &Part| (keys::instance(id), *part);
        let open = |(part, from): &Open| (written(part), *from);
        let begun = self.begun.as_ref().map(written);
        let open: Vec<_> = self.open.iter().map(open).collect();
        Some(Cursor::new(serde_json::json!([begun, open]).to_string()))
    }
}

impl Question {
    /// How many clients it finds at the most, or about.
    pub(super) fn most(&self) -> usize {
        match self {
            Self::Whole(_, clients) => *clients,
            Self::Piece(_, count) => *count,
        }
    }
}

fn parse(text: &str) -> Option<(Option<Part>, Vec<Open>)> {
    type Written = (String, usize);
    let (begun, open): (Option<Written>, Vec<(Written, u64)>) = serde_json::from_str(text).ok()?;
    let part = |(id, part): Written| Some((keys::parse_instance(&id)?, part));
    let begun = match begun {
        Some(begun) => Some(part(begun)?),
        None => None,
    };
    let open = open.into_iter().map(|(at, from)| Some((part(at)?, from)));
    Some((begun, open.collect::<Option<_>>()?))
}

/// Asks for records, and for the epoch with them.
pub(super) async fn ask(instance: &Instance, question: Question) -> Result<Found, ClusterError> {
    let most = question.most();
    let mut pipe = redis::pipe();
    match &question {
        Question::Whole(parts, _) => {
            for part in parts {
                pipe.cmd("HVALS").arg(key(instance, part));
            }
        }
        Question::Piece((part, from), count) => {
            pipe.cmd("HSCAN").arg(key(instance, part)).arg(from);
            pipe.arg("COUNT").arg(count);
        }
    }
    pipe.cmd("HGET").arg(&instance.keys.state).arg("epoch");
    match question {
        Question::Whole(parts, _) => {
            let (epoch, records) = answers(instance, &pipe).await?;
            let ids = parts.into_iter().map(|(id, _)| id);
            Ok(Found {
                records: ids.zip(records).collect(),
                next: None,
                epoch,
                most,
            })
        }
        Question::Piece((part, _), _) => {
            let (epoch, mut scanned) = answers::<(u64, Vec<Vec<u8>>)>(instance, &pipe).await?;
            let (from, pairs) = scanned.pop().unwrap_or_default();
            let records = pairs.into_iter().skip(1).step_by(2).collect();
            Ok(Found {
                records: vec![(part.0.clone(), records)],
                next: (from != 0).then_some((part, from)),
                epoch,
                most,
            })
        }
    }
}

/// What a pipeline answers whose last command asks for the epoch: that, and what the others do.
async fn answers<T: FromRedisValue>(
    instance: &Instance,
    pipe: &redis::Pipeline,
) -> Result<(Option<String>, Vec<T>), ClusterError> {
    let mut commands = instance.commands()?;
    let failed = |error| instance.failed("reading clients", &error);
    let mut values: Vec<Value> = pipe.query_async(&mut commands).await.map_err(failed)?;
    let read = || {
        let epoch = redis::from_redis_value(values.pop().unwrap_or(Value::Nil))?;
        let values = values.into_iter().map(redis::from_redis_value);
        Ok((epoch, values.collect::<Result<_, _>>()?))
    };
    read().map_err(|error: redis::ParsingError| failed(error.into()))
}

fn key(instance: &Instance, (id, part): &Part) -> String {
    instance.keys.clients_of(&keys::instance(id), *part)
}
