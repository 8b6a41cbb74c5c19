//! Reading and writing the pieces that envelopes are laid of, each checked against what is really there.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    ClientId, Name,
    cluster::{Incarnation, InstanceId, Registration},
};

/// Why bytes are not an envelope: what was to be read, where, and what stood there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}: {problem}")]
pub(crate) struct DecodeError {
    at: usize,
    what: &'static str,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// More bytes are announced than follow.
    Short {
        need: usize,
        left: usize,
    },
    /// A kind, version or flag that this version does not know.
    Unknown(u64),
    /// A number that is larger than any that is written.
    TooLarge,
    NotUtf8,
    Json(String),
    /// Bytes behind the end.
    Trailing(usize),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { need, left } => write!(f, "{need} bytes announced, {left} left"),
            Self::Unknown(value) => write!(f, "{value} is not known here"),
            Self::TooLarge => f.write_str("too large a number"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::Json(error) => write!(f, "not a JSON object: {error}"),
            Self::Trailing(count) => write!(f, "{count} bytes too many"),
        }
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_uuid(out: &mut Vec<u8>, id: &Uuid) {
    out.extend_from_slice(id.as_bytes());
}

pub(crate) fn put_names(out: &mut Vec<u8>, names: &[Name]) {
    put_varint(out, names.len() as u64);
    for name in names {
        put_bytes(out, name.as_bytes());
    }
}

pub(crate) fn put_instance(out: &mut Vec<u8>, instance: &InstanceId) {
    put_bytes(out, instance.name.as_bytes());
    out.extend_from_slice(&instance.incarnation.number().to_be_bytes());
    out.extend_from_slice(&instance.incarnation.nonce().to_be_bytes());
}

pub(crate) fn put_registration(out: &mut Vec<u8>, registration: Registration) {
    out.extend_from_slice(&registration.number().to_be_bytes());
    out.extend_from_slice(&registration.nonce().to_be_bytes());
}

/// Takes pieces off the front of a frame. What is long is a slice of the frame, not a copy.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(frame: &'a Bytes) -> Self {
        Self { frame, at: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.frame.len() - self.at
    }

    pub(crate) fn fail<T>(&self, what: &'static str, problem: Problem) -> Result<T, DecodeError> {
        Err(DecodeError {
            at: self.at,
            what,
            problem,
        })
    }

    pub(crate) fn take(
        &mut self,
        count: usize,
        what: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        if count > self.left() {
            return self.fail(
                what,
                Problem::Short {
                    need: count,
                    left: self.left(),
                },
            );
        }
        let taken = &self.frame[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        self.fail(what, Problem::TooLarge)
    }

    /// The number of things that follow, each of `least` bytes or more: never more than can be there.
    pub(crate) fn count(&mut self, least: usize, what: &'static str) -> Result<usize, DecodeError> {
        let count = self.varint(what)?;
        let need = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .saturating_mul(least);
        if need > self.left() {
            return self.fail(
                what,
                Problem::Short {
                    need,
                    left: self.left(),
                },
            );
        }
        Ok(count as usize)
    }

    pub(crate) fn str(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let length = self.count(1, what)?;
        let start = self.at;
        match std::str::from_utf8(self.take(length, what)?) {
            Ok(text) => Ok(text),
            Err(error) => {
                self.at = start + error.valid_up_to();
                self.fail(what, Problem::NotUtf8)
            }
        }
    }

    pub(crate) fn name(&mut self, what: &'static str) -> Result<Name, DecodeError> {
        self.str(what).map(Name::from)
    }

    pub(crate) fn names(&mut self, what: &'static str) -> Result<Vec<Name>, DecodeError> {
        let count = self.count(1, what)?;
        (0..count).map(|_| self.name(what)).collect()
    }

    /// Announced bytes, as a slice of the frame.
    pub(crate) fn slice(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let length = self.count(1, what)?;
        let start = self.at;
        self.take(length, what)?;
        Ok(self.frame.slice(start..self.at))
    }

    /// All that is left, as a slice of the frame.
    pub(crate) fn rest(&mut self) -> Bytes {
        let rest = self.frame.slice(self.at..);
        self.at = self.frame.len();
        rest
    }

    pub(crate) fn uuid(&mut self, what: &'static str) -> Result<Uuid, DecodeError> {
        self.array(what).map(Uuid::from_bytes)
    }

    pub(crate) fn client(&mut self, what: &'static str) -> Result<ClientId, DecodeError> {
        self.uuid(what).map(ClientId::from)
    }

    pub(crate) fn incarnation(&mut self, what: &'static str) -> Result<Incarnation, DecodeError> {
        Ok(Incarnation::new(self.u64(what)?, self.u32(what)?))
    }

    pub(crate) fn registration(&mut self, what: &'static str) -> Result<Registration, DecodeError> {
        Ok(Registration::new(self.u64(what)?, self.u32(what)?))
    }

    /// That nothing is left.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => self.fail("end", Problem::Trailing(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_whatever_their_size() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                let frame = Bytes::from(out);
                let mut reader = Reader::new(&frame);
                assert_eq!(reader.varint("value").unwrap(), value);
                reader.end().unwrap();
            }
        }
    }

    #[test]
    fn what_does_not_fit_64_bits_is_no_number() {
        for bytes in [
            vec![0xff; 10],
            vec![0xff; 11],
            [vec![0x80; 9], vec![2]].concat(),
        ] {
            let frame = Bytes::from(bytes);
            let error = Reader::new(&frame).varint("value").unwrap_err();
            assert!(
                error.to_string().ends_with("value: too large a number"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_error_says_what_and_where() {
        let frame = Bytes::from_static(&[1, b'a', 200, 1, b'x']);
        let mut reader = Reader::new(&frame);
        assert_eq!(reader.str("group").unwrap(), "a");
        let error = reader.str("group").unwrap_err();
        assert_eq!(
            error.to_string(),
            "byte 4: group: 200 bytes announced, 1 left"
        );
    }
}
