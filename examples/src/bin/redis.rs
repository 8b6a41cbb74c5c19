//! Several instances as one, over Redis: what is typed in one terminal is printed in all of them.
//!
//! With a Redis on this machine, start it in two terminals or more:
//!
//! ```text
//! cargo run --release --bin redis -- --instance one
//! cargo run --release --bin redis -- --instance two
//! ```
//!
//! What you see: each line that you type appears in every terminal, behind the name of the instance that it came from.
//! `/who` lists the clients of all instances, with the instance that each is connected to, and `/quit` ends one. Stop
//! Redis and start it again: until it is back, lines stay in their own terminal, and then the others get them, too.
//! Kill one with `kill -9`: when its lease has ended, 15 s later, `/who` does not list it any more.
//!
//! How it is made: each program is an instance with a TCP endpoint and the stock `Broadcaster`, and its own terminal
//! is a client of that endpoint. The one line that makes them one program is `.cluster(..)`.

use std::{
    io::{self, BufRead},
    process::ExitCode,
};

use gobroke_core::Broke;
use gobroke_endpoints::{RawCodec, TcpEndpoint};
use gobroke_examples::{Failure, exit, read_frame, write_frame};
use gobroke_logic_contrib::{Broadcaster, RateLimit};
use gobroke_redis::RedisCluster;
use lexopt::prelude::*;
use tokio::{
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::mpsc,
};

const HELP: &str = "\
Usage: redis [--redis URL] [--instance NAME]

  --redis URL      the Redis by which instances are one (default: redis://127.0.0.1:6379)
  --instance NAME  the name of this one (default: one)";

#[tokio::main]
async fn main() -> ExitCode {
    exit("redis", run().await)
}

async fn run() -> Result<(), Failure> {
    let Some((url, instance)) = read_arguments()? else {
        return Ok(());
    };
    let broke = Broke::builder()
        .instance(&*instance)
        .endpoint(TcpEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("all")))
        .receive_middleware(RateLimit::per_client().messages(50, 200).into_middleware())
        .logic(Broadcaster::dispatched("all"))
        .cluster(RedisCluster::new(&*url))
        .start()
        .await?;

    let address = broke
        .address("tcp")
        .ok_or_else(|| "there is no TCP endpoint".to_owned())?;
    let (from, mut to) = TcpStream::connect(address).await?.into_split();
    let printer = tokio::spawn(print(from));
    println!("This is instance {instance}. Type a line, /who or /quit.");

    let mut typed = typed_lines();
    let mut signal = std::pin::pin!(broke.until_signal());
    loop {
        let line = tokio::select! {
            () = &mut signal => break,
            line = typed.recv() => line,
        };
        match line.as_deref().map(str::trim) {
            None | Some("/quit") => {
                broke.stop().await;
                break;
            }
            Some("") => {}
            Some("/who") => {
                let clients = broke.clients().await;
                for client in &clients {
                    println!("* {} on {}", client.id, client.instance);
                }
                if clients.partial {
                    println!("Redis is away: there may be more elsewhere.");
                }
            }
            Some(line) => write_frame(&mut to, format!("{instance}: {line}").as_bytes()).await?,
        }
    }
    printer.abort();
    Ok(())
}

/// Prints what comes until the router closes the connection.
async fn print(mut from: OwnedReadHalf) {
    while let Ok(frame) = read_frame(&mut from).await {
        println!("{}", String::from_utf8_lossy(&frame));
    }
}

/// What is typed, until the end of the input. A terminal cannot be waited for without a thread.
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
fn read_arguments() -> Result<Option<(String, String)>, lexopt::Error> {
    let (mut url, mut instance) = ("redis://127.0.0.1:6379".to_owned(), "one".to_owned());
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("redis") => url = parser.value()?.string()?,
            Long("instance") => instance = parser.value()?.string()?,
            Long("help") | Short('h') => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some((url, instance)))
}
