//! A packet: what one PUBLISH carries. A version, a kind, and in a packet of frames each behind its length (u32, big
//! endian). Where the instances share a secret, a code stands before the frames.

use bytes::{Buf, Bytes};

use super::seal::{CODE, Seal};

const VERSION: u8 = 1;
const FRAMES: u8 = 1;
const PROBE: u8 = 2;
const SEALED: u8 = 3;
/// What stands before the code or the frames.
const HEAD: usize = 2;
/// What a frame takes beside its bytes.
pub(super) const EACH: usize = 4;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Frames(Frames),
    /// Nothing but a sign that the subscription works.
    Probe,
}

/// The frames of a packet, as slices of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frames(Bytes);

/// Why a packet cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PacketError {
    #[error("it has no head")]
    NoHead,
    #[error("its version is {0}, and {VERSION} is the only one known")]
    Version(u8),
    #[error("its kind is {0}, which is not known")]
    Kind(u8),
    #[error("it ends within a frame")]
    Truncated,
    #[error("it has no seal: its sender has no secret, and this instance has one")]
    Open,
    #[error("it has a seal: its sender has a secret, and this instance has none")]
    Sealed,
    #[error("its seal is wrong: its sender has another secret, or it was forged")]
    Forged,
}

/// Begins a packet of frames.
pub(super) fn begin(capacity: usize, seal: Option<&Seal>) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEAD + CODE + capacity);
    match seal {
        None => packet.extend_from_slice(&[VERSION, FRAMES]),
        Some(_) => {
            packet.extend_from_slice(&[VERSION, SEALED]);
            packet.resize(HEAD + CODE, 0);
        }
    }
    packet
}

/// Ends a packet, for this channel.
pub(super) fn end(mut packet: Vec<u8>, channel: &str, seal: Option<&Seal>) -> Bytes {
    if let Some(seal) = seal {
        let (head, frames) = packet.split_at_mut(HEAD + CODE);
        head[HEAD..].copy_from_slice(&seal.code(channel, frames));
    }
    packet.into()
}

/// Adds a frame. None is as long as 4 GiB: a message is bounded by far less.
pub(super) fn add(packet: &mut Vec<u8>, frame: &[u8]) {
    packet.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    packet.extend_from_slice(frame);
}

pub(super) const fn probe() -> [u8; 2] {
    [VERSION, PROBE]
}

/// Reads a packet that came through this channel.
pub(super) fn read(
    mut packet: Bytes,
    channel: &str,
    seal: Option<&Seal>,
) -> Result<Packet, PacketError> {
    if packet.len() < HEAD {
        return Err(PacketError::NoHead);
    }
    match (packet.get_u8(), packet.get_u8()) {
        (VERSION, FRAMES) => match seal {
            None => Ok(Packet::Frames(Frames(packet))),
            Some(_) => Err(PacketError::Open),
        },
        (VERSION, SEALED) => {
            let seal = seal.ok_or(PacketError::Sealed)?;
            if packet.len() < CODE {
                return Err(PacketError::Truncated);
            }
            let code = packet.split_to(CODE);
            match seal.is_sound(channel, &packet, &code) {
                true => Ok(Packet::Frames(Frames(packet))),
                false => Err(PacketError::Forged),
            }
        }
        (VERSION, PROBE) => Ok(Packet::Probe),
        (VERSION, kind) => Err(PacketError::Kind(kind)),
        (version, _) => Err(PacketError::Version(version)),
    }
}

impl Iterator for Frames {
    type Item = Result<Bytes, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let length = match self.0.len() {
            0..EACH => None,
            _ => Some(self.0.get_u32() as usize),
        };
        match length.filter(|length| *length <= self.0.len()) {
            Some(length) => Some(Ok(self.0.split_to(length))),
            None => {
                self.0.clear();
                Some(Err(PacketError::Truncated))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_and_whatever_is_cut_off_is_an_error() {
        let mut packet = begin(64, None);
        for frame in [&b"one"[..], b"", b"three"] {
            add(&mut packet, frame);
        }
        let packet = Bytes::from(packet);
        for length in 0..=packet.len() {
            match read(packet.slice(..length), "", None) {
                Ok(Packet::Frames(frames)) => {
                    let read: Vec<_> = frames.collect();
                    let whole =
                        read.iter().flatten().map(Bytes::len).sum::<usize>() + EACH * read.len();
                    assert!(read.last().is_none_or(Result::is_err) || whole == length - 2);
                }
                other => assert_eq!((other, length < 2), (Err(PacketError::NoHead), true)),
            }
        }
        let Ok(Packet::Frames(frames)) = read(packet, "", None) else {
            panic!("it is a packet of frames");
        };
        let frames: Vec<_> = frames.map(Result::unwrap).collect();
        assert_eq!(frames, [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn what_is_no_packet_is_refused_with_the_reason() {
        assert_eq!(
            read(Bytes::from_static(b"xy"), "", None),
            Err(PacketError::Version(b'x'))
        );
        assert_eq!(
            read(Bytes::from_static(&[VERSION, 9]), "", None),
            Err(PacketError::Kind(9))
        );
        assert_eq!(
            read(Bytes::copy_from_slice(&probe()), "", None),
            Ok(Packet::Probe)
        );
    }

    #[test]
    fn a_sealed_packet_is_read_where_it_was_sent_to_by_those_who_know_the_secret() {
        let seal = Seal::new(b"sixteen bytes or more");
        let mut packet = begin(64, Some(&seal));
        add(&mut packet, b"one");
        let packet = end(packet, "to:a", Some(&seal));
        let Ok(Packet::Frames(mut frames)) = read(packet.clone(), "to:a", Some(&seal)) else {
            panic!("it is a packet of frames");
        };
        assert_eq!(frames.next(), Some(Ok(Bytes::from_static(b"one"))));
        let elsewhere = read(packet.clone(), "to:b", Some(&seal));
        assert_eq!(elsewhere, Err(PacketError::Forged));
        let other = Seal::new(b"another sixteen bytes");
        let of_others = read(packet.clone(), "to:a", Some(&other));
        assert_eq!(of_others, Err(PacketError::Forged));
        assert_eq!(read(packet.clone(), "to:a", None), Err(PacketError::Sealed));
        let open = end(begin(64, None), "to:a", None);
        assert_eq!(read(open, "to:a", Some(&seal)), Err(PacketError::Open));
        for at in HEAD..packet.len() {
            let mut changed = packet.to_vec();
            changed[at] ^= 1;
            let changed = read(changed.into(), "to:a", Some(&seal));
            assert_eq!(changed, Err(PacketError::Forged), "byte {at}");
        }
        let cut = read(packet.slice(..HEAD + CODE - 1), "to:a", Some(&seal));
        assert_eq!(cut, Err(PacketError::Truncated));
    }
}
