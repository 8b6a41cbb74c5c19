//! What stands in a datagram: [`Datagram`] from clients, and the few that the server writes by itself.
//!
//! The layout is in the guide `docs/udp.md`.

use super::cookie::{Cookie, PROOF};

pub(super) const HELLO: u8 = 0x01;
pub(super) const COOKIE: u8 = 0x02;
pub(super) const CONNECT: u8 = 0x03;
pub(super) const ACCEPTED: u8 = 0x04;
pub(super) const REFUSED: u8 = 0x05;
pub(super) const FRAME: u8 = 0x10;
pub(super) const NUMBERED: u8 = 0x11;
pub(super) const PING: u8 = 0x12;
pub(super) const PONG: u8 = 0x13;
pub(super) const CLOSE: u8 = 0x14;
pub(super) const CHALLENGE: u8 = 0x15;
pub(super) const MOVED: u8 = 0x16;

/// What a handshake begins with, so that what strays in from elsewhere is not answered.
pub(super) const MAGIC: &[u8; 4] = b"GB01";

/// The names of a session: the client's, and the one that the server gave it.
pub(super) type Nonce = [u8; 8];
pub(super) type ConnectionId = [u8; 8];

/// The largest payload of a datagram over IPv4.
pub(super) const LARGEST: usize = 65_507;

/// A client's datagram, as far as it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datagram<'a> {
    /// Who are you? Asks for a cookie.
    Hello(Nonce),
    /// Opens a session, with a cookie that came to this address, and what the admission is told.
    Connect {
        nonce: Nonce,
        cookie: Cookie,
        first: &'a [u8],
    },
    /// Of a session.
    Of(ConnectionId, Event<'a>),
}

/// What a datagram of a session says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    Frame(&'a [u8]),
    /// A frame of which only the newest counts.
    Numbered(u32, &'a [u8]),
    Ping,
    Pong,
    Close(u16),
    /// The answer to a challenge: the client is where it says.
    Moved(Cookie),
}

impl<'a> Datagram<'a> {
    /// Reads a datagram; `None` for one that is none of ours.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        if matches!(kind, HELLO | CONNECT) {
            let (magic, rest) = rest.split_first_chunk()?;
            let (nonce, rest) = rest.split_first_chunk()?;
            if magic != MAGIC {
                return None;
            }
            if kind == HELLO {
                return rest.is_empty().then_some(Self::Hello(*nonce));
            }
            let (cookie, first) = rest.split_first_chunk::<PROOF>()?;
            return Some(Self::Connect {
                nonce: *nonce,
                cookie: Cookie::from_bytes(cookie),
                first,
            });
        }
        let (id, rest) = rest.split_first_chunk()?;
        let event = match kind {
            FRAME => Event::Frame(rest),
            NUMBERED => {
                let (number, frame) = rest.split_first_chunk()?;
                Event::Numbered(u32::from_be_bytes(*number), frame)
            }
            PING if rest.is_empty() => Event::Ping,
            PONG if rest.is_empty() => Event::Pong,
            CLOSE => Event::Close(match rest {
                [] => 1005,
                _ => u16::from_be_bytes(*rest.first_chunk()?),
            }),
            MOVED => Event::Moved(Cookie::from_bytes(rest.try_into().ok()?)),
            _ => return None,
        };
        Some(Self::Of(*id, event))
    }
}

/// Appends a datagram of these parts; what was there before goes.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    out.clear();
    out.push(kind);
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, kind, parts);
        out
    }

    #[test]
    fn every_kind_of_datagram_is_read() {
        let (nonce, id, cookie) = ([7; 8], [9; 8], Cookie::from_bytes(&[3; PROOF]));
        let read = |kind, parts: &[&[u8]]| {
            let bytes = laid(kind, parts);
            format!("{:?}", Datagram::read(&bytes).expect("a datagram"))
        };
        let is = |datagram: Datagram<'_>| format!("{datagram:?}");
        assert_eq!(read(HELLO, &[MAGIC, &nonce]), is(Datagram::Hello(nonce)));
        let connect = Datagram::Connect {
            nonce,
            cookie,
            first: b"token",
        };
        assert_eq!(
            read(CONNECT, &[MAGIC, &nonce, &[3; PROOF], b"token"]),
            is(connect)
        );
        let of = |event| is(Datagram::Of(id, event));
        assert_eq!(read(FRAME, &[&id, b"hi"]), of(Event::Frame(b"hi")));
        assert_eq!(read(FRAME, &[&id]), of(Event::Frame(b"")));
        let numbered = read(NUMBERED, &[&id, &[0, 0, 1, 2], b"hi"]);
        assert_eq!(numbered, of(Event::Numbered(258, b"hi")));
        assert_eq!(read(PING, &[&id]), of(Event::Ping));
        assert_eq!(read(PONG, &[&id]), of(Event::Pong));
        assert_eq!(read(CLOSE, &[&id]), of(Event::Close(1005)));
        assert_eq!(
            read(CLOSE, &[&id, &[3, 232], b"bye"]),
            of(Event::Close(1000))
        );
        assert_eq!(read(MOVED, &[&id, &[3; PROOF]]), of(Event::Moved(cookie)));
    }

    #[test]
    fn what_is_cut_or_strange_is_none_of_ours() {
        let id = [9; 8];
        let strange = [
            Vec::new(),
            laid(HELLO, &[b"GB02", &[7; 8]]),
            laid(HELLO, &[MAGIC, &[7; 7]]),
            laid(HELLO, &[MAGIC, &[7; 9]]),
            laid(CONNECT, &[MAGIC, &[7; 8], &[3; PROOF - 1]]),
            laid(FRAME, &[&id[..7]]),
            laid(NUMBERED, &[&id, &[0, 0, 1]]),
            laid(PING, &[&id, b"more"]),
            laid(CLOSE, &[&id, &[3]]),
            laid(MOVED, &[&id, &[3; PROOF + 1]]),
            laid(COOKIE, &[&id, &[3; PROOF]]),
            laid(0xff, &[&id]),
        ];
        for bytes in strange {
            assert_eq!(Datagram::read(&bytes), None, "{bytes:x?}");
        }
    }
}
