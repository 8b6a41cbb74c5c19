//! Frame headers and masks (RFC 6455, section 5.2), without I/O.
//!
//! By hand: it is little, and a server is bound by it. Header and mask of a 128-byte frame take 12 ns here;
//! `soketto::base`, which has the same without I/O, takes 107 (it unmasks byte by byte) and brings 30 crates.

use std::{borrow::Cow, ops::Range};

use gobroke_core::{CloseReason, Format};

/// What a frame is (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }
}

/// The header of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) last: bool,
    pub(super) compressed: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    pub(super) length: usize,
}

/// The bit in the first byte that says that a message is compressed (RFC 7692, section 6).
pub(super) const COMPRESSED: u8 = 0x40;

/// The longest header.
pub(super) const LONGEST: usize = 14;

/// The largest payload of a control frame (section 5.5).
pub(super) const LARGEST_CONTROL: usize = 125;

impl Header {
    /// The header that `bytes` begin with, and its own length; `None` where more has to come.
    ///
    /// A length in more bytes than it needs is taken: some clients write all lengths alike.
    ///
    /// # Errors
    /// What the client did wrong, as soon as that is seen.
    #[inline]
    pub(super) fn parse(
        bytes: &[u8],
        longest: usize,
        may_compress: bool,
    ) -> Result<Option<(Self, usize)>, CloseReason> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let last = first & 0x80 != 0;
        let opcode = Opcode::from_bits(first & 0x0f)
            .ok_or_else(|| broken("the opcode is a reserved one"))?;
        let compressed = first & 0x70 == COMPRESSED
            && may_compress
            && matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & 0x70 != 0 && !compressed {
            return Err(broken("a reserved bit is set, which was not agreed on"));
        }
        if opcode.is_control() && !last {
            return Err(broken("a control frame is fragmented"));
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        if second & 0x80 == 0 {
            return Err(broken("a frame of a client is not masked"));
        }
        let (length, rest) = match second & 0x7f {
            short @ 0..=125 => (u64::from(short), &bytes[2..]),
            _ if opcode.is_control() => {
                return Err(broken("a control frame has more than 125 bytes"));
            }
            126 => match bytes[2..].split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            _ => match bytes[2..].split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
        };
        if length > i64::MAX as u64 {
            return Err(broken("the first bit of a length is set"));
        }
        // Told before the mask arrives, and whatever else may be wrong.
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= longest || opcode.is_control());
        let length = length.ok_or(CloseReason::TooBig)?;
        let Some((mask, behind)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        Ok(Some((
            Self {
                last,
                compressed,
                opcode,
                mask: *mask,
                length,
            },
            bytes.len() - behind.len(),
        )))
    }
}

/// A frame that is a message by itself, not compressed, and has come whole: what nearly all frames are.
pub(super) struct Whole {
    pub(super) format: Format,
    pub(super) mask: [u8; 4],
    /// Where the payload stands.
    pub(super) payload: Range<usize>,
}

impl Whole {
    /// The one that `bytes` begin with. `None` for all others and all that is wrong: what it is, [`Header::parse`] says.
    #[inline]
    pub(super) fn parse(bytes: &[u8], longest: usize) -> Option<Self> {
        let format = match bytes.first()? {
            0x81 => Format::Text,
            0x82 => Format::Binary,
            _ => return None,
        };
        let (length, rest) = match bytes.get(1)? {
            short @ 0x80..=0xfd => (usize::from(short & 0x7f), &bytes[2..]),
            0xfe => {
                let (length, rest) = bytes[2..].split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            _ => return None,
        };
        let (mask, behind) = rest.split_first_chunk()?;
        let start = bytes.len() - behind.len();
        (length <= longest.min(behind.len())).then_some(Self {
            format,
            mask: *mask,
            payload: start..start + length,
        })
    }
}

/// Close code 1002, and why.
pub(super) fn broken(why: impl Into<Cow<'static, str>>) -> CloseReason {
    CloseReason::ProtocolError(why.into())
}

/// Takes a client's mask off (section 5.3), or puts it on, 32 bytes at a time.
#[inline]
pub(super) fn unmask(mask: [u8; 4], bytes: &mut [u8]) {
    let key = u64::from(u32::from_ne_bytes(mask)) * 0x1_0000_0001;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    let (lines, words) = words.as_chunks_mut::<4>();
    let take_off = |word: &mut [u8; 8]| *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
    for line in lines {
        line.iter_mut().for_each(take_off);
    }
    words.iter_mut().for_each(take_off);
    for (byte, key) in rest.iter_mut().zip(key.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// The header of a server's frame, whole and not masked, and how much of it is used.
pub(super) fn header(opcode: Opcode, length: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = 0x80 | opcode.bits();
    match length {
        0..=125 => header[1] = length as u8,
        126..=0xffff => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(length as u64).to_be_bytes());
        }
    }
    (header, header_len(length))
}

/// Appends it.
#[inline]
pub(super) fn write_header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    if let 0..=125 = length {
        return out.extend_from_slice(&[0x80 | opcode.bits(), length as u8]);
    }
    let (header, size) = header(opcode, length);
    out.extend_from_slice(&header[..size]);
}

