//! Why a connection ends: [`CloseReason`], with one code for each meaning, the same on every transport.

use std::{borrow::Cow, fmt};

/// Why a connection ends.
///
/// The codes are those of WebSocket (RFC 6455, section 7.4): 1000 to 1015 where the RFC has the meaning, 4000 and
/// above (its range for applications) where it has none. Other transports carry the same numbers in their own way.
///
/// | reason | code |
/// |---|---|
/// | `Normal` | 1000 |
/// | `GoingAway` | 1001 |
/// | `ProtocolError` | 1002 |
/// | `Unsupported` | 1003 |
/// | `InvalidPayload` | 1007 |
/// | `PolicyViolation` | 1008 |
/// | `TooBig` | 1009 |
/// | `Internal` | 1011 |
/// | `Busy` | 1013 |
/// | `SlowConsumer` | 4000 |
/// | `Idle` | 4001 |
/// | `Kicked` | 4002 |
/// | `Replaced` | 4003 |
/// | `Refused` | 4004 |
/// | `TokenExpired` | 4005 |
/// | `ConnectionLost` | 1006 (never sent: there is nobody to send it to) |
/// | `Peer` | what the peer said |
///
/// Who closes with which, how each transport says it, and whether to come back: the guide on
/// [errors](mod@crate::docs::errors).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The purpose of the connection is fulfilled.
    Normal,
    /// The server stops, or the peer's page went away.
    GoingAway,
    /// The peer broke the transport's protocol; says how.
    ProtocolError(Cow<'static, str>),
    /// The peer sent a kind of data that is not taken here (binary to a text codec).
    Unsupported(Cow<'static, str>),
    /// The peer's data contradicts its kind: text that is not UTF-8.
    InvalidPayload(Cow<'static, str>),
    /// The peer did what it may not do; says what.
    PolicyViolation(Cow<'static, str>),
    /// A frame or message above the limit.
    TooBig,
    /// Something on the server failed: a codec or an endpoint panicked.
    Internal,
    /// The server has no room; try again later.
    Busy,
    /// The client took its messages too slowly: its outbox was full, or its socket took nothing for the write stall.
    SlowConsumer,
    /// Nothing came from the client for too long.
    Idle,
    /// The program disconnected the client; says why.
    Kicked(Cow<'static, str>),
    /// The same client connected anew, here or on another instance: the newest connection wins.
    Replaced,
    /// The client was refused admission after the transport was up; says why.
    Refused(Cow<'static, str>),
    /// The client's token ended.
    TokenExpired,
    /// The connection broke, with no close of either side.
    ConnectionLost,
    /// The peer closed with this code.
    Peer(u16),
}

impl CloseReason {
    /// The code, as WebSocket has it.
    pub fn code(&self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::ProtocolError(_) => 1002,
            Self::Unsupported(_) => 1003,
            Self::ConnectionLost => 1006,
            Self::InvalidPayload(_) => 1007,
            Self::PolicyViolation(_) => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Busy => 1013,
            Self::SlowConsumer => 4000,
            Self::Idle => 4001,
            Self::Kicked(_) => 4002,
            Self::Replaced => 4003,
            Self::Refused(_) => 4004,
            Self::TokenExpired => 4005,
            Self::Peer(code) => *code,
        }
    }

    /// The reason in words, as it is sent to the client.
    pub fn text(&self) -> &str {
        match self {
            Self::Normal => "",
            Self::GoingAway => "going away",
            Self::ProtocolError(why)
            | Self::Unsupported(why)
            | Self::InvalidPayload(why)
            | Self::PolicyViolation(why)
            | Self::Kicked(why)
            | Self::Refused(why) => why,
            Self::TooBig => "message too big",
            Self::Internal => "internal error",
            Self::Busy => "busy, try again later",
            Self::SlowConsumer => "slow consumer",
            Self::Idle => "idle",
            Self::Replaced => "replaced by a newer connection",
            Self::TokenExpired => "token expired",
            Self::ConnectionLost => "connection lost",
            Self::Peer(_) => "closed by the peer",
        }
    }

    /// Whether there is still a peer that a close can be told to.
    pub fn is_sendable(&self) -> bool {
        !matches!(self, Self::ConnectionLost)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            "" => write!(f, "{}", self.code()),
            text => write!(f, "{} ({text})", self.code()),
        }
    }
}
