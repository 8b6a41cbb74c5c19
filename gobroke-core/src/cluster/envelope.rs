//! What travels between instances, laid by hand: a [`Frame`] says who sent it and what number it has, its
//! [`Content`] what is to be done.
//!
//! Numbers are varints (LEB128) unless a width is given; texts and lists are preceded by their length.
//!
//! ```text
//! frame     version u8 · kind u8 · origin (name, incarnation u64 + u32) · by kind:
//!   Pair    target u64 · number · cargo before · after (number of the all-line) · content
//!   All     number · cargo before · fences (count, then target u64 · number) · content
//!   Mark    target u64 · flags u8 · four positions (number · cargo) · [base: a position · number]
//!   Repair  target u64 · line u8 · ranges (count, then from · through)
//!   Gone    target u64 · line u8 · through
//!   Hello   nothing
//! ```
//!
//! A target is the fingerprint of name and incarnation, so that a successor under the same name takes nothing that
//! was meant for its predecessor. `cargo before` is how many messages and commands the line carried before this
//! frame: the receiver of a frame behind a gap thereby knows exactly how many were in it.

pub(crate) mod bytes;
mod command;
mod content;
pub(crate) mod parts;

use std::ops::RangeInclusive;

use ::bytes::Bytes;

use self::bytes::{Problem, Reader, put_instance, put_varint};
pub(crate) use self::{
    bytes::DecodeError,
    command::Command,
    content::{Cargo, Content, Load},
};
use super::{Incarnation, InstanceId};

/// The highest version of envelopes that this build writes and reads.
///
/// An implementation of [`Cluster`](super::Cluster) notes it in an instance's record, and tells it to the others with
/// [`Notice::Joined`](super::Notice::Joined): they write the highest version that all know, so that a rolling upgrade
/// loses nothing. An envelope of a version that is not known is refused, and counted as
/// [`unreadable`](super::ClusterStats::unreadable).
pub const VERSION: u8 = 1;

/// The versions that this build writes and reads. Every instance is taken to know the first of them before its record
/// says more.
pub(crate) const VERSIONS: RangeInclusive<u8> = 1..=VERSION;

/// Who writes frames, and in which version.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) id: InstanceId,
    pub(crate) version: u8,
}

/// A point on a line: the last number drawn or taken, and how much cargo there was up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) number: u64,
    pub(crate) cargo: u64,
}

/// One of the two lines from an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// From the origin to one target.
    Pair,
    /// From the origin to all.
    All,
}

/// A frame, its content still as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) origin: &'a str,
    pub(crate) incarnation: Incarnation,
    /// The fingerprint of the one target, where there is one.
    pub(crate) target: Option<u64>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Numbered(Numbered),
    Mark(Mark),
    Repair {
        line: Line,
        ranges: Vec<(u64, u64)>,
    },
    /// What the line carried up to this number is no longer held.
    Gone {
        line: Line,
        through: u64,
    },
    /// The origin (again) hears all, and asks where the lines to it stand.
    Hello,
}

/// A frame with a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) line: Line,
    pub(crate) number: u64,
    /// The cargo that the line carried before it.
    pub(crate) before: u64,
    /// Whether its content is cargo itself.
    pub(crate) cargo: bool,
    pub(crate) after: After,
    pub(crate) content: Bytes,
}

/// What the origin sent on its other lines before: what makes one order of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// On the all-line, up to this number.
    All(u64),
    /// On the lines to these targets, by fingerprint, up to these numbers: those that moved since the all-line did.
    Pairs(Vec<(u64, u64)>),
}

/// Where an origin's lines to a target stand, and how far the origin has taken those from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The target is asked to answer with a mark of its own, at once.
    pub(crate) question: bool,
    /// It answers a request for what is missing of this line: what is sent again for that comes before it.
    pub(crate) answer: Option<Line>,
    pub(crate) pair: Position,
    pub(crate) all: Position,
    /// Where the all-line stood when the origin learned of the target: what follows is meant for it. `None` as long
    /// as the origin has not.
    pub(crate) base: Option<Base>,
    pub(crate) seen_pair: Position,
    pub(crate) seen_all: Position,
}

