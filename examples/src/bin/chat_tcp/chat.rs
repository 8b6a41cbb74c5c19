//! What this end knows of the chat: what it asks for, and what it shows.

use std::{
    collections::{BTreeMap, HashMap},
    io,
};

use gobroke_examples::write_frame;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::tcp::OwnedWriteHalf;

pub(crate) const COMMANDS: &str = "\
/join ROOM  join a room, and talk there    /leave      leave the room
/rooms      list the rooms                 /who        list who is in the room
/name NAME  change your name               /quit       end";

/// What this end knows of the chat.
pub(crate) struct Chat {
    name: String,
    /// The room that lines are said in.
    room: Option<String>,
    /// The rooms joined, and who is in each.
    rooms: BTreeMap<String, HashMap<String, String>>,
}

/// What a frame asks of this end.
pub(crate) enum Heard {
    /// Nothing more.
    Shown,
    /// An answer, so that the server knows that this end is there.
    Ping,
    /// To take the end that follows, for this reason.
    Close(String),
}

/// What the rooms tell, as far as this client shows it.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Rooms {
        rooms: Vec<Room>,
    },
    Members {
        room: String,
        members: Vec<Member>,
    },
    Joined {
        room: String,
        member: Member,
    },
    Left {
        room: String,
        member: Member,
    },
    Said {
        room: String,
        from: Member,
        text: String,
    },
    Error {
        message: String,
    },
}

#[derive(Deserialize)]
struct Room {
    room: String,
    members: usize,
}

#[derive(Deserialize)]
struct Member {
    client: String,
    name: String,
}

impl Chat {
    pub(crate) fn new(name: String, room: String) -> Self {
        let rooms = BTreeMap::from([(room.clone(), HashMap::new())]);
        Self {
            name,
            room: Some(room),
            rooms,
        }
    }

    /// Joins the rooms, on a connection that is new.
    pub(crate) async fn begin(&self, write: &mut OwnedWriteHalf) -> io::Result<()> {
        for room in self.rooms.keys() {
            ask(
                write,
                &json!({"do": "join", "room": room, "name": self.name}),
            )
            .await?;
        }
        Ok(())
    }

    /// Does what a typed line asks for.
    pub(crate) async fn obey(&mut self, line: &str, write: &mut OwnedWriteHalf) -> io::Result<()> {
        let (command, rest) = line
            .split_once(' ')
            .map_or((line, ""), |(command, rest)| (command, rest.trim()));
        match (command, rest, self.room.clone()) {
            ("", "", _) => Ok(()),
            ("/help", ..) => {
                println!("{COMMANDS}");
                Ok(())
            }
            ("/rooms", ..) => ask(write, &json!({"do": "rooms"})).await,
            ("/join", room, _) if !room.is_empty() => {
                self.rooms.entry(room.to_owned()).or_default();
                self.room = Some(room.to_owned());
                ask(
                    write,
                    &json!({"do": "join", "room": room, "name": self.name}),
                )
                .await
            }
            ("/name", name, _) if !name.is_empty() => {
                name.clone_into(&mut self.name);
                self.begin(write).await
            }
            ("/join" | "/name", ..) => {
                println!("* {command} needs a name behind it");
                Ok(())
            }
            ("/leave", _, Some(room)) => {
                self.rooms.remove(&room);
                self.room = self.rooms.keys().next().cloned();
                println!(
                    "* left {room}; {}",
                    self.room
                        .as_ref()
                        .map_or("now in no room".into(), |room| format!("now in {room}"))
                );
                ask(write, &json!({"do": "leave", "room": room})).await
            }
            ("/who", _, Some(room)) => ask(write, &json!({"do": "members", "room": room})).await,
            (command, ..)
                if command.starts_with('/') && command != "/leave" && command != "/who" =>
            {
                println!("* there is no {command}; /help lists what there is");
                Ok(())
            }
            (.., Some(room)) => ask(write, &json!({"do": "say", "room": room, "text": line})).await,
            (.., None) => {
                println!("* you are in no room; /join one first");
                Ok(())
            }
        }
    }

    /// Shows what the server sent, where it is for people.
    pub(crate) fn show(&mut self, frame: &[u8]) -> Heard {
        let Ok(mut frame) = serde_json::from_slice::<Value>(frame) else {
            println!("* the server sent something that is not JSON");
            return Heard::Shown;
        };
        if frame.get("ping").is_some() {
            return Heard::Ping;
        }
        if let Some(reason) = frame["close"]["reason"].as_str() {
            return Heard::Close(plain(reason));
        }
        if let Some(message) = frame["error"]["message"].as_str() {
            println!("* {}", plain(message));
        }
        // The welcome, and what a newer server may tell, are nothing to show.
        if let Ok(event) = serde_json::from_value::<Event>(frame["payload"].take()) {
            self.show_event(event);
        }
        Heard::Shown
    }

    fn show_event(&mut self, event: Event) {
        match event {
            Event::Rooms { rooms } => {
                let rooms: Vec<_> = rooms
                    .iter()
                    .map(|entry| format!("{} ({})", plain(&entry.room), entry.members))
                    .collect();
                println!(
                    "* rooms: {}",
                    if rooms.is_empty() {
                        "none".to_owned()
                    } else {
                        rooms.join(", ")
                    }
                );
            }
            Event::Members { room, members } => {
                let names: Vec<_> = members.iter().map(|member| plain(&member.name)).collect();
                println!("* in {}: {}", plain(&room), names.join(", "));
                if let Some(here) = self.rooms.get_mut(&room) {
                    *here = members
                        .into_iter()
                        .map(|member| (member.client, member.name))
                        .collect();
                }
            }
            Event::Joined { room, member } => {
                let Some(here) = self.rooms.get_mut(&room) else {
                    return;
                };
                let name = plain(&member.name);
                match here.insert(member.client, member.name) {
                    None => println!("* {name} joined {}", plain(&room)),
                    Some(before) => println!("* {} is now {name}", plain(&before)),
                }
            }
            Event::Left { room, member } => {
                let Some(here) = self.rooms.get_mut(&room) else {
                    return;
                };
                here.remove(&member.client);
                println!("* {} left {}", plain(&member.name), plain(&room));
            }
            Event::Said { room, from, text } => {
                println!("[{}] {}: {}", plain(&room), plain(&from.name), plain(&text));
            }
            Event::Error { message } => println!("* {}", plain(&message)),
        }
    }
}

/// Text of others, without what a terminal would take for commands.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

async fn ask(write: &mut OwnedWriteHalf, payload: &Value) -> io::Result<()> {
    write_frame(write, json!({ "payload": payload }).to_string().as_bytes()).await
}
