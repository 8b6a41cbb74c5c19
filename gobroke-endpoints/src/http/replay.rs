//! What a client was sent last, so that it can go on where its connection broke: [`Replay`].

use std::{collections::VecDeque, fmt::Write};

use bytes::Bytes;

/// How much is given to a stream at a time.
const CHUNK: usize = 64 << 10;

/// Events with their numbers, of which some have been given to a stream.
///
/// Those that were not given are kept; of the others, the newest that fit into `bound` bytes.
#[derive(Debug)]
pub(super) struct Replay {
    /// What stands before the number in an event's id.
    session: String,
    events: VecDeque<Bytes>,
    /// The number of the first of `events`.
    first: u64,
    /// The number of the next one that a stream gets.
    next: u64,
    bytes: usize,
    not_given: usize,
    bound: usize,
}

impl Replay {
    pub(super) fn new(session: String, bound: usize) -> Self {
        Self {
            session,
            events: VecDeque::new(),
            first: 0,
            next: 0,
            bytes: 0,
            not_given: 0,
            bound,
        }
    }

    /// Appends an event: its lines, and the empty one that ends it.
    pub(super) fn push(&mut self, lines: &[u8]) {
        let number = self.first + self.events.len() as u64;
        let mut id = String::with_capacity(self.session.len() + 16);
        // Writing into a string does not fail.
        let _ = writeln!(id, "id: {}.{number}", self.session);
        let event = Bytes::from([id.as_bytes(), lines].concat());
        self.bytes += event.len();
        self.not_given += event.len();
        self.events.push_back(event);
        self.trim();
    }

    /// Whether more should be taken for the client.
    pub(super) fn has_room(&self) -> bool {
        self.not_given < self.bound
    }

    /// Whether there is something that a stream was not given.
    pub(super) fn is_waiting(&self) -> bool {
        self.not_given > 0
    }

    /// What the stream gets next, which is given with that; empty where nothing waits.
    pub(super) fn give(&mut self) -> Bytes {
        let mut chunk = Vec::new();
        let mut at = (self.next - self.first) as usize;
        while let Some(event) = self.events.get(at)
            && (chunk.is_empty() || chunk.len() + event.len() <= CHUNK)
        {
            chunk.extend_from_slice(event);
            at += 1;
        }
        self.next = self.first + at as u64;
        self.not_given -= chunk.len();
        self.trim();
        chunk.into()
    }

    /// Goes back to behind the event `last`, which the client saw last. Says how many behind that are not kept any more.
    pub(super) fn go_back(&mut self, last: u64) -> u64 {
        let wanted = last.saturating_add(1).min(self.next);
        let lost = self.first.saturating_sub(wanted);
        let from = wanted.max(self.first);
        let again = self
            .events
            .range((from - self.first) as usize..(self.next - self.first) as usize);
        self.not_given += again.map(Bytes::len).sum::<usize>();
        self.next = from;
        lost
    }

    fn trim(&mut self) {
        while self.bytes > self.bound && self.first < self.next {
            if let Some(event) = self.events.pop_front() {
                self.bytes -= event.len();
                self.first += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(events: u64) -> Replay {
        let mut replay = Replay::new("s".to_owned(), 60);
        for number in 0..events {
            replay.push(format!("data: {number}\n\n").as_bytes());
        }
        replay
    }

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).expect("text")
    }

    #[test]
    fn events_are_numbered_and_given_once() {
        let mut replay = replay(2);
        let given = replay.give();
        assert_eq!(text(&given), "id: s.0\ndata: 0\n\nid: s.1\ndata: 1\n\n");
        assert!(!replay.is_waiting() && replay.give().is_empty());
    }

    #[test]
    fn what_the_client_did_not_see_is_given_again() {
        let mut replay = replay(3);
        replay.give();
        assert_eq!(replay.go_back(0), 0);
        let given = replay.give();
        assert_eq!(text(&given), "id: s.1\ndata: 1\n\nid: s.2\ndata: 2\n\n");
        assert_eq!(replay.go_back(2), 0);
        assert!(!replay.is_waiting());
        assert_eq!(replay.go_back(u64::MAX), 0, "a number that there never was");
        assert!(!replay.is_waiting());
    }

    #[test]
    fn of_what_was_given_the_newest_is_kept_and_of_the_rest_everything() {
        let mut replay = replay(10);
        assert!(!replay.has_room());
        assert_eq!(replay.events.len(), 10, "nothing was given yet");
        replay.give();
        assert!(replay.bytes <= 60 && replay.has_room());
        assert_eq!((replay.events.len(), replay.first), (3, 7));
        assert_eq!(replay.go_back(4), 2, "5 and 6");
        assert_eq!(text(&replay.give()).matches("data").count(), 3);
    }
}
