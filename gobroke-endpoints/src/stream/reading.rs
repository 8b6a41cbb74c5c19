//! Reading: a buffer of the thread's, and time for a message to arrive in.

use std::{
    cell::Cell,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use gobroke_core::{CloseReason, Moment};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, Sleep},
};

use super::decode::{Decoder, Intake};

/// How much one read takes at most.
const BUFFER: usize = 64 * 1024;

thread_local! {
    /// The buffer of the thread, used within one poll alone. So connections that wait for bytes hold none.
    static READ: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

#[cold]
fn new_buffer() -> Box<[u8]> {
    vec![0; BUFFER].into_boxed_slice()
}

#[inline]
fn with_buffer<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    // Whoever polls a connection within a poll of another finds none, and makes one.
    let mut buffer = READ.take().unwrap_or_else(new_buffer);
    let result = read(&mut buffer);
    READ.with(|cell| cell.set(Some(buffer)));
    result
}

/// Reads once what is there, and decodes it. Says how much it was.
///
/// After a read that did not fill the buffer tokio knows that nothing is left, so the next call waits without asking
/// the system.
///
/// # Errors
/// Why nothing more is read.
#[inline]
pub(super) fn poll_once<R: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut R,
    decoder: &mut impl Decoder,
    patience: &mut Patience,
    intake: &mut impl Intake,
) -> Poll<Result<usize, CloseReason>> {
    with_buffer(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        Poll::Ready(match Pin::new(stream).poll_read(cx, &mut buffer) {
            Poll::Pending if !patience.is_over(cx, decoder.begun()) => return Poll::Pending,
            Poll::Pending => Err(CloseReason::PolicyViolation(
                "a message took too long to arrive".into(),
            )),
            Poll::Ready(Err(_)) => Err(CloseReason::ConnectionLost),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(decoder.end()),
            Poll::Ready(Ok(())) => {
                let read = buffer.filled().len();
                decode(decoder, buffer.filled_mut(), intake).map(|()| read)
            }
        })
    })
}

/// Decodes; a codec that panics ends the connection for which it did, with a close.
///
/// # Errors
/// Why nothing more is read.
pub(super) fn decode(
    decoder: &mut impl Decoder,
    bytes: &mut [u8],
    intake: &mut impl Intake,
) -> Result<(), CloseReason> {
    let _moment = Moment::begin();
    // What it leaves behind is not used any more: the decoder is asked nothing but to forget, and what it handed on
    // before is whole.
    catch_unwind(AssertUnwindSafe(|| decoder.decode(bytes, intake)))
        .unwrap_or(Err(CloseReason::Internal))
}

/// Reads once and forgets; says how much came, which is nothing at the end or after an error.
pub(super) async fn read_away<R: AsyncRead + Unpin>(stream: &mut R) -> usize {
    poll_fn(|cx| {
        let read = with_buffer(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
            read.map_ok(|()| buffer.filled().len())
        });
        read.map(|read| read.unwrap_or(0))
    })
    .await
}

/// How long a message may take. It has no clock while nothing is begun, and one timer for many messages: when that
/// ends, the message that was begun at its start has had its time, and a later one gets another round.
#[derive(Debug)]
pub(super) struct Patience {
    timeout: Duration,
    timer: Option<(Pin<Box<Sleep>>, u32)>,
}

impl Patience {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            timer: None,
        }
    }

    /// Whether the message `begun` has had its time; if not, the task is woken when to ask again.
    #[inline]
    fn is_over(&mut self, cx: &mut Context<'_>, begun: Option<u32>) -> bool {
        // Mostly there is neither.
        (begun.is_some() || self.timer.is_some()) && self.poll_over(cx, begun)
    }

    #[cold]
    fn poll_over(&mut self, cx: &mut Context<'_>, begun: Option<u32>) -> bool {
        let Some(begun) = begun else {
            if self
                .timer
                .as_ref()
                .is_some_and(|(timer, _)| timer.is_elapsed())
            {
                self.timer = None;
            }
            return false;
        };
        let timeout = self.timeout;
        let (timer, watched) = self
            .timer
            .get_or_insert_with(|| (Box::pin(tokio::time::sleep(timeout)), begun));
        while timer.as_mut().poll(cx).is_ready() {
            if *watched == begun {
                return true;
            }
            *watched = begun;
            // A time beyond the clock's range is as good as never; a year will do.
            let now = Instant::now();
            timer.as_mut().reset(
                now.checked_add(timeout)
                    .unwrap_or(now + Duration::from_secs(365 * 86_400)),
            );
        }
        false
    }
}
