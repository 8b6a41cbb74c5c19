//! A byte stream in memory, of a bounded capacity.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use crate::Wire;

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    capacity: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    writer_gone: bool,
    reader_gone: bool,
}

/// The writing end of a byte stream in memory, as a [`Wire`].
#[derive(Debug)]
pub struct Pipe(Arc<Mutex<State>>);

/// The reading end of a [`Pipe`].
#[derive(Debug)]
pub struct Reader(Arc<Mutex<State>>);

impl Pipe {
    /// A stream that holds so many bytes before it takes no more.
    pub fn bounded(capacity: usize) -> (Self, Reader) {
        let state = Arc::new(Mutex::new(State {
            capacity,
            ..State::default()
        }));
        (Self(state.clone()), Reader(state))
    }
}

impl Wire for Pipe {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.reader_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(state.capacity - state.bytes.len());
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.bytes.extend(&bytes[..taken]);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        Ok(taken)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.reader_gone || state.bytes.len() < state.capacity {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn shutdown(self: Box<Self>) {
        // Dropping the end shuts it down.
        drop(self);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.writer_gone = true;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl Reader {
    /// Appends what has come, waiting until something has; 0 at the end. Cancel-safe.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> usize {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.bytes.is_empty() && !state.writer_gone {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let read = state.bytes.len();
            // As slices: byte by byte it was the largest part of a measurement.
            let (first, second) = state.bytes.as_slices();
            buffer.extend_from_slice(first);
            buffer.extend_from_slice(second);
            state.bytes.clear();
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
            Poll::Ready(read)
        })
        .await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reader_gone = true;
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }
}