/// Where the all-line begins for a target: at this position, behind this number of the pair's line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) all: Position,
    pub(crate) pair: u64,
}

const PAIR: u8 = 1;
const ALL: u8 = 2;
const MARK: u8 = 3;
const REPAIR: u8 = 4;
const GONE: u8 = 5;
const HELLO: u8 = 6;
/// In a numbered frame's kind: its content is cargo.
const CARGO: u8 = 0x80;
/// In a mark's flags: answer at once.
const QUESTION: u8 = 1;
/// In a mark's flags: there is a base.
const BASED: u8 = 2;
/// In a mark's flags: it answers a request for what is missing, of the pair's line or of the all-line.
const ANSWER_PAIR: u8 = 4;
const ANSWER_ALL: u8 = 8;

/// Lays a numbered frame; `content` appends what it carries.
pub(crate) fn numbered(
    writer: &Writer,
    target: Option<u64>,
    place: Position,
    cargo: bool,
    after: &After,
    content: impl FnOnce(&mut Vec<u8>),
) -> Bytes {
    let mut out = Vec::with_capacity(256);
    let kind = if target.is_some() { PAIR } else { ALL };
    head(
        &mut out,
        kind | if cargo { CARGO } else { 0 },
        writer,
        target,
    );
    put_varint(&mut out, place.number);
    put_varint(&mut out, place.cargo);
    match after {
        After::All(number) => put_varint(&mut out, *number),
        After::Pairs(pairs) => {
            put_varint(&mut out, pairs.len() as u64);
            for (target, number) in pairs {
                out.extend_from_slice(&target.to_be_bytes());
                put_varint(&mut out, *number);
            }
        }
    }
    content(&mut out);
    out.into()
}

/// Lays a mark.
pub(crate) fn mark(writer: &Writer, target: u64, mark: &Mark) -> Bytes {
    let mut out = Vec::with_capacity(64);
    head(&mut out, MARK, writer, Some(target));
    let flags = [
        (mark.question, QUESTION),
        (mark.base.is_some(), BASED),
        (mark.answer == Some(Line::Pair), ANSWER_PAIR),
        (mark.answer == Some(Line::All), ANSWER_ALL),
    ];
    let set = flags.iter().filter(|(is_set, _)| *is_set);
    out.push(set.map(|(_, flag)| flag).sum());
    let base = mark.base.map(|base| base.all);
    for position in [mark.pair, mark.all, mark.seen_pair, mark.seen_all]
        .into_iter()
        .chain(base)
    {
        put_varint(&mut out, position.number);
        put_varint(&mut out, position.cargo);
    }
    if let Some(base) = mark.base {
        put_varint(&mut out, base.pair);
    }
    out.into()
}

/// Lays a request to send again what is missing.
pub(crate) fn repair(writer: &Writer, target: u64, line: Line, ranges: &[(u64, u64)]) -> Bytes {
    let mut out = Vec::with_capacity(64);
    head(&mut out, REPAIR, writer, Some(target));
    out.push(line_byte(line));
    put_varint(&mut out, ranges.len() as u64);
    for (from, through) in ranges {
        put_varint(&mut out, *from);
        put_varint(&mut out, *through);
    }
    out.into()
}

/// Lays the answer that there is nothing to send again.
pub(crate) fn gone(writer: &Writer, target: u64, line: Line, through: u64) -> Bytes {
    let mut out = Vec::with_capacity(64);
    head(&mut out, GONE, writer, Some(target));
    out.push(line_byte(line));
    put_varint(&mut out, through);
    out.into()
}

/// Lays the question to all where their lines stand.
pub(crate) fn hello(writer: &Writer) -> Bytes {
    let mut out = Vec::with_capacity(64);
    head(&mut out, HELLO, writer, None);
    out.into()
}

fn head(out: &mut Vec<u8>, kind: u8, writer: &Writer, target: Option<u64>) {
    out.extend_from_slice(&[writer.version, kind]);
    put_instance(out, &writer.id);
    if let Some(target) = target {
        out.extend_from_slice(&target.to_be_bytes());
    }
}

