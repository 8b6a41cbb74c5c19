//! The floors: what is left when there is no router. No clients, middleware, logic, codecs or policies; a connection
//! is a socket and a buffer. `floor MODE each` writes each message to each receiver; `floor MODE lanes` gathers what
//! one read gave, and what comes during a pass, into one write each; `floor MODE rest` lets a lane rest between
//! passes, where the load calls for it.

mod demand;
mod frames;
mod lane;
mod member;

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use gobroke_bench::{ACK, ANY, GROUPS, Mode, Whom, ready, room};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
};

use crate::{
    lane::{Entry, Lane, To},
    member::Member,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Each,
    Lanes,
    Rest,
}

struct Server {
    mode: Mode,
    kind: Kind,
    lanes: Vec<Arc<Lane>>,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let kind = match std::env::args().nth(2).as_deref() {
        Some("each") => Kind::Each,
        Some("rest") => Kind::Rest,
        _ => Kind::Lanes,
    };
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let server = Arc::new(Server {
        mode: Mode::from_args(),
        kind,
        lanes: (0..workers).map(|_| Arc::default()).collect(),
    });
    for lane in &server.lanes {
        tokio::spawn(lane.clone().run(kind == Kind::Rest));
    }
    let listener = TcpListener::bind(ANY).await?;
    ready(listener.local_addr()?);
    let mut index = 0;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(server.clone(), stream, index));
        index += 1;
    }
}

thread_local! {
    /// What is read into: a connection that is idle holds none.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 << 10]);
}

async fn serve(server: Arc<Server>, stream: TcpStream, index: usize) -> io::Result<()> {
    let path = frames::answer(&stream).await?;
    let (incoming, outgoing) = stream.into_split();
    let room = match server.mode {
        Mode::Mix => room(&path) % GROUPS,
        _ => room(&path),
    };
    let member = Arc::new(Member::new(outgoing, index, room));
    let lane = &server.lanes[index % server.lanes.len()];
    lane.admit(member.clone());
    let ended = Box::pin(read_on(&server, &member, incoming)).await;
    lane.remove(&member);
    ended
}

/// Reads through tokio: after a read that did not fill the buffer tokio knows that nothing is left, and the next one
/// waits without asking the system.
async fn read_on(
    server: &Server,
    member: &Arc<Member>,
    mut incoming: OwnedReadHalf,
) -> io::Result<()> {
    let mut begun = Vec::new();
    let mut read_once =
        |cx: &mut task::Context<'_>, buffer: &mut Vec<u8>| -> Poll<io::Result<()>> {
            let mut buffer = ReadBuf::new(buffer);
            task::ready!(Pin::new(&mut incoming).poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled_mut();
            if bytes.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if begun.is_empty() {
                let at = server.take(member, bytes);
                begun.extend_from_slice(&bytes[at..]);
            } else {
                begun.extend_from_slice(bytes);
                let at = server.take(member, &mut begun);
                begun.drain(..at);
            }
            if begun.is_empty() {
                begun = Vec::new();
            }
            Poll::Ready(Ok(()))
        };
    loop {
        poll_fn(|cx| BUFFER.with_borrow_mut(|buffer| read_once(cx, buffer))).await?;
    }
}

/// Answers all of a read with one write: nothing else is for its sender, so no lane has to keep the order.
fn echo(member: &Arc<Member>, input: &mut [u8]) -> usize {
    let mut answers = Vec::with_capacity(input.len());
    let mut at = 0;
    while let Some((payload, end)) = frames::next(&mut input[at..]) {
        frames::write(&input[at..][payload], &mut answers);
        at += end;
    }
    if !answers.is_empty() {
        member.write(&answers);
    }
    at
}

impl Server {
    /// Takes the whole messages of a read, and makes the passes that they ask for; gives back where they end.
    fn take(&self, member: &Arc<Member>, input: &mut [u8]) -> usize {
        if self.mode == Mode::Echo && self.kind != Kind::Each {
            return echo(member, input);
        }
        let mut at = 0;
        while let Some((payload, end)) = frames::next(&mut input[at..]) {
            let payload = &input[at..][payload];
            at += end;
            let to = match self.mode {
                Mode::All | Mode::AllAck => To::All,
                Mode::Others | Mode::OthersAck => To::Others(member.index),
                Mode::Rooms | Mode::Beside => To::Room(member.room),
                Mode::Echo => To::One(member.index),
                Mode::Mix => match Whom::of_payload(payload) {
                    Some(Whom::Group(group)) => To::Room(group),
                    Some(Whom::One(index)) => To::One(index),
                    Some(Whom::All) | None => To::All,
                },
            };
            self.put(payload, to);
            if self.mode.acknowledges() {
                self.put(&payload[..ACK.min(payload.len())], To::One(member.index));
            }
        }
        if self.kind != Kind::Each {
            self.lanes.iter().for_each(|lane| lane.pass_here());
        }
        at
    }

    fn put(&self, payload: &[u8], to: To) {
        if self.kind == Kind::Each {
            let mut frame = Vec::with_capacity(payload.len() + 10);
            frames::write(payload, &mut frame);
            for lane in &self.lanes {
                lane.write_now(&frame, to);
            }
            return;
        }
        let count = self.lanes.len();
        match to {
            To::One(index) => self.lanes[index % count].push(payload, Entry { to, end: 0 }),
            // All the queues at once: broadcasts have one order everywhere.
            _ => {
                let mut queues: Vec<_> = self.lanes.iter().map(|lane| lane.lock()).collect();
                for queue in &mut queues {
                    queue.push(payload, Entry { to, end: 0 });
                }
            }
        }
    }
}
