//! A terminal client for the chat, over TCP.
//!
//! Start the server (`cargo run --release --bin chat`), then this, in as many terminals as you like:
//!
//! ```text
//! cargo run --bin chat_tcp -- --name Ann --room lobby 127.0.0.1:9000
//! ```
//!
//! What you see: who is in the room, who comes and goes, and what is said. A line that you type is said in the room;
//! `/help` lists what else there is. When the server goes away it says so, and comes back by itself.

mod chat;

use std::{
    io::{self, BufRead},
    process::ExitCode,
    time::Duration,
};

use gobroke_examples::{Failure, exit, read_frame, write_frame};
use lexopt::prelude::*;
use tokio::{
    net::{TcpStream, tcp::OwnedReadHalf},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

use self::chat::{COMMANDS, Chat, Heard};

const HELP: &str = "\
Usage: chat_tcp [--name NAME] [--room ROOM] [ADDR]

  --name NAME  what you are called (default: guest)
  --room ROOM  the room to begin in (default: lobby)
  ADDR         where the chat listens for TCP (default: 127.0.0.1:9000)";

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit("chat_tcp", run().await)
}

async fn run() -> Result<(), Failure> {
    let Some((address, mut chat)) = read_arguments()? else {
        return Ok(());
    };
    let connection = connect(&address)
        .await
        .map_err(|error| format!("cannot reach {address}: {error}"))?;
    let mut lines = typed_lines();
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = talk(&mut chat, connection, &address, &mut lines) => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

/// Talks until the user ends it, over as many connections as that takes.
async fn talk(
    chat: &mut Chat,
    first: TcpStream,
    address: &str,
    lines: &mut mpsc::Receiver<String>,
) {
    let mut connection = first;
    loop {
        match talk_over(chat, connection, lines).await {
            Ended::ByUser => return,
            Ended::ByServer(why) => println!("* the server went away: {why}"),
        }
        let mut pause = Duration::from_secs(1);
        connection = loop {
            println!("* trying again in {} s", pause.as_secs());
            tokio::select! {
                () = sleep(pause) => {}
                () = until_quit(lines) => return,
            }
            match connect(address).await {
                Ok(connection) => break connection,
                Err(error) => println!("* cannot reach {address}: {error}"),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        println!("* connected again");
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// Takes what is typed while there is no connection, until that is `/quit` or the end.
async fn until_quit(lines: &mut mpsc::Receiver<String>) {
    while let Some(line) = lines.recv().await {
        if line.trim() == "/quit" {
            return;
        }
        println!("* not sent, there is no connection: {line}");
    }
}

enum Ended {
    ByUser,
    ByServer(String),
}

/// Talks over one connection until it ends.
async fn talk_over(
    chat: &mut Chat,
    connection: TcpStream,
    lines: &mut mpsc::Receiver<String>,
) -> Ended {
    let (read, mut write) = connection.into_split();
    let mut frames = received_frames(read);
    let mut reason = None;
    let mut written = chat.begin(&mut write).await;
    while written.is_ok() {
        tokio::select! {
            line = lines.recv() => match line.as_deref().map(str::trim) {
                Some("/quit") | None => return Ended::ByUser,
                Some(line) => written = chat.obey(line, &mut write).await,
            },
            frame = frames.recv() => match frame.map(|frame| chat.show(&frame)) {
                Some(Heard::Shown) => {}
                Some(Heard::Ping) => written = write_frame(&mut write, br#"{"pong":{}}"#).await,
                Some(Heard::Close(why)) => reason = Some(why),
                None => break,
            },
        }
    }
    // A server that went without a word says nothing more than that.
    Ended::ByServer(reason.unwrap_or_else(|| "the connection broke".to_owned()))
}

/// Reads frames in a task of its own, since a frame that is half read must not be given up for a line typed.
fn received_frames(mut read: OwnedReadHalf) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok(frame) = read_frame(&mut read).await {
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads the standard input in a thread of its own: it cannot be read without blocking, and would hold the end up.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads the command line; none where it asked for help.
fn read_arguments() -> Result<Option<(String, Chat)>, lexopt::Error> {
    let mut address = "127.0.0.1:9000".to_owned();
    let (mut name, mut room) = ("guest".to_owned(), "lobby".to_owned());
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("name") => name = parser.value()?.string()?,
            Long("room") => room = parser.value()?.string()?,
            Long("help") | Short('h') => {
                println!("{HELP}\n\nOnce connected:\n{COMMANDS}");
                return Ok(None);
            }
            Value(given) => address = given.string()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some((address, Chat::new(name, room))))
}
