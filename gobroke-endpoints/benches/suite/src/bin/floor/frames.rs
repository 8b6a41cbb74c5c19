//! The handshake and the frames of RFC 6455: what a server must do and no more.

use std::{io, ops::Range};

use tokio::net::TcpStream;

/// Answers a handshake; gives the path. The accept key is not worked out: the load does not look at it.
pub async fn answer(stream: &TcpStream) -> io::Result<String> {
    let mut request = Vec::new();
    loop {
        stream.readable().await?;
        match stream.try_read_buf(&mut request) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if request.ends_with(b"\r\n\r\n") => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    stream.writable().await?;
    stream.try_write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n",
    )?;
    let request = String::from_utf8_lossy(&request).into_owned();
    Ok(request.split(' ').nth(1).unwrap_or("/").to_owned())
}

/// The first frame that is whole, unmasked in place: where its payload is, and where it ends.
pub fn next(input: &mut [u8]) -> Option<(Range<usize>, usize)> {
    let (mask, length) = match *input.get(1)? & 0x7f {
        126 => (
            4,
            u16::from_be_bytes(input.get(2..4)?.try_into().ok()?) as usize,
        ),
        127 => (
            10,
            u64::from_be_bytes(input.get(2..10)?.try_into().ok()?) as usize,
        ),
        length => (2, length as usize),
    };
    let start = mask + 4;
    let end = start + length;
    if input.len() < end {
        return None;
    }
    let key: [u8; 4] = input[mask..start].try_into().ok()?;
    let wide: [u8; 8] = std::array::from_fn(|at| key[at % 4]);
    let (chunks, rest) = input[start..end].as_chunks_mut();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ u64::from_ne_bytes(wide)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide) {
        *byte ^= key;
    }
    Some((start..end, end))
}

/// Appends a binary frame.
pub fn write(payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x82);
    match payload.len() {
        length @ 0..126 => out.push(length as u8),
        length @ 126..65536 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}
