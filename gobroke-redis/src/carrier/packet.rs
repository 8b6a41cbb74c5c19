//! A packet: what one PUBLISH carries. A version, a kind, and in a packet of frames each behind its length (u32, big
//! endian). Where the instances share a secret, a code stands before them, then the packet's number (u64) and its
//! origin behind its length (u16).
//!
//! A packet may have frames for many, so its version goes with that of envelopes: another one is to be written only where
//! the record of each instance names a version of envelopes that is no older.

use bytes::{Buf, Bytes};

use super::seal::{CODE, Seal, Sealing};

const VERSION: u8 = 1;
const FRAMES: u8 = 1;
const PROBE: u8 = 2;
const SEALED: u8 = 3;
/// What stands before the code or the frames.
const HEAD: usize = 2;
/// How long a number is, and the length of an origin.
const NUMBER: usize = 8;
const LENGTH: usize = 2;
/// What a frame takes beside its bytes.
pub(super) const EACH: usize = 4;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Frames(Frames),
    /// Frames of whom it says, and the number that they have among all its packets.
    Sealed {
        origin: Bytes,
        number: u64,
        frames: Frames,
    },
    /// Nothing but a sign that the subscription works: it proves that by being there, whoever sent it.
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

/// Begins a packet of frames, with room for so many bytes of them.
pub(super) fn begin(capacity: usize, sealing: Option<&Sealing>) -> Vec<u8> {
    let sealed = sealing.map_or(0, |sealing| CODE + NUMBER + LENGTH + sealing.origin.len());
    let mut packet = Vec::with_capacity(HEAD + sealed + capacity);
    match sealing {
        None => packet.extend_from_slice(&[VERSION, FRAMES]),
        Some(sealing) => {
            packet.extend_from_slice(&[VERSION, SEALED]);
            packet.resize(HEAD + CODE + NUMBER, 0);
            // A name is far shorter than 64 KiB: it is part of a channel's.
            packet.extend_from_slice(&(sealing.origin.len() as u16).to_be_bytes());
            packet.extend_from_slice(sealing.origin.as_bytes());
        }
    }
    packet
}

/// Ends a packet, for this channel. Packets have to be published in the order in which they are ended.
pub(super) fn end(mut packet: Vec<u8>, channel: &str, sealing: Option<&Sealing>) -> Bytes {
    if let Some(sealing) = sealing {
        let (head, sealed) = packet.split_at_mut(HEAD + CODE);
        sealed[..NUMBER].copy_from_slice(&sealing.draw().to_be_bytes());
        head[HEAD..].copy_from_slice(&sealing.seal.code(channel, sealed));
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
            if !seal.is_sound(channel, &packet, &code) {
                return Err(PacketError::Forged);
            }
            let number = packet.try_get_u64().map_err(|_| PacketError::Truncated)?;
            let length = packet.try_get_u16().map_err(|_| PacketError::Truncated)?;
            if packet.len() < usize::from(length) {
                return Err(PacketError::Truncated);
            }
            Ok(Packet::Sealed {
                origin: packet.split_to(length.into()),
                number,
                frames: Frames(packet),
            })
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
        let sealing = Sealing::new(seal.clone(), "b#1.0");
        let packed = || {
            let mut packet = begin(64, Some(&sealing));
            add(&mut packet, b"one");
            end(packet, "to:a", Some(&sealing))
        };
        for expected in 1..4 {
            let Ok(Packet::Sealed {
                origin,
                number,
                mut frames,
            }) = read(packed(), "to:a", Some(&seal))
            else {
                panic!("it is a sealed packet");
            };
            assert_eq!((&*origin, number), (&b"b#1.0"[..], expected));
            assert_eq!(frames.next(), Some(Ok(Bytes::from_static(b"one"))));
        }
        let packet = packed();
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
