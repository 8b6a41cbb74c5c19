//! One connection, from its registration to its end.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use gobroke_core::{Batch, CloseReason, Gate, Incoming, Session};
use tokio::{io::AsyncRead, time::timeout};
#[cfg(any(feature = "ws", all(feature = "tcp", feature = "tls")))]
use {
    gobroke_core::Outgoing,
    std::{future::pending, io},
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
        loop {
            // One future for both directions: what they keep between two reads is close together.
            let halt = poll_fn(|cx| {
                let (mut incoming, mut outgoing) = session.halves();
                match outgoing.poll_drive(cx) {
                    Poll::Ready(_) => Poll::Ready(Halt::Over),
                    Poll::Pending => reader.poll(&gate, &mut incoming, cx),
                }
            })
            .await;
            // In a box: it is a kilobyte, which an idle connection would keep room for.
            if halt == Halt::Over || !Box::pin(hand_on(&mut session, &mut reader.batch)).await {
                break;
            }
        }
        reader.decoder.forget();
        let reason = session.halves().1.drive().await;
        tracing::trace!(%reason, "closed");
        // The client leaves now; only its socket stays for a moment.
        drop(session);
        linger(&mut reader.stream).await;
    }
}

/// Waits until what came can be handed on, and writes what waits meanwhile; says whether the connection goes on.
async fn hand_on(session: &mut Session, batch: &mut Batch) -> bool {
    let (mut incoming, mut outgoing) = session.halves();
    tokio::select! {
        biased;
        _ = outgoing.drive() => false,
        received = incoming.receive(batch) => received.is_ok(),
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

/// The reading side of a connection. What each read touches comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Reader<R, D> {
    stream: R,
    /// What the last read gave.
    batch: Batch,
    /// How many bytes that was, or why nothing more is read; none once it is handed on.
    came: Option<Result<usize, Box<CloseReason>>>,
    decoder: D,
    patience: Patience,
}

/// Why a [`Reader`] reads no more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Halt {
    /// What came has to wait: it is for [`Incoming::receive`].
    NoRoom,
    /// The client is closed.
    Over,
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
        let came = (!first.is_empty()).then(|| {
            let batch = &mut batch;
            let decoded = decode(&mut decoder, &mut first, &mut Door { gate, batch });
            decoded.map(|()| first.len()).map_err(Box::new)
        });
        Self {
            stream,
            batch,
            came,
            decoder,
            patience: Patience::new(message_timeout),
        }
    }

    /// Hands what comes to the router, until the client is closed; then it waits for ever, while what is left is
    /// written.
    #[cfg(any(feature = "ws", all(feature = "tcp", feature = "tls")))]
    async fn receive(&mut self, gate: &Gate, mut incoming: Incoming<'_>) {
        while poll_fn(|cx| self.poll(gate, &mut incoming, cx)).await == Halt::NoRoom {
            // In a box: it is a kilobyte, which an idle connection would keep room for.
            if Box::pin(incoming.receive(&mut self.batch)).await.is_err() {
                break;
            }
        }
        self.decoder.forget();
        pending::<()>().await;
    }

    /// Hands what comes to the router, for as long as that takes it at once.
    fn poll(
        &mut self,
        gate: &Gate,
        incoming: &mut Incoming<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Halt> {
        loop {
            if self.came.is_some() {
                match ready!(self.poll_handed_on(gate, incoming, cx)) {
                    None => self.came = None,
                    Some(halt) => return Poll::Ready(halt),
                }
            }
            let batch = &mut self.batch;
            let came = ready!(poll_once(
                cx,
                &mut self.stream,
                &mut self.decoder,
                &mut self.patience,
                &mut Door { gate, batch },
            ));
            self.came = Some(came.map_err(Box::new));
        }
    }

    /// Hands on what came, and takes it off the task's budget.
    fn poll_handed_on(
        &mut self,
        gate: &Gate,
        incoming: &mut Incoming<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Halt>> {
        if self.batch.is_empty() {
            incoming.heard();
        } else {
            match incoming.receive_now(&mut self.batch) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Some(Halt::NoRoom)),
                Err(_) => return Poll::Ready(Some(Halt::Over)),
            }
        }
        match &mut self.came {
            Some(Ok(read)) => {
                while *read >= BYTES_A_UNIT {
                    ready!(pin!(tokio::task::consume_budget()).poll(cx));
                    *read -= BYTES_A_UNIT;
                }
                Poll::Ready(None)
            }
            Some(Err(reason)) => {
                match misdeed(reason) {
                    Some(what) => gate.count_bad_input(what),
                    None if **reason == CloseReason::Internal => gate.count_panic(),
                    None => {}
                }
                incoming.close((**reason).clone());
                Poll::Ready(Some(Halt::Over))
            }
            None => Poll::Ready(None),
        }
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
