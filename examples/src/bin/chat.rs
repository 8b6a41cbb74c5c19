//! A chat: rooms, who is in them, and what they say, in browsers and over TCP.
//!
//! Start it, and open the page that it names in two tabs:
//!
//! ```text
//! cargo run --release --bin chat
//! ```
//!
//! What you see: each tab is in the room `lobby`, under a name that it can change, and shows who is there and what is
//! said. A terminal can take part too: `cargo run --bin chat_tcp`. Stop the server with Ctrl-C and start it again: the
//! tabs come back by themselves. `--http ADDR` and `--tcp ADDR` listen elsewhere (port 0 for a free one).
//!
//! Several instances are one chat when each has a name, and all have one Redis (`make cluster` starts three, and a Redis):
//!
//! ```text
//! cargo run --release --bin chat -- --redis redis://127.0.0.1:6379 --instance one
//! cargo run --release --bin chat -- --redis redis://127.0.0.1:6379 --instance two --http 127.0.0.1:8081 --tcp 127.0.0.1:9001
//! ```
//!
//! How it is made: one router, two endpoints (a WebSocket route in an axum `Router`, beside the page; and TCP), the
//! stock `Rooms`, and bounds on how much and how seldom a client may talk.

use std::{future::IntoFuture, net::SocketAddr, process::ExitCode, time::Duration};

use axum::{Router, response::Html, routing::get};
use gobroke_core::{Broke, EndpointOptions};
use gobroke_endpoints::{JsonCodec, TcpEndpoint, WebSocketEndpoint};
use gobroke_examples::{Failure, Together, address, exit};
use gobroke_logic_contrib::{InactivityMonitor, RateLimit, Rooms};
use lexopt::prelude::*;
use tokio::net::TcpListener;

const PAGE: &str = include_str!("../chat/page.html");

const HELP: &str = "\
Usage: chat [--http ADDR] [--tcp ADDR] [--redis URL] [--instance NAME]

  --http ADDR      where to serve the page and its WebSocket (default: 127.0.0.1:8080)
  --tcp ADDR       where to listen for TCP clients (default: 127.0.0.1:9000)
  --redis URL      the Redis by which it is one chat with other instances (default: none, alone)
  --instance NAME  its name among them (default: chat)";

#[tokio::main]
async fn main() -> ExitCode {
    exit("chat", run().await)
}

async fn run() -> Result<(), Failure> {
    let Some(options) = Options::read()? else {
        return Ok(());
    };
    let listener = TcpListener::bind(options.http)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.http))?;
    let http = listener.local_addr()?;

    let codec = || JsonCodec::to_logic("chat");
    let largest = |options: &mut EndpointOptions| options.max_message = 64 << 10;
    let websocket = WebSocketEndpoint::mounted()
        .codec(codec())
        .configure(largest);
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route_service("/ws", websocket.route())
        .into_make_service_with_connect_info::<SocketAddr>();

    let limit = RateLimit::per_client()
        .messages(50, 200)
        .bytes(256 << 10, 1 << 20);
    let broke = options
        .together
        .join(Broke::builder())
        .on_error(|failure| eprintln!("chat: {failure}"))
        .endpoint(websocket)
        .endpoint(
            TcpEndpoint::bind(options.tcp.to_string())
                .codec(codec())
                .configure(largest),
        )
        .receive_middleware(limit.into_middleware())
        .logic(Rooms::worker("chat"))
        .logic(InactivityMonitor::passive(
            "inactivity",
            Duration::from_secs(60 * 60),
        ))
        .start()
        .await?;

    let until_signal = broke.until_signal();
    println!("Open http://{http} in two tabs.");
    if let Some(tcp) = broke.address("tcp") {
        println!("Or talk from a terminal: cargo run --bin chat_tcp -- {tcp}");
    }

    // The page is served until the last client has been told that the server goes.
    tokio::select! {
        served = axum::serve(listener, app).into_future() => served?,
        () = until_signal => {}
    }
    Ok(())
}

struct Options {
    http: SocketAddr,
    tcp: SocketAddr,
    together: Together,
}

impl Options {
    /// Reads the command line; none where it asked for help.
    fn read() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tcp: SocketAddr::from(([127, 0, 0, 1], 9000)),
            together: Together::alone("chat"),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("http") => options.http = address("--http", &mut parser)?,
                Long("tcp") => options.tcp = address("--tcp", &mut parser)?,
                Long("redis") => options.together.redis = Some(parser.value()?.string()?),
                Long("instance") => options.together.instance = parser.value()?.string()?,
                Long("help") | Short('h') => {
                    println!("{HELP}");
                    return Ok(None);
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }
}
