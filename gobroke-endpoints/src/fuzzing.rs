//! What the fuzzer calls (`fuzz/` at the root), built for it and for tests alone. Each function takes any bytes, and
//! panics where something is not as it should be.

#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    reason = "no part of what users see"
)]

use crate::codec::{Codec, Frame, JsonCodec};
#[cfg(any(feature = "tcp", feature = "ws"))]
use {
    crate::{
        codec::RawCodec,
        stream::{Decoder, Limits, ReceiveBudget, testing::Kept},
    },
    gobroke_core::{CloseReason, Message},
    std::{fmt::Debug, sync::Arc},
};

/// The largest message, in the fuzzer's world.
#[cfg(any(feature = "tcp", feature = "ws"))]
const MOST: usize = 4096;

/// The WebSocket frames of a client. The first byte says in what pieces the others come.
#[cfg(feature = "ws")]
pub fn websocket(data: &[u8]) {
    let json = |limits: &Limits| crate::ws::decoder(Arc::new(JsonCodec::to_logic("chat")), limits);
    let raw = |limits: &Limits| crate::ws::decoder(Arc::new(RawCodec::to_logic("chat")), limits);
    cut(data, json);
    cut(data, raw);
}

/// The frames of a client over TCP. The first byte says in what pieces the others come.
#[cfg(feature = "tcp")]
pub fn tcp(data: &[u8]) {
    cut(data, |limits| {
        crate::tcp::decoder(Arc::new(JsonCodec::to_logic("chat")), limits)
    });
    cut(data, |limits| {
        crate::tcp::decoder(Arc::new(RawCodec::to_logic("chat")), limits)
    });
}

/// A compressed message, and one to be compressed.
#[cfg(feature = "deflate")]
pub fn deflate(data: &[u8]) {
    crate::ws::fuzz_deflate(data);
}

/// A frame of JSON, and what becomes of what it carries when that is sent on.
pub fn json(data: &[u8]) {
    let codec = JsonCodec::to_logic("chat")
        .allow_clients(true)
        .allow_groups(true);
    let frame = match std::str::from_utf8(data) {
        Ok(text) => Frame::Text(text),
        Err(_) => Frame::Binary(data),
    };
    let Ok(crate::codec::Inbound::Message(message)) = codec.decode(frame) else {
        return;
    };
    let mut out = Vec::new();
    codec.encode(&message, &mut out);
    // Not as a `Value`: that is never nested deeper than 128, payloads may be.
    let written: std::collections::BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_slice(&out).expect("what is written is JSON");
    assert!(written.contains_key("id"));
}

/// A datagram of a client.
#[cfg(feature = "udp")]
pub fn udp(data: &[u8]) {
    crate::udp::fuzz(data);
}

/// The header of the PROXY protocol.
#[cfg(any(feature = "tcp", feature = "ws"))]
pub fn proxy(data: &[u8]) {
    // It says no, or it says who: that it comes back is all that is asked.
    drop(crate::admission::source(data));
}

/// What comes of a stream is the same however it is cut, and its memory is given back.
#[cfg(any(feature = "tcp", feature = "ws"))]
fn cut<D: Decoder>(data: &[u8], decoder: impl Fn(&Limits) -> D) {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let whole = decoded(stream, stream.len().max(1), &decoder);
    let pieces = decoded(stream, usize::from(size).max(1), &decoder);
    assert_eq!(whole, pieces);
}

#[cfg(any(feature = "tcp", feature = "ws"))]
fn decoded<D: Decoder>(
    stream: &[u8],
    piece: usize,
    decoder: impl Fn(&Limits) -> D,
) -> impl Debug + PartialEq {
    let budget = ReceiveBudget::new(1 << 20);
    let mut decoder = decoder(&Limits {
        max_message: MOST,
        budget: budget.clone(),
        control_frames: u32::MAX,
    });
    let mut kept = Kept::default();
    let mut result: Result<(), CloseReason> = Ok(());
    for piece in stream.chunks(piece) {
        result = decoder.decode(&mut piece.to_vec(), &mut kept);
        assert!(
            budget.used() <= 2 * MOST,
            "{} bytes are held",
            budget.used()
        );
        if result.is_err() {
            break;
        }
    }
    decoder.forget();
    drop(decoder);
    assert_eq!(budget.used(), 0, "memory is given back");
    let said = |message: &Message| (message.format(), message.payload().clone());
    let messages: Vec<_> = kept.messages.iter().map(said).collect();
    (messages, kept.answers, kept.errors, result)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Runs all inputs that are kept for a target.
    fn again(target: &str, run: impl Fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/seeds")
            .join(target);
        let mut count = 0;
        for entry in fs::read_dir(&folder).expect("a folder of inputs") {
            let path = entry.expect("an input").path();
            // The name stands in the output of a failure.
            println!("{}", path.display());
            run(&fs::read(&path).expect("an input"));
            count += 1;
        }
        assert!(count > 0, "there are inputs in {}", folder.display());
    }

    #[cfg(feature = "ws")]
    #[test]
    fn what_the_fuzzer_keeps_for_websocket_is_survived() {
        again("websocket", super::websocket);
    }

    #[cfg(feature = "tcp")]
    #[test]
    fn what_the_fuzzer_keeps_for_tcp_is_survived() {
        again("tcp", super::tcp);
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn what_the_fuzzer_keeps_for_deflate_is_survived() {
        again("deflate", super::deflate);
    }

    #[test]
    fn what_the_fuzzer_keeps_for_json_is_survived() {
        again("json", super::json);
    }

    #[cfg(feature = "udp")]
    #[test]
    fn what_the_fuzzer_keeps_for_udp_is_survived() {
        again("udp", super::udp);
    }

    #[cfg(any(feature = "tcp", feature = "ws"))]
    #[test]
    fn what_the_fuzzer_keeps_for_the_proxy_header_is_survived() {
        again("proxy", super::proxy);
    }
}
