//! Codecs of one's own.

#![cfg(feature = "tcp")]

mod common;

use common::{TcpClient, address, echo, stop};
use gobroke_core::{CloseReason, Message};
use gobroke_endpoints::{
    RawCodec, TcpEndpoint,
    codec::{Codec, Frame, FrameError, Inbound},
};

/// A codec that cannot bear everything.
#[derive(Debug)]
struct Fragile;

impl Codec for Fragile {
    fn decode(&self, frame: Frame<'_>) -> Result<Inbound, FrameError> {
        assert_ne!(frame.bytes(), b"boom", "what the test is about");
        RawCodec::to_logic("echo").decode(frame)
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        out.extend_from_slice(message.payload());
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        out.extend_from_slice(&reason.code().to_be_bytes());
    }
}

#[tokio::test]
async fn a_codec_that_panics_costs_its_client_and_nobody_else() {
    let endpoint = TcpEndpoint::bind("127.0.0.1:0").codec(Fragile);
    let broke = echo(endpoint).start().await.expect("it starts");
    let mut first = TcpClient::connect(address(&broke)).await;
    let mut second = TcpClient::connect(address(&broke)).await;
    first.write(b"\0\0\0\x02hi\0\0\0\x04boom\0\0\0\x02no").await;
    assert_eq!(first.rest().await, b"\0\0\0\x02hi\0\0\0\x02\x03\xf3");
    second.send("hi").await;
    assert_eq!(second.next().await.expect("an echo"), b"hi");
    assert_eq!(broke.stats().panics, 1);
    stop(broke, (first, second)).await;
}
