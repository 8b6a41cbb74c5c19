//! A packet: what one PUBLISH carries. A version, a kind, and in a packet of frames each behind its length (u32, big
//! endian).

use bytes::{Buf, Bytes};

const VERSION: u8 = 1;
const FRAMES: u8 = 1;
const PROBE: u8 = 2;
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
}

/// Begins a packet of frames.
pub(super) fn begin(capacity: usize) -> Vec<u8> {
    let mut packet = Vec::with_capacity(capacity + 2);
    packet.extend_from_slice(&[VERSION, FRAMES]);
    packet
}

/// Adds a frame. None is as long as 4 GiB: a message is bounded by far less.
pub(super) fn add(packet: &mut Vec<u8>, frame: &[u8]) {
    packet.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    packet.extend_from_slice(frame);
}

pub(super) const fn probe() -> [u8; 2] {
    [VERSION, PROBE]
}

/// Reads a packet.
pub(super) fn read(mut packet: Bytes) -> Result<Packet, PacketError> {
    if packet.len() < 2 {
        return Err(PacketError::NoHead);
    }
    match (packet.get_u8(), packet.get_u8()) {
        (VERSION, FRAMES) => Ok(Packet::Frames(Frames(packet))),
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
        let mut packet = begin(64);
        for frame in [&b"one"[..], b"", b"three"] {
            add(&mut packet, frame);
        }
        let packet = Bytes::from(packet);
        for length in 0..=packet.len() {
            match read(packet.slice(..length)) {
                Ok(Packet::Frames(frames)) => {
                    let read: Vec<_> = frames.collect();
                    let whole =
                        read.iter().flatten().map(Bytes::len).sum::<usize>() + EACH * read.len();
                    assert!(read.last().is_none_or(Result::is_err) || whole == length - 2);
                }
                other => assert_eq!((other, length < 2), (Err(PacketError::NoHead), true)),
            }
        }
        let Ok(Packet::Frames(frames)) = read(packet) else {
            panic!("it is a packet of frames");
        };
        let frames: Vec<_> = frames.map(Result::unwrap).collect();
        assert_eq!(frames, [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn what_is_no_packet_is_refused_with_the_reason() {
        assert_eq!(
            read(Bytes::from_static(b"xy")),
            Err(PacketError::Version(b'x'))
        );
        assert_eq!(
            read(Bytes::from_static(&[VERSION, 9])),
            Err(PacketError::Kind(9))
        );
        assert_eq!(read(Bytes::copy_from_slice(&probe())), Ok(Packet::Probe));
    }
}
