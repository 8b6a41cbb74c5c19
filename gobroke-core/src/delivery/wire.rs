//! The seam between core and an endpoint's socket: [`Wire`], and [`Encoder`] for what stands on it.

use std::{
    any::Any,
    io,
    task::{Context, Poll},
};

use tokio::{
    io::Interest,
    net::{TcpStream, tcp::OwnedWriteHalf},
};

use crate::{Client, CloseReason, Message, MessageId, Name};

/// A byte stream that takes bytes without waiting, so that a lane's pass can write into it.
///
/// A wire owns its socket's write half (never a raw descriptor), so a pass cannot write into a descriptor that was
/// closed and used again. It is implemented for the write half of tokio's `TcpStream`. Streams that cannot write
/// without waiting (TLS, datagrams) give none, and take whole batches from [`Outgoing`](crate::Outgoing) instead.
pub trait Wire: Any + Send {
    /// Writes what the socket takes now, and says how many bytes that was.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where it takes nothing now; any other error ends the client.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Waits until the socket takes bytes again. Only one task waits at a time.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the sending half; what was written still arrives.
    fn shutdown(self: Box<Self>);
}

impl Wire for OwnedWriteHalf {
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send(self, bytes)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream: &TcpStream = self.as_ref();
        stream.poll_write_ready(cx)
    }

    fn shutdown(self: Box<Self>) {
        // Dropping the half shuts the direction down.
        drop(self);
    }
}

/// Writes as the half does, but asks the system by itself and not through the C library: with its reads an echo takes less
/// processor time so (`gobroke-endpoints/benches/NOTES.md`).
#[cfg(target_os = "linux")]
#[inline]
fn send(half: &OwnedWriteHalf, bytes: &[u8]) -> io::Result<usize> {
    use rustix::net::SendFlags;

    let stream: &TcpStream = half.as_ref();
    // No signal where the peer is gone: an error, as the standard library has it.
    let write = || Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?);
    stream.try_io(Interest::WRITABLE, write)
}

#[cfg(not(target_os = "linux"))]
fn send(half: &OwnedWriteHalf, bytes: &[u8]) -> io::Result<usize> {
    half.try_write(bytes)
}

/// A wire in its outbox: that of a TCP stream stands there itself, since each delivery looks at it.
pub(crate) enum Socket {
    Tcp(OwnedWriteHalf),
    Other(Box<dyn Wire>),
}

impl Socket {
    pub(crate) fn new(wire: Box<dyn Wire>) -> Self {
        let any: &dyn Any = &*wire;
        if !any.is::<OwnedWriteHalf>() {
            return Self::Other(wire);
        }
        let any: Box<dyn Any> = wire;
        match any.downcast() {
            Ok(half) => Self::Tcp(*half),
            Err(_) => unreachable!("it is one"),
        }
    }

    /// Looks at what a write looks at, and writes nothing.
    pub(crate) fn fetch(&self) {
        if let Self::Tcp(half) = self {
            let stream: &TcpStream = half.as_ref();
            // It says whether the socket was ready when it was looked at last, which is not asked here.
            let _ = stream.try_io(Interest::WRITABLE, || Ok(()));
        }
    }

    #[inline]
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => send(half, bytes),
            Self::Other(wire) => wire.try_write(bytes),
        }
    }

    pub(crate) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(half) => half.poll_writable(cx),
            Self::Other(wire) => wire.poll_writable(cx),
        }
    }

    pub(crate) fn shutdown(self) {
        match self {
            Self::Tcp(half) => drop(half),
            Self::Other(wire) => wire.shutdown(),
        }
    }
}

/// How frames look on an endpoint's wire: a codec with its framing, from server to client.
///
/// Every method appends whole frames to `out` (which may hold earlier ones) and nothing else. An encoder is called in
/// passes: it must not block, and it never reaches into the router. One that panics ends the client it wrote for.
pub trait Encoder: Send + Sync + 'static {
    /// Appends the frame of a message.
    fn message(&self, message: &Message, out: &mut Vec<u8>);

    /// Appends the frame that a client gets first. Default: none.
    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        let _ = (client, instance, out);
    }

    /// Appends the frame that tells a client what was wrong with what it sent. Default: none.
    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        let _ = (error, out);
    }

    /// Appends a ping. Default: none, and then no pong is missed.
    fn ping(&self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Appends the frame that announces the end. Default: none.
    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        let _ = (reason, out);
    }
}

/// What a client is told when something that it sent went nowhere.
#[derive(Clone, Copy, Debug)]
pub struct ErrorFrame<'a> {
    /// A word that programs match on: `bad_frame`, `unknown_logic`, `not_allowed`, `rejected`, `busy`, ...
    pub code: &'a str,
    /// What was wrong, and what to do, for people.
    pub message: &'a str,
    /// The message that it is about, where it had an id.
    pub id: Option<MessageId>,
}
