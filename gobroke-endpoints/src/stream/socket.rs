//! [`ReadHalf`]: the read half of a TCP stream.

use tokio::net::{
    TcpStream,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};

#[cfg(target_os = "linux")]
pub(crate) use self::linux::ReadHalf;

#[cfg(not(target_os = "linux"))]
pub(crate) type ReadHalf = OwnedReadHalf;

/// The half that a connection's task reads from, and that which core writes into.
pub(crate) fn split(stream: TcpStream) -> (ReadHalf, OwnedWriteHalf) {
    let (read, write) = stream.into_split();
    #[cfg(target_os = "linux")]
    let read = ReadHalf(read);
    (read, write)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        io,
        pin::Pin,
        task::{Context, Poll, ready},
    };

    use rustix::net::{RecvFlags, recv};
    use tokio::io::{AsyncRead, Interest, ReadBuf};

    use super::{OwnedReadHalf, TcpStream};

    /// Reads as tokio's half does, but asks the system by itself and not through the C library: with core's writes an echo
    /// takes less processor time so (`benches/NOTES.md`).
    #[derive(Debug)]
    pub(crate) struct ReadHalf(pub(super) OwnedReadHalf);

    impl AsyncRead for ReadHalf {
        #[inline]
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let stream: &TcpStream = self.0.as_ref();
            loop {
                ready!(stream.poll_read_ready(cx))?;
                let mut read = None;
                let tried = stream.try_io(Interest::READABLE, || {
                    let unfilled = buffer.initialize_unfilled();
                    let room = unfilled.len();
                    let (_, bytes) = recv(stream, unfilled, RecvFlags::empty())?;
                    read = Some(bytes);
                    // Less than there was room for was all: the next read waits, and does not ask the system first (tokio
                    // #5866). The end is asked for again.
                    match (1..room).contains(&bytes) {
                        true => Err(io::ErrorKind::WouldBlock.into()),
                        false => Ok(()),
                    }
                });
                if let Some(bytes) = read {
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                match tried {
                    // It was ready no more.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    tried => return Poll::Ready(tried),
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use tokio::{
            io::{AsyncReadExt, AsyncWriteExt},
            net::TcpListener,
        };

        use super::{super::split, *};

        /// The peer, and the half under test.
        async fn pair() -> (TcpStream, ReadHalf) {
            let listener = TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port is free");
            let address = listener.local_addr().expect("it is bound");
            let connected = TcpStream::connect(address);
            let (peer, accepted) = tokio::join!(connected, listener.accept());
            let (stream, _) = accepted.expect("it is accepted");
            let (read, write) = split(stream);
            // Dropped, it would end its direction.
            write.forget();
            (peer.expect("it is connected"), read)
        }

        #[tokio::test]
        async fn what_comes_is_read_whole_and_in_order_until_the_end() {
            let (mut peer, mut read) = pair().await;
            let mut buffer = [0; 4];
            for round in 0..100 {
                // One read that fills the buffer, and one that does not.
                let sent = [round, 1, 2, 3, 4, 5];
                peer.write_all(&sent).await.expect("it is written");
                let mut got = Vec::new();
                while got.len() < sent.len() {
                    let bytes = read.read(&mut buffer).await.expect("it is read");
                    got.extend_from_slice(&buffer[..bytes]);
                }
                assert_eq!(got, sent);
            }
            drop(peer);
            assert_eq!(read.read(&mut buffer).await.expect("it ended"), 0);
            assert_eq!(read.read(&mut buffer).await.expect("it ended"), 0);
        }

        #[tokio::test]
        async fn behind_a_read_that_left_room_the_system_is_not_asked() {
            let (mut peer, mut read) = pair().await;
            let is_ready = |read: &ReadHalf| {
                let stream: &TcpStream = read.0.as_ref();
                stream.try_io(Interest::READABLE, || Ok(())).is_ok()
            };
            peer.write_all(b"12345").await.expect("it is written");
            let mut buffer = [0; 3];
            assert_eq!(read.read(&mut buffer).await.expect("it is read"), 3);
            assert!(is_ready(&read), "there may be more");
            assert_eq!(read.read(&mut buffer).await.expect("it is read"), 2);
            assert!(!is_ready(&read), "there was no more");
        }

        #[tokio::test]
        async fn the_end_that_came_before_a_read_that_left_room_is_seen() {
            let (mut peer, mut read) = pair().await;
            peer.write_all(b"12").await.expect("it is written");
            drop(peer);
            let stream: &TcpStream = read.0.as_ref();
            let ready = || stream.ready(Interest::READABLE);
            while !ready().await.expect("it is ready").is_read_closed() {
                // The sockets are looked at meanwhile.
                tokio::task::yield_now().await;
            }
            let mut buffer = [0; 4];
            assert_eq!(read.read(&mut buffer).await.expect("it is read"), 2);
            assert_eq!(read.read(&mut buffer).await.expect("it ended"), 0);
        }

        #[tokio::test]
        async fn a_reset_is_an_error() {
            let (peer, mut read) = pair().await;
            peer.set_zero_linger().expect("it is set");
            drop(peer);
            let error = read.read(&mut [0; 4]).await.expect_err("it was reset");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }
}
