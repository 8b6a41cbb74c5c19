//! [`Command`]: what can be done with a client of another instance, and how it is laid.
//!
//! ```text
//! command   1 code u16 · [why | code of the peer]     disconnect
//!           2 group   join       4 key · JSON value   set metadata
//!           3 group   leave      5 key                remove metadata
//! ```

use std::borrow::Cow;

use serde_json::Value;

use super::bytes::{DecodeError, Problem, Reader, put_bytes, put_varint};
use crate::{CloseReason, Name};

/// What can be done with a client of another instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Disconnect(CloseReason),
    Join(Name),
    Leave(Name),
    /// A metadata entry set, or, without a value, removed.
    SetMetadata {
        key: String,
        value: Option<Value>,
    },
}

const DISCONNECT: u8 = 1;
const JOIN: u8 = 2;
const LEAVE: u8 = 3;
const SET: u8 = 4;
const REMOVE: u8 = 5;

impl Command {
    /// Appends it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Disconnect(reason) => {
                out.push(DISCONNECT);
                put_reason(out, reason);
            }
            Self::Join(group) => {
                out.push(JOIN);
                put_bytes(out, group.as_bytes());
            }
            Self::Leave(group) => {
                out.push(LEAVE);
                put_bytes(out, group.as_bytes());
            }
            Self::SetMetadata { key, value } => {
                out.push(if value.is_some() { SET } else { REMOVE });
                put_bytes(out, key.as_bytes());
                if let Some(value) = value {
                    // See `put_json` on why this cannot fail.
                    put_bytes(
                        out,
                        &serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec()),
                    );
                }
            }
        }
    }

    /// Reads one.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.byte("command")? {
            DISCONNECT => reason(reader).map(Self::Disconnect),
            JOIN => reader.name("group").map(Self::Join),
            LEAVE => reader.name("group").map(Self::Leave),
            SET => {
                let key = reader.str("key")?.to_owned();
                let json = reader.slice("value")?;
                match serde_json::from_slice(&json) {
                    Ok(value) => Ok(Self::SetMetadata {
                        key,
                        value: Some(value),
                    }),
                    Err(error) => reader.fail("value", Problem::Json(error.to_string())),
                }
            }
            REMOVE => Ok(Self::SetMetadata {
                key: reader.str("key")?.to_owned(),
                value: None,
            }),
            other => reader.fail("command", Problem::Unknown(other.into())),
        }
    }
}

/// A reason is its code, and behind it its words where the code alone does not say them. Codes of peers, which may be
/// any, stand behind a code that no reason has.
fn put_reason(out: &mut Vec<u8>, reason: &CloseReason) {
    let code = if let CloseReason::Peer(_) = reason {
        0
    } else {
        reason.code()
    };
    out.extend_from_slice(&code.to_be_bytes());
    match reason {
        CloseReason::ProtocolError(why)
        | CloseReason::Unsupported(why)
        | CloseReason::InvalidPayload(why)
        | CloseReason::PolicyViolation(why)
        | CloseReason::Kicked(why)
        | CloseReason::Refused(why) => put_bytes(out, why.as_bytes()),
        CloseReason::Peer(code) => put_varint(out, u64::from(*code)),
        _ => {}
    }
}

fn reason(reader: &mut Reader<'_>) -> Result<CloseReason, DecodeError> {
    let code = u16::from_be_bytes([reader.byte("close code")?, reader.byte("close code")?]);
    let why = |reader: &mut Reader<'_>| reader.str("why").map(|why| Cow::Owned(why.to_owned()));
    Ok(match code {
        0 => {
            let code = reader.varint("close code")?;
            match u16::try_from(code) {
                Ok(code) => CloseReason::Peer(code),
                Err(_) => return reader.fail("close code", Problem::TooLarge),
            }
        }
        1000 => CloseReason::Normal,
        1001 => CloseReason::GoingAway,
        1002 => CloseReason::ProtocolError(why(reader)?),
        1003 => CloseReason::Unsupported(why(reader)?),
        1006 => CloseReason::ConnectionLost,
        1007 => CloseReason::InvalidPayload(why(reader)?),
        1008 => CloseReason::PolicyViolation(why(reader)?),
        1009 => CloseReason::TooBig,
        1011 => CloseReason::Internal,
        1013 => CloseReason::Busy,
        4000 => CloseReason::SlowConsumer,
        4001 => CloseReason::Idle,
        4002 => CloseReason::Kicked(why(reader)?),
        4003 => CloseReason::Replaced,
        4004 => CloseReason::Refused(why(reader)?),
        4005 => CloseReason::TokenExpired,
        other => return reader.fail("close code", Problem::Unknown(other.into())),
    })
}