/// How long that header is.
pub(super) fn header_len(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, CloseReason> {
        Header::parse(bytes, 1 << 20, false)
    }

    #[test]
    fn lengths_of_all_three_forms_are_read_and_written() {
        for (length, size) in [
            (0, 6),
            (125, 6),
            (126, 8),
            (0xffff, 8),
            (0x1_0000, 14),
            (1 << 20, 14),
        ] {
            let mut bytes = Vec::new();
            write_header(Opcode::Binary, length, &mut bytes);
            assert_eq!(bytes.len(), header_len(length));
            bytes[1] |= 0x80;
            bytes.extend_from_slice(&[1, 2, 3, 4]);
            assert_eq!(bytes.len(), size);
            for cut in 0..size {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{length}, cut at {cut}");
            }
            bytes.push(9);
            let header = Header {
                compressed: false,
                last: true,
                opcode: Opcode::Binary,
                mask: [1, 2, 3, 4],
                length,
            };
            assert_eq!(parse(&bytes), Ok(Some((header, size))));
        }
    }

    #[test]
    fn a_length_in_more_bytes_than_it_needs_is_taken() {
        let bytes = [0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4];
        assert_eq!(
            parse(&bytes).map(|found| found.map(|(header, _)| header.length)),
            Ok(Some(1))
        );
    }

    #[test]
    fn a_frame_that_is_taken_whole_is_what_its_header_says() {
        for first in 0..=0xff {
            for length in [0, 5, 125, 126, 300] {
                let mut bytes = Vec::new();
                write_header(Opcode::Binary, length, &mut bytes);
                bytes[0] = first;
                bytes[1] |= 0x80;
                bytes.extend_from_slice(&[1, 2, 3, 4]);
                bytes.resize(bytes.len() + length, 9);
                let header = Header::parse(&bytes, 299, false);
                for cut in 0..bytes.len() {
                    assert!(Whole::parse(&bytes[..cut], 299).is_none());
                }
                // Something stands behind it.
                bytes.push(0x82);
                let Some(whole) = Whole::parse(&bytes, 299) else {
                    let usual = matches!(first, 0x81 | 0x82) && length <= 299;
                    assert!(!usual, "{first:x}, {length} bytes");
                    continue;
                };
                let Ok(Some((header, size))) = header else {
                    panic!("{first:x}, {length} bytes: {header:?}");
                };
                assert_eq!(whole.payload, size..size + header.length);
                assert_eq!(whole.mask, header.mask);
                assert!(header.last && !header.compressed);
                let text = header.opcode == Opcode::Text;
                assert_eq!(whole.format == Format::Text, text);
            }
        }
        assert!(
            Whole::parse(&[0x82, 0x00, 1, 2, 3, 4], 9).is_none(),
            "not masked"
        );
    }

    #[test]
    fn what_breaks_the_protocol_is_told_at_once() {
        let cases: [(&[u8], &str); 16] = [
            (&[0xc1], "reserved bit"),
            (&[0xa1], "reserved bit"),
            (&[0x91], "reserved bit"),
            (&[0xf1, 0x80], "reserved bit"),
            (&[0x83], "opcode"),
            (&[0x87], "opcode"),
            (&[0x8b], "opcode"),
            (&[0x8f], "opcode"),
            (&[0x08], "fragmented"),
            (&[0x09], "fragmented"),
            (&[0x0a], "fragmented"),
            (&[0x81, 0x05], "not masked"),
            (&[0x89, 0xfe], "125"),
            (&[0x88, 0xff], "125"),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], "first bit"),
            (
                &[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                "first bit",
            ),
        ];
        for (bytes, says) in cases {
            match parse(bytes) {
                Err(CloseReason::ProtocolError(why)) => {
                    assert!(why.contains(says), "{bytes:x?}: {why}");
                }
                other => panic!("{bytes:x?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_length_above_the_limit_is_told_before_anything_of_it_came() {
        assert_eq!(
            parse(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1]),
            Err(CloseReason::TooBig)
        );
        assert_eq!(
            parse(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Err(CloseReason::TooBig)
        );
        assert_eq!(
            Header::parse(&[0x82, 0x85], 4, false),
            Err(CloseReason::TooBig)
        );
    }

    #[test]
    fn unmasking_by_words_is_unmasking_by_bytes() {
        let mask = [0x12, 0x34, 0x56, 0x78];
        for length in 0..40 {
            let plain: Vec<u8> = (0..length).collect();
            let mut masked: Vec<u8> = plain
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, key)| byte ^ key)
                .collect();
            unmask(mask, &mut masked);
            assert_eq!(masked, plain);
        }
    }
}
