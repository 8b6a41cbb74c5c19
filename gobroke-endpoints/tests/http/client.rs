//! Clients that write requests by hand.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
};

use crate::common::{TcpClient, soon};

/// An answer: status, head, body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Sends a request over a connection of its own. HTTP/1.0, so that the answer is not cut into chunks.
pub(crate) async fn request(to: SocketAddr, method: &str, headers: &str, body: &[u8]) -> Answer {
    let mut client = TcpClient::connect(to).await;
    let head = format!(
        "{method} /events HTTP/1.0\r\nHost: chat.example\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    client.write([head.as_bytes(), body].concat()).await;
    let head = head_of(&mut client.0).await;
    let body = client.rest().await;
    Answer {
        status: head[9..12].parse().expect("a status"),
        head,
        body,
    }
}

pub(crate) async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.expect("more of the head"));
    }
    String::from_utf8(head).expect("text")
}

/// One event: its fields, `data` lines joined.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: String,
}

/// An open stream of events.
pub(crate) struct Events {
    pub(crate) stream: BufReader<TcpStream>,
    pub(crate) head: String,
}

impl Events {
    pub(crate) async fn open(to: SocketAddr, headers: &str) -> Self {
        let mut client = TcpClient::connect(to).await;
        let request = format!("GET /events HTTP/1.0\r\nHost: chat.example\r\n{headers}\r\n");
        client.write(request).await;
        let head = head_of(&mut client.0).await;
        assert!(head.contains(" 200 "), "{head}");
        Self {
            stream: BufReader::new(client.0),
            head,
        }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        let mut data = Vec::new();
        loop {
            let mut line = String::new();
            if soon(self.stream.read_line(&mut line))
                .await
                .expect("an end, not a reset")
                == 0
            {
                return None;
            }
            match line.trim_end_matches('\n').split_once(": ") {
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("data", line)) => data.push(line.to_owned()),
                Some(_) => {}
                None if data.is_empty() => {}
                None => {
                    event.data = data.join("\n");
                    return Some(event);
                }
            }
        }
    }

    pub(crate) async fn next_json(&mut self) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(event.name, "");
        serde_json::from_str(&event.data).expect("JSON")
    }

    /// The token, and that the welcome comes behind it.
    pub(crate) async fn session(&mut self) -> String {
        let session = self.next().await.expect("an event");
        assert_eq!(
            (session.name.as_str(), session.id),
            ("session", format!("{}.0", session.data))
        );
        session.data
    }
}
