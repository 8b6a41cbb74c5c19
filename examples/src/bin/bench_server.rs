//! A server to measure: it echoes or broadcasts raw payloads, over WebSocket and TCP.
//!
//! Start it:
//!
//! ```text
//! cargo run --release --bin bench_server -- --mode echo --ws 127.0.0.1:7001 --tcp 127.0.0.1:7002
//! ```
//!
//! What you see, once it listens, is one line with the addresses, which is useful with port 0:
//!
//! ```text
//! ready ws=127.0.0.1:7001 tcp=127.0.0.1:7002
//! ```
//!
//! A WebSocket client connects to any path, without a subprotocol, and sends messages of any kind. A TCP client sends
//! frames: four bytes of length, the highest first, and the payload. In mode `echo` each gets back what it sent, in
//! mode `broadcast` all get what any of them sent, the sender included; with `--redis URL`, also those of other instances.
//! Ctrl-C or SIGTERM stops it, a second one at once; either way with code 0.

use std::{net::SocketAddr, process::ExitCode};

use gobroke_core::{Broke, EndpointOptions, Logic};
use gobroke_endpoints::{RawCodec, TcpEndpoint, WebSocketEndpoint};
use gobroke_examples::{Failure, Together, address, exit};
use gobroke_logic_contrib::{Broadcaster, Echo};
use lexopt::prelude::*;

const HELP: &str = "\
Usage: bench_server [--mode echo|broadcast] [--ws ADDR] [--tcp ADDR] [--max-message BYTES] [--redis URL]
                    [--instance NAME] [--deflate]

  --mode echo|broadcast  what to do with a message (default: echo)
  --ws ADDR              where to listen for WebSocket (default: 127.0.0.1:0, a free port)
  --tcp ADDR             where to listen for TCP (default: 127.0.0.1:0)
  --max-message BYTES    the largest message (default: 16777216)
  --redis URL            the Redis by which it is one server with other instances (default: none, alone)
  --instance NAME        its name among them (default: bench)

  --deflate              compress messages for WebSocket clients that offer it";

#[tokio::main]
async fn main() -> ExitCode {
    exit("bench_server", run().await)
}

async fn run() -> Result<(), Failure> {
    let Some(options) = Options::read()? else {
        return Ok(());
    };
    let codec = || RawCodec::to_logic("bench");
    let generous = |endpoint: &mut EndpointOptions| {
        endpoint.max_message = options.max_message;
        endpoint.outbox_bytes = OUTBOX_BYTES.max(4 * options.max_message);
        endpoint.outbox_messages = OUTBOX_MESSAGES;
    };
    let mut ws = WebSocketEndpoint::bind(options.ws.to_string())
        .codec(codec())
        .configure(generous);
    if options.deflate {
        ws = ws.deflate();
    }
    let tcp = TcpEndpoint::bind(options.tcp.to_string())
        .codec(codec())
        .configure(generous);
    let broke = options
        .together
        .join(Broke::builder())
        .endpoint(ws)
        .endpoint(tcp)
        .logic(options.mode)
        .start()
        .await?;
    let bound = |endpoint| {
        broke
            .address(endpoint)
            .map_or_else(String::new, |address| address.to_string())
    };
    let until_signal = broke.until_signal();
    println!("ready ws={} tcp={}", bound("ws"), bound("tcp"));
    until_signal.await;
    Ok(())
}

/// What may wait for one client: a measurement is about speed, so a slow reader is not cut for a hiccup.
const OUTBOX_BYTES: usize = 64 << 20;
const OUTBOX_MESSAGES: usize = 1 << 18;

struct Options {
    mode: Logic,
    ws: SocketAddr,
    tcp: SocketAddr,
    max_message: usize,
    together: Together,
    deflate: bool,
}

impl Options {
    /// Reads the command line; none where it asked for help.
    fn read() -> Result<Option<Self>, lexopt::Error> {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut options = Self {
            mode: Echo::dispatched("bench").into(),
            ws: any_port,
            tcp: any_port,
            max_message: 16 << 20,
            together: Together::alone("bench"),
            deflate: false,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("mode") => options.mode = parser.value()?.parse_with(mode)?,
                Long("ws") => options.ws = address("--ws", &mut parser)?,
                Long("tcp") => options.tcp = address("--tcp", &mut parser)?,
                Long("max-message") => options.max_message = parser.value()?.parse()?,
                Long("redis") => options.together.redis = Some(parser.value()?.string()?),
                Long("instance") => options.together.instance = parser.value()?.string()?,
                Long("deflate") => options.deflate = true,
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

fn mode(name: &str) -> Result<Logic, String> {
    match name {
        "echo" => Ok(Echo::dispatched("bench").into()),
        "broadcast" => Ok(Broadcaster::dispatched("bench").into()),
        _ => Err("echo or broadcast".to_owned()),
    }
}
