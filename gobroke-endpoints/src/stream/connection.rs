//! One connection, from its registration to its end.

use std::{future::pending, time::Duration};

use gobroke_core::{Batch, CloseReason, Gate, Incoming, Session};
use tokio::{io::AsyncRead, time::timeout};
#[cfg(feature = "ws")]
use {
    gobroke_core::Outgoing,
    std::io,
    tokio::io::{AsyncWrite, AsyncWriteExt},
};

use super::{
    Decoder, Door, Intake, misdeed,
    reading::{Patience, read_away, read_once},
};

/// How long a connection that is closed is read on. Were it dropped with bytes unread, the system would send a reset,
/// and that destroys what is still on its way to the peer: the close frame (RFC 6455, section 7.1.1).
const LINGER: Duration = Duration::from_secs(2);

/// How many bytes of input are one unit of tokio's budget for a task. Waiting for the socket costs one unit a read;
/// with this a client that floods gives way to others after about half a megabyte.
const BYTES_A_UNIT: usize = 4096;

/// Runs a connection whose write half core has as its wire. `first` is what was read before, if anything.
pub(crate) async fn run<R, D>(
    gate: Gate,
    mut session: Session,
    mut stream: R,
    decoder: D,
    message_timeout: Duration,
    first: Vec<u8>,
) where
    R: AsyncRead + Unpin,
    D: Decoder,
{
    {
        let (incoming, mut outgoing) = session.halves();
        tokio::select! {
            biased;
            reason = outgoing.drive() => tracing::trace!(%reason, "closed"),
            () = receive(&gate, incoming, &mut stream, decoder, message_timeout, first) => {}
        }
    }
    // The client leaves now; only its socket stays for a moment.
    drop(session);
    linger(&mut stream).await;
}

/// Runs a connection over a stream that cannot write without waiting: the task writes whole batches.
#[cfg(feature = "ws")]
pub(crate) async fn run_through_task<S, D>(
    gate: Gate,
    mut session: Session,
    stream: S,
    decoder: D,
    message_timeout: Duration,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Decoder,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let stall = gate.options().write_stall;
    let written = {
        let (incoming, outgoing) = session.halves();
        tokio::select! {
            biased;
            written = send(outgoing, &mut write, stall) => written,
            () = receive(&gate, incoming, &mut read, decoder, message_timeout, Vec::new()) => Ok(()),
        }
    };
    match written {
        Ok(()) => {
            drop(session);
            linger(&mut read).await;
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            session.close(CloseReason::SlowConsumer);
        }
        Err(_) => session.close(CloseReason::ConnectionLost),
    }
}

/// Writes what goes to the client until that is closed, then ends the sending half.
#[cfg(feature = "ws")]
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
        }
        timeout(stall, write.flush())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
    }
    timeout(stall, write.shutdown())
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

/// Hands what comes to the router, until the client is closed; then it waits for ever, while what is left is written.
async fn receive<R, D>(
    gate: &Gate,
    mut incoming: Incoming<'_>,
    stream: &mut R,
    mut decoder: D,
    message_timeout: Duration,
    mut first: Vec<u8>,
) where
    R: AsyncRead + Unpin,
    D: Decoder,
{
    let mut batch = Batch::new();
    let mut patience = Patience::new(message_timeout);
    let mut outcome = decode_first(
        &mut first,
        &mut decoder,
        &mut Door {
            gate,
            batch: &mut batch,
        },
    );
    drop(first);
    loop {
        if batch.is_empty() {
            incoming.heard();
        } else if incoming.receive(&mut batch).await.is_err() {
            break;
        }
        match outcome {
            Ok(read) => {
                for _ in 0..read / BYTES_A_UNIT {
                    tokio::task::consume_budget().await;
                }
            }
            Err(reason) => {
                if let Some(what) = misdeed(&reason) {
                    gate.count_bad_input(what);
                }
                incoming.close(reason);
                break;
            }
        }
        let mut door = Door {
            gate,
            batch: &mut batch,
        };
        outcome = read_once(stream, &mut decoder, &mut patience, &mut door).await;
    }
    // What was kept for a message that will not come.
    drop((decoder, patience, batch));
    pending::<()>().await;
}

fn decode_first(
    first: &mut [u8],
    decoder: &mut impl Decoder,
    intake: &mut impl Intake,
) -> Result<usize, CloseReason> {
    match first {
        [] => Ok(0),
        bytes => decoder.decode(bytes, intake).map(|()| 0),
    }
}

/// Reads on, for a moment, a connection whose sending half has ended.
pub(crate) async fn linger<R: AsyncRead + Unpin>(stream: &mut R) {
    // Either it ended, or it had its time.
    let _ = Box::pin(timeout(LINGER, read_away(stream))).await;
}
