//! [`Connection`]: one client's socket, with what waits to be written and what is not whole yet.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use gobroke_bench::Mode;
use mio::net::TcpStream;

use super::dialect::Dialect;

pub struct Connection {
    stream: TcpStream,
    /// The beginning of a message whose rest has not come.
    begun: Vec<u8>,
    out: Vec<u8>,
}

impl Connection {
    pub fn open(
        dialect: Dialect,
        address: SocketAddr,
        room: usize,
        mode: Mode,
    ) -> io::Result<Self> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let begun = dialect.shake_hands(&mut stream, room, mode)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            begun,
            out: Vec::new(),
        })
    }

    pub fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Appends a message to what is to be written.
    pub fn put(&mut self, dialect: Dialect, payload: &[u8]) {
        dialect.put(payload, &mut self.out);
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads all that is there, and hands over each payload with the time; says how many bytes it was.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        dialect: Dialect,
        mut take: impl FnMut(&[u8], u64),
        began: Instant,
    ) -> io::Result<usize> {
        let mut bytes = 0;
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(bytes),
                Err(error) => return Err(error),
            };
            bytes += length;
            let nanos = began.elapsed().as_nanos() as u64;
            let mut split = |input: &[u8]| {
                let mut at = 0;
                while let Some((payload, end)) = dialect.next(&input[at..]) {
                    take(&input[at..][payload], nanos);
                    at += end;
                }
                at
            };
            if self.begun.is_empty() {
                let at = split(&buffer[..length]);
                self.begun.extend_from_slice(&buffer[at..length]);
            } else {
                self.begun.extend_from_slice(&buffer[..length]);
                let at = split(&self.begun);
                self.begun.drain(..at);
            }
            if length < buffer.len() {
                return Ok(bytes);
            }
        }
    }
}
