//! What clients say to the rooms and hear from them, as JSON.

use std::{cmp::Ordering, sync::Arc};

use gobroke_core::{ClientId, Name};
use serde::{Deserialize, Serialize};

/// What a client asks for.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(super) enum Request {
    Join { room: String, name: String },
    Leave { room: String },
    Say { room: String, text: String },
    Rooms,
    Members { room: String },
}

/// What clients are told.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Event<'a> {
    Rooms {
        rooms: Vec<RoomEntry<'a>>,
        #[serde(skip_serializing_if = "is_zero")]
        more: usize,
    },
    Members {
        room: &'a str,
        members: Vec<&'a Member>,
        #[serde(skip_serializing_if = "is_zero")]
        more: usize,
    },
    Joined {
        room: &'a str,
        member: &'a Member,
    },
    Left {
        room: &'a str,
        member: &'a Member,
    },
    Said {
        room: &'a str,
        from: &'a Member,
        text: &'a str,
        /// Milliseconds since 1970.
        at: u64,
    },
    Error {
        message: &'a str,
    },
}

impl<'a> Event<'a> {
    pub(super) fn members(group: &'a Name, members: Vec<&'a Member>, more: usize) -> Self {
        let room = room_of(group);
        Self::Members {
            room,
            members,
            more,
        }
    }

    pub(super) fn joined(group: &'a Name, member: &'a Member) -> Self {
        let room = room_of(group);
        Self::Joined { room, member }
    }

    pub(super) fn left(group: &'a Name, member: &'a Member) -> Self {
        let room = room_of(group);
        Self::Left { room, member }
    }

    pub(super) fn said(group: &'a Name, from: &'a Member, text: &'a str, at: u64) -> Self {
        let room = room_of(group);
        Self::Said {
            room,
            from,
            text,
            at,
        }
    }
}

/// A room in the list. The fullest come first.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct RoomEntry<'a> {
    room: &'a str,
    members: usize,
}

impl<'a> RoomEntry<'a> {
    pub(super) fn new((group, members): (&'a Name, usize)) -> Self {
        let room = room_of(group);
        Self { room, members }
    }
}

impl Ord for RoomEntry<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let fuller = other.members.cmp(&self.members);
        fuller.then_with(|| self.room.cmp(other.room))
    }
}

impl PartialOrd for RoomEntry<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Member {
    pub(super) client: ClientId,
    pub(super) name: Arc<str>,
}

/// What the groups of rooms begin with.
pub(super) const PREFIX: &str = "room:";

fn room_of(group: &Name) -> &str {
    group.strip_prefix(PREFIX).unwrap_or(group)
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
