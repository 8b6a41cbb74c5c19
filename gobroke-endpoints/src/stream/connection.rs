//! One connection, from its registration to its end.

use std::{
    future::{pending, poll_fn},
    task::{Context, Poll},
    time::Duration,
};

use gobroke_core::{Batch, CloseReason, Gate, Incoming, Session};
use tokio::{io::AsyncRead, time::timeout};
#[cfg(any(feature = "ws", all(feature = "tcp", feature = "tls")))]
use {
    gobroke_core::Outgoing,
    std::io,
    tokio::io::{AsyncWrite, AsyncWriteExt},
};

use super::{
    decode::{Decoder, Door, misdeed},
    reading::{Patience, decode, poll_once, read_away},
};

/// A connection that is closed is read on until nothing has come for so long. Were it dropped with bytes unread, the
/// system would send a reset, and that destroys what is still on its way to the peer: the last messages, the close
/// frame (RFC 6455, section 7.1.1).
const LINGER: Duration = Duration::from_secs(2);

/// How long it is read on at most: what a peer has to take the last messages in, while it goes on sending.
const LINGER_MOST: Duration = Duration::from_secs(10);

/// How long it rests after a read that brought this much or more: what is thrown away needs no haste, and a peer that
/// pours takes no more than 13 MB/s of anybody's time.
const LINGER_REST: (usize, Duration) = (16 << 10, Duration::from_millis(5));

/// How many bytes of input are one unit of tokio's budget for a task. Waiting for the socket costs one unit a read;
/// with this a client that floods gives way to others after about a tenth of a megabyte, which are two milliseconds where
/// they are frames of one byte.
const BYTES_A_UNIT: usize = 1024;

/// Runs a connection whose write half core has as its wire.
#[allow(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and each idle connection is one of these"
)]
pub(crate) fn run<R, D>(
    gate: Gate,
    mut session: Session,
    mut reader: Reader<R, D>,
) -> impl Future<Output = ()> + Send
where
    R: AsyncRead + Unpin + Send,
    D: Decoder,
{
    async move {
        {
            let (incoming, mut outgoing) = session.halves();
            tokio::select! {
                biased;
                reason = outgoing.drive() => tracing::trace!(%reason, "closed"),
                () = reader.receive(&gate, incoming) => {}
            }
        }
        // The client leaves now; only its socket stays for a moment.
        drop(session);
        linger(&mut reader.stream).await;
    }
}

/// Runs a connection over a stream that cannot write without waiting: the task writes whole batches.
#[cfg(any(feature = "ws", all(feature = "tcp", feature = "tls")))]
pub(crate) async fn run_through_task<R, W, D>(
    gate: Gate,
    mut session: Session,
    mut reader: Reader<R, D>,
    mut write: W,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    D: Decoder,
{
    let stall = gate.options().write_stall;
    let written = {
        let (incoming, outgoing) = session.halves();
        tokio::select! {
            biased;
            written = send(outgoing, &mut write, stall) => written,
            () = reader.receive(&gate, incoming) => Ok(()),
        }
    };
    match written {
        Ok(()) => {
            drop(session);
            linger(&mut reader.stream).await;
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            session.end(CloseReason::SlowConsumer);
        }
        Err(_) => session.end(CloseReason::ConnectionLost),
    }
}

/// Writes what goes to the client until that is closed, then ends the sending half.
#[cfg(any(feature = "ws", all(feature = "tcp", feature = "tls")))]
async fn send<W: AsyncWrite + Unpin>(
    mut outgoing: Outgoing<'_>,
    write: &mut W,
    stall: Duration,
) -> io::Result<()> {
    while let Some(frames) = outgoing.next().await {
        let mut rest = frames.bytes();
        while !rest.is_empty() {
            let written = timeout(stall, write.write(rest))
                .await
                .map_err(|_| io::ErrorKind::TimedOut)??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
            outgoing.written(written);
        }
        timeout(stall, write.flush())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
    }
    timeout(stall, write.shutdown())
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

/// The reading side of a connection.
#[derive(Debug)]
pub(crate) struct Reader<R, D> {
    stream: R,
    decoder: D,
    patience: Patience,
    /// What the last read gave, and how it ended.
    batch: Batch,
    outcome: Result<usize, CloseReason>,
}

impl<R: AsyncRead + Unpin, D: Decoder> Reader<R, D> {
    /// Reads from `stream`, after `first`: what was read before, if anything.
    pub(crate) fn new(
        gate: &Gate,
        stream: R,
        mut decoder: D,
        message_timeout: Duration,
        mut first: Vec<u8>,
    ) -> Self {
        let mut batch = Batch::new();
        let outcome = match first.as_mut_slice() {
            [] => Ok(0),
            first => {
                let batch = &mut batch;
                decode(&mut decoder, first, &mut Door { gate, batch }).map(|()| first.len())
            }
        };
        Self {
            stream,
            decoder,
            patience: Patience::new(message_timeout),
            batch,
            outcome,
        }
    }

    /// Hands what comes to the router, until the client is closed; then it waits for ever, while what is left is
    /// written.
    async fn receive(&mut self, gate: &Gate, mut incoming: Incoming<'_>) {
        loop {
            if self.batch.is_empty() {
                incoming.heard();
            } else {
                let received = match incoming.receive_now(&mut self.batch) {
                    // In a box: it is a kilobyte, which an idle connection would keep room for.
                    Ok(false) => Box::pin(incoming.receive(&mut self.batch)).await,
                    done => done.map(drop),
                };
                if received.is_err() {
                    break;
                }
            }
            match self.outcome {
                Ok(read) => {
                    for _ in 0..read / BYTES_A_UNIT {
                        tokio::task::consume_budget().await;
                    }
                }
                Err(ref reason) => {
                    match misdeed(reason) {
                        Some(what) => gate.count_bad_input(what),
                        None if *reason == CloseReason::Internal => gate.count_panic(),
                        None => {}
                    }
                    incoming.close(reason.clone());
                    break;
                }
            }
            self.outcome = poll_fn(|cx| self.poll_read(gate, cx)).await;
        }
        self.decoder.forget();
        pending::<()>().await;
    }

    fn poll_read(&mut self, gate: &Gate, cx: &mut Context<'_>) -> Poll<Result<usize, CloseReason>> {
        let batch = &mut self.batch;
        poll_once(
            cx,
            &mut self.stream,
            &mut self.decoder,
            &mut self.patience,
            &mut Door { gate, batch },
        )
    }
}

/// Reads on, for a moment, a connection whose sending half has ended.
pub(crate) async fn linger<R: AsyncRead + Unpin>(stream: &mut R) {
    let silent = async {
        while let Ok(read @ 1..) = timeout(LINGER, read_away(stream)).await {
            tokio::task::consume_budget().await;
            let (much, rest) = LINGER_REST;
            if read >= much {
                tokio::time::sleep(rest).await;
            }
        }
    };
    // Either it ended, or it had its time.
    let _ = Box::pin(timeout(LINGER_MOST, silent)).await;
}
