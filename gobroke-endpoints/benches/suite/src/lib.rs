//! What the contenders of the suite have in common: how they are started, and what they do with a message.

pub mod tls;

use std::net::SocketAddr;

/// What a server does with a message: its first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everyone gets it, the sender included.
    All,
    /// The same, and the sender an acknowledgement too: the first 32 bytes of its message.
    AllAck,
    /// Everyone but the sender gets it.
    Others,
    /// The same, and the sender an acknowledgement.
    OthersAck,
    /// Those in the room that the connection's path names (`/7`) get it, the sender included.
    Rooms,
    /// The sender gets it back.
    Echo,
    /// Those in room 0 get what is said there; of the two in room 1 each gets what the other sends, as a direct message.
    Beside,
    /// Everyone, a group, or one client gets it, by its number: see [`Whom`].
    Mix,
}

/// How many clients there are in [`Mode::Mix`], each with its index as its path, and in how many groups.
pub const MIXED: usize = 100;
pub const GROUPS: usize = 10;

/// Whom a message is for in [`Mode::Mix`]: its sender's messages go to all, to its group and to one client in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    All,
    Group(usize),
    One(usize),
}

impl Whom {
    /// By the index of the sender, and the number of the message there. The one is another one each time.
    pub fn of(sender: usize, number: u32) -> Self {
        match number % 3 {
            0 => Self::All,
            1 => Self::Group(sender % GROUPS),
            _ => Self::One((sender + number as usize / 3) % MIXED),
        }
    }

    /// The same for a message as it comes, which begins with both in eight hexadecimal digits each.
    pub fn of_payload(payload: &[u8]) -> Option<Self> {
        let digits =
            |range| u32::from_str_radix(str::from_utf8(payload.get(range)?).ok()?, 16).ok();
        Some(Self::of(digits(0..8)? as usize, digits(8..16)?))
    }

    pub fn has(self, receiver: usize) -> bool {
        match self {
            Self::All => true,
            Self::Group(group) => receiver % GROUPS == group,
            Self::One(one) => receiver == one,
        }
    }

    /// How many they are.
    pub fn count(self) -> usize {
        match self {
            Self::All => MIXED,
            Self::Group(_) => MIXED / GROUPS,
            Self::One(_) => 1,
        }
    }
}

/// How many bytes of a message its acknowledgement repeats: who sent it, which it was, and when.
pub const ACK: usize = 32;

impl Mode {
    /// The first argument of the program.
    pub fn from_args() -> Self {
        let mode = std::env::args().nth(1).unwrap_or_default();
        Self::parse(&mode).unwrap_or_else(|| {
            eprintln!("usage: PROGRAM all|all-ack|others|others-ack|rooms|echo|beside|mix");
            std::process::exit(2)
        })
    }

    fn parse(name: &str) -> Option<Self> {
        [
            Self::All,
            Self::AllAck,
            Self::Others,
            Self::OthersAck,
            Self::Rooms,
            Self::Echo,
            Self::Beside,
            Self::Mix,
        ]
        .into_iter()
        .find(|mode| mode.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::AllAck => "all-ack",
            Self::Others => "others",
            Self::OthersAck => "others-ack",
            Self::Rooms => "rooms",
            Self::Echo => "echo",
            Self::Beside => "beside",
            Self::Mix => "mix",
        }
    }

    /// Whether whoever says something in a room gets it too.
    pub fn includes_sender(self) -> bool {
        !matches!(self, Self::Others | Self::OthersAck)
    }

    /// Whether the sender gets an acknowledgement.
    pub fn acknowledges(self) -> bool {
        matches!(self, Self::AllAck | Self::OthersAck)
    }
}

/// The room that a path names.
pub fn room(path: &str) -> usize {
    path.trim_start_matches('/').parse().unwrap_or(0)
}

/// Says where the server listens.
pub fn ready(address: SocketAddr) {
    println!("ready {address}");
}

/// How many worker threads a runtime has, in the environment of a program: tokio's own name for it.
pub const WORKERS: &str = "TOKIO_WORKER_THREADS";

/// In the environment of a program: its sockets are left as the system makes them, with Nagle's algorithm.
pub const NAGLE: &str = "BENCH_NAGLE";

/// Whether a server's sockets send at once whatever is written. The examples of most contenders do not ask for that; what
/// they gain or lose by it is measured where they are asked for with Nagle's algorithm.
pub fn nodelay() -> bool {
    std::env::var_os(NAGLE).is_none()
}

/// An address of this machine with a free port.
pub const ANY: &str = "127.0.0.1:0";
