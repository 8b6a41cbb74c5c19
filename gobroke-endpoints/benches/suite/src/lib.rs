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
}

/// How many bytes of a message its acknowledgement repeats: who sent it, which it was, and when.
pub const ACK: usize = 32;

impl Mode {
    /// The first argument of the program.
    pub fn from_args() -> Self {
        let mode = std::env::args().nth(1).unwrap_or_default();
        Self::parse(&mode).unwrap_or_else(|| {
            eprintln!("usage: PROGRAM all|all-ack|others|others-ack|rooms|echo|beside");
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
