//! How many allocations a routed message costs, in a steady state: 128-byte payloads, one thread.
//!
//! `cargo bench -p gobroke-core --bench allocations` prints, for each message that a client sends: through a dispatched
//! module and back, through a worker and back, and broadcast to 1,000 clients. The payload's own buffer, which a real
//! endpoint copies out of its read buffer, is one of them.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use gobroke_core::{
    Batch, Broke, ConnectRequest, Encoder, Logic, Message, Name, Session, Wire,
    testing::TestEndpoint,
};

const READ: u64 = 16;
const READS: u64 = 2_000;

struct Raw;

impl Encoder for Raw {
    fn message(&self, message: &Message, out: &mut Vec<u8>) {
        out.extend_from_slice(message.payload());
    }
}

/// A socket that takes everything.
struct Sink;

impl Wire for Sink {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(std::hint::black_box(bytes).len())
    }

    fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn shutdown(self: Box<Self>) {}
}

async fn send(session: &mut Session, logic: &Name, reads: u64) {
    let (mut incoming, _outgoing) = session.halves();
    let mut batch = Batch::new();
    for _ in 0..reads {
        for _ in 0..READ {
            let message = batch
                .message(Bytes::copy_from_slice(&[b'x'; 128]))
                .to_logic(logic);
            batch.push(message);
        }
        incoming.receive(&mut batch).await.expect("it is open");
        // The worker's and the lanes' turn.
        tokio::task::yield_now().await;
    }
}

fn count(name: &str, logic: Logic, listeners: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (broke, mut session, _others, target) = runtime.block_on(async {
        let target = logic.name().clone();
        let endpoint = TestEndpoint::to_logic(&target);
        let broke = Broke::builder()
            .endpoint(endpoint.clone())
            .logic(logic)
            .start()
            .await
            .expect("it starts");
        let (gate, encoder): (_, Arc<dyn Encoder>) = (endpoint.gate().await, Arc::new(Raw));
        let mut sessions = Vec::new();
        for _ in 0..=listeners {
            let wire: Box<dyn Wire> = Box::new(Sink);
            let session = gate
                .connect(ConnectRequest::default(), encoder.clone(), Some(wire))
                .await;
            sessions.push(session.expect("it is admitted"));
        }
        let mut session = sessions.pop().expect("one at least");
        // Until buffers have their size.
        send(&mut session, &target, 100).await;
        (broke, session, sessions, target)
    });
    let counted =
        allocation_counter::measure(|| runtime.block_on(send(&mut session, &target, READS)));
    let messages = (READ * READS) as f64;
    println!(
        "{name:<12} {:>6.2} allocations {:>8.1} bytes a message",
        counted.count_total as f64 / messages,
        counted.bytes_total as f64 / messages
    );
    drop(session);
    runtime.block_on(broke.stop());
}

fn main() {
    count(
        "dispatched",
        Logic::dispatched("logic", |message, ctx| {
            ctx.reply(&message, message.clone())?;
            Ok(())
        }),
        0,
    );
    count(
        "worker",
        Logic::worker("logic", |message, ctx| {
            ctx.reply(&message, message.clone())?;
            Ok(())
        }),
        0,
    );
    count(
        "broadcast",
        Logic::dispatched("logic", |message, ctx| {
            ctx.broadcast(message)?;
            Ok(())
        }),
        1000,
    );
}
