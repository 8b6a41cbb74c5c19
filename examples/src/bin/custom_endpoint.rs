//! An endpoint of one's own: lines of text over TCP, in one page of code.
//!
//! Start it, and connect with `nc` from two other terminals:
//!
//! ```text
//! cargo run --bin custom_endpoint
//! nc 127.0.0.1 9100
//! ```
//!
//! What you see: a line typed into one `nc` appears in both. Ctrl-C stops the server, which says `bye: 1001 (going
//! away)` to each of them. `--listen ADDR` listens elsewhere.

use std::{future::pending, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use bytes::BytesMut;
use gobroke_core::{
    Batch, Broke, CloseReason, ConnectRequest, Encoder, Endpoint, EndpointError, Gate, Message,
    Name, async_trait,
};
use gobroke_examples::{Failure, address, exit};
use gobroke_logic_contrib::{Broadcaster, RateLimit};
use lexopt::prelude::*;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::sleep,
};

// ---------------------------------------------------------------- the endpoint, from here

struct LineEndpoint(SocketAddr);

#[async_trait]
impl Endpoint for LineEndpoint {
    fn name(&self) -> Name {
        "lines".into()
    }

    async fn serve(&self, gate: Gate) -> Result<(), EndpointError> {
        let address = self.0.to_string();
        let listening = TcpListener::bind(self.0).await;
        let listener = listening.map_err(|source| EndpointError::Bind { address, source })?;
        gate.ready(listener.local_addr().ok());
        // One for all connections: what they all get is then encoded once.
        let lines: Arc<dyn Encoder> = Arc::new(Lines);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, remote)) => gate.spawn(converse(gate.clone(), lines.clone(), stream, remote)),
                    // Out of file descriptors, most likely: some will be free again.
                    Err(_) => sleep(Duration::from_millis(50)).await,
                },
                () = gate.closing() => return Ok(()),
            }
        }
    }
}

async fn converse(gate: Gate, lines: Arc<dyn Encoder>, stream: TcpStream, remote: SocketAddr) {
    let longest = gate.options().max_message;
    let (mut read, write) = stream.into_split();
    let asked = ConnectRequest::from_remote(remote);
    let admitted = gate.connect(asked, lines, Some(Box::new(write))).await;
    let Ok(mut session) = admitted else { return };
    let (mut incoming, mut outgoing) = session.halves();
    let reading = async {
        let (mut buffer, mut batch) = (BytesMut::new(), Batch::new());
        while let Ok(1..) = read.read_buf(&mut buffer).await {
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1).freeze().slice(..end);
                batch.push(Message::new(line).to_logic("chat"));
            }
            if buffer.len() > longest {
                incoming.close(CloseReason::TooBig);
            }
            if incoming.receive(&mut batch).await.is_err() {
                break;
            }
        }
        incoming.close(CloseReason::Normal);
        pending::<()>().await; // Until `drive` has written the last line.
    };
    tokio::select! { _ = outgoing.drive() => {}, () = reading => {} }
}

struct Lines;

impl Encoder for Lines {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        out.extend_from_slice(&[message.payload(), &b"\n"[..]].concat());
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("bye: {reason}\n").as_bytes());
    }
}

// ---------------------------------------------------------------- the endpoint, up to here

#[tokio::main]
async fn main() -> ExitCode {
    exit("custom_endpoint", run().await)
}

async fn run() -> Result<(), Failure> {
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 9100));
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => listen = address("--listen", &mut parser)?,
            Long("help") | Short('h') => {
                println!("Usage: custom_endpoint [--listen ADDR]   (default: {listen})");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let broke = Broke::builder()
        .endpoint(LineEndpoint(listen))
        .receive_middleware(RateLimit::per_client().messages(50, 200).into_middleware())
        .logic(Broadcaster::dispatched("chat"))
        .start()
        .await?;
    let until_signal = broke.until_signal();
    if let Some(address) = broke.address("lines") {
        println!("Connect with: nc {} {}", address.ip(), address.port());
    }
    until_signal.await;
    Ok(())
}
