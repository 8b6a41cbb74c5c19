//! [`Rooms`]: rooms to join, leave and talk in.

mod elsewhere;
mod keeper;
mod protocol;

use gobroke_core::{Logic, Name, Worker};

use self::keeper::Keeper;

/// Rooms to join, leave and talk in: what a chat needs.
///
/// Clients speak JSON with it. A room exists as long as somebody is in it.
///
/// | a client sends | and is told, or the others are |
/// |---|---|
/// | `{"do":"join","room":"lobby","name":"Ann"}` | the client: `members`; the others in the room: `joined` |
/// | `{"do":"leave","room":"lobby"}` | the others: `left`. A client that disconnects leaves its rooms the same way |
/// | `{"do":"say","room":"lobby","text":"hi"}` | all in the room, the client included: `said` |
/// | `{"do":"rooms"}` | the client: `rooms` |
/// | `{"do":"members","room":"lobby"}` | the client: `members` |
///
/// ```json
/// {"event":"members","room":"lobby","members":[{"client":"0190d4f5-8e0b-7c3a-9d2e-1f2a3b4c5d6e","name":"Ann"}]}
/// {"event":"joined","room":"lobby","member":{"client":"0190..","name":"Ann"}}
/// {"event":"left","room":"lobby","member":{"client":"0190..","name":"Ann"}}
/// {"event":"said","room":"lobby","from":{"client":"0190..","name":"Ann"},"text":"hi","at":1790000000000}
/// {"event":"rooms","rooms":[{"room":"lobby","members":3}]}
/// {"event":"error","message":"join the room first"}
/// ```
///
/// - `at` is in milliseconds since 1970.
/// - A client has one name in all its rooms. Joining again with another renames it: the others in each of its rooms
///   hear `joined` with the name that now holds.
/// - It is a worker, so all in a room hear what happens there in one order.
/// - What breaks a bound is answered with `error` and changes nothing. Lengths are in characters. A list longer than
///   [`max_listed`](Self::max_listed) is cut, and says with `"more": n` how many are missing: of the rooms those with the
///   fewest members.
/// - The members of `lobby` are the group `room:lobby`, and a client's name is in its metadata as `name`: other logic
///   can send to a room, and read who is in it.
///
/// In a cluster, each instance keeps the rooms of its own clients. What is said reaches all members, wherever they are
/// connected, and so do `joined` and `left`. `members` lists those of all instances, as far as the directory has them:
/// who joins on two instances within the same few milliseconds may miss the other in it. `rooms` lists those of all
/// instances, too; how many members they have on others is counted at most once a second, and in large clusters more
/// seldom, since that reads all clients. Where an instance dies, nobody is told `left`; `rooms` and `members` show it.
/// What members of different instances say may be heard in different orders on different instances; what one member
/// says is not.
///
/// ```
/// use gobroke_core::Broke;
/// use gobroke_logic_contrib::Rooms;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), gobroke_core::StartError> {
/// let broke = Broke::builder().logic(Rooms::worker("chat").max_text(500)).start().await?;
/// # broke.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "rooms do nothing until they are added to a router"]
pub struct Rooms {
    name: Name,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    name: usize,
    room: usize,
    text: usize,
    rooms: usize,
    listed: usize,
}

impl Rooms {
    /// Rooms, kept by a worker of this name.
    pub fn worker(name: impl Into<Name>) -> Self {
        let limits = Limits {
            name: 40,
            room: 64,
            text: 4000,
            rooms: 20,
            listed: 1000,
        };
        Self {
            name: name.into(),
            limits,
        }
    }

    /// The longest name of a client. Default: 40 characters.
    pub fn max_name(mut self, characters: usize) -> Self {
        self.limits.name = characters;
        self
    }

    /// The longest name of a room. Default: 64 characters.
    pub fn max_room_name(mut self, characters: usize) -> Self {
        self.limits.room = characters;
        self
    }

    /// The longest text. Default: 4,000 characters.
    pub fn max_text(mut self, characters: usize) -> Self {
        self.limits.text = characters;
        self
    }

    /// How many rooms a client may be in. Default: 20.
    pub fn max_rooms_per_client(mut self, rooms: usize) -> Self {
        self.limits.rooms = rooms;
        self
    }

    /// How many rooms or members a list shows. Default: 1,000.
    pub fn max_listed(mut self, entries: usize) -> Self {
        self.limits.listed = entries;
        self
    }
}

impl From<Rooms> for Logic {
    fn from(rooms: Rooms) -> Self {
        Keeper::new(rooms.limits).into_worker(rooms.name)
    }
}
