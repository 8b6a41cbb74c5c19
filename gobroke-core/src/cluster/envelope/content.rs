//! What an envelope is for: [`Content`], and how it is laid.
//!
//! ```text
//! content   kind u8 · by kind:
//!   Message   flags u8 · hops u8 · id 16 · source · [overflow u8] · targets · [metadata] · [tags] · payload
//!   Command   flags u8 · source · client 16 · command
//!   NotHere   a message or a command, as above
//!   Vain      groups          Gained   groups
//!   Forget    nothing         Replaced client 16 · registration (u64 + u32)
//!   Moved     name
//! Revoked   list of: kind u8 (1 token, 2 subject) · name · issued until · until, in milliseconds since 1970
//! ```
//! Metadata and tags are only there where they are not empty.

use bytes::Bytes;

use super::{
    bytes::{
        DecodeError, Problem, Reader, put_bytes, put_names, put_registration, put_uuid, put_varint,
    },
    command::Command,
    parts::{json, put_json, put_source, put_targets, source, targets},
};
use crate::{
    ClientId, Format, Message, MessageId, Name, Revocation, Source, cluster::Registration,
    delivery::Overflow, grant::Revoked,
};

/// What one instance has for another.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A message or a command, to be routed here and nowhere else.
    Cargo(Cargo),
    /// A message or a command comes back: its targets are the clients that were not found.
    NotHere(Cargo),
    /// These groups have no members there: the sender need not address it for them.
    Vain(Vec<Name>),
    /// These groups have members there from now on.
    Gained(Vec<Name>),
    /// What is remembered of groups may be wrong: it is to be read again.
    Forget,
    /// A client registered elsewhere.
    Replaced {
        client: ClientId,
        registration: Registration,
    },
    /// These tokens and subjects were revoked.
    Revoked(Vec<Revocation>),
    /// A logic module that runs once has another holder, or none.
    Moved(Name),
}

/// What is counted, carried, and handed back where the client is elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Cargo {
    /// It is under way for the second and last time.
    pub(crate) redirected: bool,
    /// Its source is on the instance that it comes from.
    pub(crate) native: bool,
    pub(crate) load: Load,
}

#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// A message, whose targets are those for this instance alone.
    Message(Message),
    /// Something to be done with a client.
    Command {
        source: Source,
        client: ClientId,
        command: Command,
    },
}

const MESSAGE: u8 = 1;
const COMMAND: u8 = 2;
const NOT_HERE: u8 = 3;
const VAIN: u8 = 4;
const GAINED: u8 = 5;
const FORGET: u8 = 6;
const REPLACED: u8 = 7;
const REVOKED: u8 = 8;
const MOVED: u8 = 9;

const REDIRECTED: u8 = 1;
const NATIVE: u8 = 2;
const TEXT: u8 = 4;
const METADATA: u8 = 8;
const TAGS: u8 = 16;
const OVERFLOW: u8 = 32;

impl Load {
    pub(crate) fn source(&self) -> &Source {
        match self {
            Self::Message(message) => message.source(),
            Self::Command { source, .. } => source,
        }
    }
}

impl Content {
    /// Whether it is counted: a message, a command, or one of them coming back.
    pub(crate) fn is_cargo(&self) -> bool {
        matches!(self, Self::Cargo(_) | Self::NotHere(_))
    }

    /// Appends it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Cargo(cargo) => cargo.encode(out),
            Self::NotHere(cargo) => {
                out.push(NOT_HERE);
                cargo.encode(out);
            }
            Self::Vain(groups) => {
                out.push(VAIN);
                put_names(out, groups);
            }
            Self::Gained(groups) => {
                out.push(GAINED);
                put_names(out, groups);
            }
            Self::Forget => out.push(FORGET),
            Self::Replaced {
                client,
                registration,
            } => {
                out.push(REPLACED);
                put_uuid(out, client.as_uuid());
                put_registration(out, *registration);
            }
            Self::Revoked(revocations) => {
                out.push(REVOKED);
                put_revocations(out, revocations);
            }
            Self::Moved(logic) => {
                out.push(MOVED);
                put_bytes(out, logic.as_bytes());
            }
        }
    }

    /// Reads one. Payloads are slices of `bytes`.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let content = match reader.byte("content")? {
            kind @ (MESSAGE | COMMAND) => Self::Cargo(Cargo::decode(&mut reader, kind)?),
            NOT_HERE => {
                let kind = reader.byte("what comes back")?;
                Self::NotHere(Cargo::decode(&mut reader, kind)?)
            }
            VAIN => Self::Vain(reader.names("group")?),
            GAINED => Self::Gained(reader.names("group")?),
            FORGET => Self::Forget,
            REPLACED => {
                let client = reader.client("client")?;
                Self::Replaced {
                    client,
                    registration: reader.registration("registration")?,
                }
            }
            REVOKED => Self::Revoked(revocations(&mut reader)?),
            MOVED => Self::Moved(reader.name("logic")?),
            other => return reader.fail("content", Problem::Unknown(other.into())),
        };
        reader.end()?;
        Ok(content)
    }
}

