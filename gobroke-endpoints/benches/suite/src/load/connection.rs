//! [`Connection`]: one client's socket, with what waits to be written and what is not whole yet.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use gobroke_bench::{Mode, tls};
use mio::net::TcpStream;
use rustls::{ClientConnection, Stream};

use super::dialect::Dialect;
use crate::server::identity;

pub struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// The beginning of a message whose rest has not come.
    begun: Vec<u8>,
    out: Vec<u8>,
    /// How often it wrote.
    pub writes: u64,
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
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut tls = match dialect.is_secure() {
            true => Some(Box::new(client()?)),
            false => None,
        };
        let begun = match &mut tls {
            None => dialect.shake_hands(&mut stream, room, mode)?,
            Some(tls) => {
                dialect.shake_hands(&mut Stream::new(tls.as_mut(), &mut stream), room, mode)?
            }
        };
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            tls,
            begun,
            out: Vec::new(),
            writes: 0,
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
        let Self {
            stream, tls, out, ..
        } = self;
        self.writes += u64::from(!out.is_empty());
        let written = match tls {
            None => write_all(stream, out),
            Some(tls) => write_all(&mut Stream::new(tls.as_mut(), stream), out),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            written => written,
        }
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
            let length = match self.receive(buffer) {
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
            // TLS may have more in the socket than it gave.
            if length < buffer.len() && self.tls.is_none() {
                return Ok(bytes);
            }
        }
    }

    /// Reads once, whatever it is; fails where there is nothing more to come.
    pub fn discard(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self.receive(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read(buffer),
            Some(tls) => Stream::new(tls.as_mut(), &mut self.stream).read(buffer),
        }
    }
}

fn client() -> io::Result<ClientConnection> {
    let name = tls::NAME.try_into().map_err(io::Error::other)?;
    ClientConnection::new(identity()?.client()?, name).map_err(io::Error::other)
}

/// Writes until all is written or the socket takes no more.
fn write_all(stream: &mut impl Write, out: &mut Vec<u8>) -> io::Result<()> {
    while !out.is_empty() {
        match stream.write(out)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => drop(out.drain(..written)),
        }
    }
    stream.flush()
}