fn line_byte(line: Line) -> u8 {
    match line {
        Line::Pair => PAIR,
        Line::All => ALL,
    }
}

impl<'a> Frame<'a> {
    /// Reads a frame.
    pub(crate) fn decode(frame: &'a Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        let version = reader.byte("version")?;
        if !VERSIONS.contains(&version) {
            return reader.fail("version", Problem::Unknown(version.into()));
        }
        let kind = reader.byte("kind")?;
        let origin = reader.str("origin")?;
        let incarnation = reader.incarnation("origin's incarnation")?;
        let target = match kind & !CARGO {
            ALL | HELLO => None,
            _ => Some(reader.u64("target")?),
        };
        let body = match kind {
            _ if matches!(kind & !CARGO, PAIR | ALL) => {
                Body::Numbered(Self::numbered(&mut reader, kind)?)
            }
            MARK => Body::Mark(Self::mark(&mut reader)?),
            REPAIR => {
                let line = Self::line(&mut reader)?;
                let count = reader.count(2, "ranges")?;
                let ranges = (0..count)
                    .map(|_| Ok((number(&mut reader, "range")?, number(&mut reader, "range")?)));
                let ranges = ranges.collect::<Result<_, _>>()?;
                Body::Repair { line, ranges }
            }
            GONE => Body::Gone {
                line: Self::line(&mut reader)?,
                through: number(&mut reader, "through")?,
            },
            HELLO => Body::Hello,
            _ => return reader.fail("kind", Problem::Unknown(kind.into())),
        };
        reader.end()?;
        Ok(Self {
            origin,
            incarnation,
            target,
            body,
        })
    }

    fn numbered(reader: &mut Reader<'a>, kind: u8) -> Result<Numbered, DecodeError> {
        let place = number(reader, "number")?;
        if place == 0 {
            return reader.fail("number", Problem::Unknown(0));
        }
        let before = number(reader, "cargo before")?;
        let (line, after) = if kind & !CARGO == PAIR {
            (Line::Pair, After::All(number(reader, "after")?))
        } else {
            let count = reader.count(9, "fences")?;
            let fences = (0..count).map(|_| Ok((reader.u64("fence")?, number(reader, "fence")?)));
            (Line::All, After::Pairs(fences.collect::<Result<_, _>>()?))
        };
        Ok(Numbered {
            line,
            number: place,
            before,
            cargo: kind & CARGO != 0,
            after,
            content: reader.rest(),
        })
    }

    fn mark(reader: &mut Reader<'a>) -> Result<Mark, DecodeError> {
        let flags = reader.byte("flags")?;
        let answer = match flags & !(QUESTION | BASED) {
            0 => None,
            ANSWER_PAIR => Some(Line::Pair),
            ANSWER_ALL => Some(Line::All),
            _ => return reader.fail("flags", Problem::Unknown(flags.into())),
        };
        let mut position = || {
            Ok(Position {
                number: number(reader, "position")?,
                cargo: number(reader, "position")?,
            })
        };
        Ok(Mark {
            question: flags & QUESTION != 0,
            answer,
            pair: position()?,
            all: position()?,
            seen_pair: position()?,
            seen_all: position()?,
            base: if flags & BASED == 0 {
                None
            } else {
                Some(Base {
                    all: position()?,
                    pair: number(reader, "base")?,
                })
            },
        })
    }

    fn line(reader: &mut Reader<'a>) -> Result<Line, DecodeError> {
        match reader.byte("line")? {
            PAIR => Ok(Line::Pair),
            ALL => Ok(Line::All),
            other => reader.fail("line", Problem::Unknown(other.into())),
        }
    }
}

/// A number of a line. None comes near 2^56, so none that is read makes a sum overflow.
fn number(reader: &mut Reader<'_>, what: &'static str) -> Result<u64, DecodeError> {
    match reader.varint(what)? {
        number if number < 1 << 56 => Ok(number),
        _ => reader.fail(what, Problem::TooLarge),
    }
}

#[cfg(test)]
mod tests;