impl Cargo {
    fn encode(&self, out: &mut Vec<u8>) {
        let flags =
            if self.redirected { REDIRECTED } else { 0 } | if self.native { NATIVE } else { 0 };
        match &self.load {
            Load::Message(message) => {
                out.push(MESSAGE);
                put_message(out, flags, message);
            }
            Load::Command {
                source,
                client,
                command,
            } => {
                out.extend_from_slice(&[COMMAND, flags]);
                put_source(out, source);
                put_uuid(out, client.as_uuid());
                command.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>, kind: u8) -> Result<Self, DecodeError> {
        let flags = reader.byte("flags")?;
        let load = match kind {
            MESSAGE => Load::Message(message(reader, flags)?),
            COMMAND if flags & !(REDIRECTED | NATIVE) == 0 => {
                let source = source(reader)?;
                let client = reader.client("client")?;
                Load::Command {
                    source,
                    client,
                    command: Command::decode(reader)?,
                }
            }
            COMMAND => return reader.fail("flags", Problem::Unknown(flags.into())),
            other => return reader.fail("what comes back", Problem::Unknown(other.into())),
        };
        Ok(Self {
            redirected: flags & REDIRECTED != 0,
            native: flags & NATIVE != 0,
            load,
        })
    }
}

fn put_message(out: &mut Vec<u8>, mut flags: u8, message: &Message) {
    flags |= if message.format() == Format::Text {
        TEXT
    } else {
        0
    };
    flags |= if message.metadata().is_empty() {
        0
    } else {
        METADATA
    };
    flags |= if message.tags().is_empty() { 0 } else { TAGS };
    flags |= if message.overflow().is_some() {
        OVERFLOW
    } else {
        0
    };
    out.reserve(message.payload().len() + 64);
    out.extend_from_slice(&[flags, message.hops()]);
    put_uuid(out, message.id().as_uuid());
    put_source(out, message.source());
    if let Some(overflow) = message.overflow() {
        out.push(match overflow {
            Overflow::Disconnect => 0,
            Overflow::DropOldest => 1,
            Overflow::DropNewest => 2,
        });
    }
    put_targets(out, message.targets());
    for map in [message.metadata(), message.tags()] {
        if !map.is_empty() {
            put_json(out, map);
        }
    }
    put_bytes(out, message.payload());
}

fn message(reader: &mut Reader<'_>, flags: u8) -> Result<Message, DecodeError> {
    if flags & !(REDIRECTED | NATIVE | TEXT | METADATA | TAGS | OVERFLOW) != 0 {
        return reader.fail("flags", Problem::Unknown(flags.into()));
    }
    let hops = reader.byte("hops")?;
    let id = MessageId::from(reader.uuid("message id")?);
    let source = source(reader)?;
    let overflow = match flags & OVERFLOW {
        0 => None,
        _ => Some(match reader.byte("overflow")? {
            0 => Overflow::Disconnect,
            1 => Overflow::DropOldest,
            2 => Overflow::DropNewest,
            other => return reader.fail("overflow", Problem::Unknown(other.into())),
        }),
    };
    let targets = targets(reader)?;
    let metadata = (flags & METADATA != 0)
        .then(|| json(reader, "metadata"))
        .transpose()?;
    let tags = (flags & TAGS != 0)
        .then(|| json(reader, "tags"))
        .transpose()?;

    let mut message = Message::with_id(id, reader.slice("payload")?);
    message.set_hops(hops);
    message.set_source(source);
    *message.targets_mut() = targets;
    if flags & TEXT != 0 {
        message = message.with_format(Format::Text);
    }
    if let Some(overflow) = overflow {
        message = message.with_overflow(overflow);
    }
    if let Some(metadata) = metadata {
        *message.metadata_mut() = metadata;
    }
    for (key, value) in tags.into_iter().flatten() {
        message.add_tag(key, value);
    }
    Ok(message)
}

fn put_revocations(out: &mut Vec<u8>, revocations: &[Revocation]) {
    put_varint(out, revocations.len() as u64);
    for Revocation {
        of,
        issued_until,
        until,
    } in revocations
    {
        let (kind, name) = match of {
            Revoked::Token(name) => (1, name),
            Revoked::Subject(name) => (2, name),
        };
        out.push(kind);
        put_bytes(out, name.as_bytes());
        put_varint(out, *issued_until);
        put_varint(out, *until);
    }
}

fn revocations(reader: &mut Reader<'_>) -> Result<Vec<Revocation>, DecodeError> {
    let count = reader.varint("revocations")?;
    // Nothing is allocated for what is merely announced.
    let mut revocations = Vec::new();
    for _ in 0..count {
        let kind = reader.byte("what is revoked")?;
        let name = reader.name("who is revoked")?;
        let of = match kind {
            1 => Revoked::Token(name),
            2 => Revoked::Subject(name),
            other => return reader.fail("what is revoked", Problem::Unknown(other.into())),
        };
        revocations.push(Revocation {
            of,
            issued_until: reader.varint("issued until")?,
            until: reader.varint("until")?,
        });
    }
    Ok(revocations)
}
