//! [`Member`]: a socket's writing half, and what it has not taken.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::net::tcp::OwnedWriteHalf;

pub struct Member {
    stream: OwnedWriteHalf,
    pub index: usize,
    pub room: usize,
    waiting: Mutex<Vec<u8>>,
}

impl Member {
    pub fn new(stream: OwnedWriteHalf, index: usize, room: usize) -> Self {
        Self {
            stream,
            index,
            room,
            waiting: Mutex::default(),
        }
    }

    /// Writes what the socket takes; a task writes the rest.
    pub fn write(self: &Arc<Self>, bytes: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.is_empty() {
            waiting.extend_from_slice(bytes);
            return;
        }
        let written = self.stream.try_write(bytes).unwrap_or(0);
        if written < bytes.len() {
            waiting.extend_from_slice(&bytes[written..]);
            tokio::spawn(self.clone().catch_up());
        }
    }

    async fn catch_up(self: Arc<Self>) -> io::Result<()> {
        loop {
            self.stream.writable().await?;
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match self.stream.try_write(&waiting) {
                Ok(written) => drop(waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if waiting.is_empty() {
                *waiting = Vec::new();
                return Ok(());
            }
        }
    }
}
