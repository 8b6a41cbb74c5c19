//! The parts of a message that take more than a line to lay: its source, its targets, and maps.
//!
//! ```text
//! source    0 the program | 1 client 16 | 2 logic
//! targets   flags u8 · [clients] · [groups] · [logic] · [left out]     (flags say which lists are there)
//! map       JSON
//! ```

use super::bytes::{DecodeError, Problem, Reader, put_bytes, put_uuid, put_varint};
use crate::{ClientId, Metadata, Name, Source, Target, Targets};

const TO_ALL: u8 = 1;
const TO_CLIENTS: u8 = 2;
const TO_GROUPS: u8 = 4;
const TO_LOGIC: u8 = 8;
const EXCEPT: u8 = 16;

pub(crate) fn put_source(out: &mut Vec<u8>, source: &Source) {
    match source {
        Source::Server => out.push(0),
        Source::Client(client) => {
            out.push(1);
            put_uuid(out, client.as_uuid());
        }
        Source::Logic(name) => {
            out.push(2);
            put_bytes(out, name.as_bytes());
        }
    }
}

pub(crate) fn source(reader: &mut Reader<'_>) -> Result<Source, DecodeError> {
    match reader.byte("source")? {
        0 => Ok(Source::Server),
        1 => reader.client("source").map(Source::Client),
        2 => reader.name("source").map(Source::Logic),
        other => reader.fail("source", Problem::Unknown(other.into())),
    }
}

pub(super) fn put_targets(out: &mut Vec<u8>, targets: &Targets) {
    let at = out.len();
    out.push(0);
    let mut flags = 0;
    let list = targets.as_slice();
    if list.contains(&Target::All) {
        flags |= TO_ALL;
    }
    let clients = || {
        list.iter().filter_map(|target| {
            if let Target::Client(id) = target {
                Some(*id)
            } else {
                None
            }
        })
    };
    let groups = || {
        list.iter().filter_map(|target| {
            if let Target::Group(name) = target {
                Some(name)
            } else {
                None
            }
        })
    };
    let logic = || {
        list.iter().filter_map(|target| {
            if let Target::Logic(name) = target {
                Some(name)
            } else {
                None
            }
        })
    };
    flags |= put_ids(out, TO_CLIENTS, clients);
    flags |= put_list(out, TO_GROUPS, groups);
    flags |= put_list(out, TO_LOGIC, logic);
    flags |= put_ids(out, EXCEPT, || targets.excluded());
    out[at] = flags;
}

/// Appends a list of ids unless it is empty, and says by `flag` that it is there.
fn put_ids<I: Iterator<Item = ClientId>>(out: &mut Vec<u8>, flag: u8, ids: impl Fn() -> I) -> u8 {
    let count = ids().count();
    if count == 0 {
        return 0;
    }
    put_varint(out, count as u64);
    ids().for_each(|id| put_uuid(out, id.as_uuid()));
    flag
}

fn put_list<'a, I: Iterator<Item = &'a Name>>(
    out: &mut Vec<u8>,
    flag: u8,
    names: impl Fn() -> I,
) -> u8 {
    let count = names().count();
    if count == 0 {
        return 0;
    }
    put_varint(out, count as u64);
    names().for_each(|name| put_bytes(out, name.as_bytes()));
    flag
}

pub(super) fn targets(reader: &mut Reader<'_>) -> Result<Targets, DecodeError> {
    let flags = reader.byte("targets")?;
    if flags & !(TO_ALL | TO_CLIENTS | TO_GROUPS | TO_LOGIC | EXCEPT) != 0 {
        return reader.fail("targets", Problem::Unknown(flags.into()));
    }
    let mut list = Vec::new();
    if flags & TO_ALL != 0 {
        list.push(Target::All);
    }
    if flags & TO_CLIENTS != 0 {
        let count = reader.count(16, "clients")?;
        list.reserve_exact(count);
        for _ in 0..count {
            list.push(Target::Client(reader.client("client")?));
        }
    }
    if flags & TO_GROUPS != 0 {
        list.extend(reader.names("group")?.into_iter().map(Target::Group));
    }
    if flags & TO_LOGIC != 0 {
        list.extend(reader.names("logic")?.into_iter().map(Target::Logic));
    }
    let mut except = Vec::new();
    if flags & EXCEPT != 0 {
        let count = reader.count(16, "left out")?;
        except.reserve_exact(count);
        for _ in 0..count {
            except.push(reader.client("left out")?);
        }
    }
    Ok(Targets::from_lists(list, except))
}

pub(crate) fn put_json(out: &mut Vec<u8>, map: &Metadata) {
    // A map of values always has a JSON form: its keys are strings, and writing into memory cannot fail. Should that
    // ever change, an empty object travels in its place.
    let json = serde_json::to_vec(map).unwrap_or_else(|_| b"{}".to_vec());
    put_bytes(out, &json);
}

pub(crate) fn json(reader: &mut Reader<'_>, what: &'static str) -> Result<Metadata, DecodeError> {
    let bytes = reader.slice(what)?;
    match serde_json::from_slice(&bytes) {
        Ok(map) => Ok(map),
        Err(error) => reader.fail(what, Problem::Json(error.to_string())),
    }
}
