//! Writing through a wire, whose code may panic.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::chunk::Chunk;
use crate::delivery::wire::Socket;

/// Waiting chunks below this size are gathered into one write.
const GATHER: usize = 16 << 10;
/// How much one write gathers at the most.
const GATHERED: usize = 64 << 10;

/// Writes once, through a wire whose code may panic: that counts as a failed socket.
#[inline]
pub(super) fn write(wire: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
    match guarded(|| wire.try_write(bytes)).flatten() {
        Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
        Ok(written) => Ok(written.min(bytes.len())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// The wire's code panicked.
#[derive(Debug, thiserror::Error)]
#[error("the wire panicked")]
pub(super) struct Panicked;

/// Calls a wire, in whose code a panic counts as a failed socket.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| io::Error::other(Panicked))
}

/// Writes the front of what waits; several small chunks in one call.
pub(super) fn write_chunks(wire: &mut Socket, chunks: &VecDeque<Chunk>) -> io::Result<usize> {
    let Some(front) = chunks.front() else {
        return Ok(0);
    };
    if front.len() >= GATHER || chunks.len() == 1 {
        return write(wire, front.bytes());
    }
    let mut gathered = Vec::with_capacity(GATHERED);
    for chunk in chunks {
        let room = GATHERED - gathered.len();
        let bytes = chunk.bytes();
        gathered.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() >= room {
            break;
        }
    }
    write(wire, &gathered)
}
