//! How many allocations a frame costs a codec, and a message a whole server: 128-byte payloads.
//!
//! `cargo bench -p gobroke-endpoints --bench allocations` prints it. Counts are the same on every machine, so `cargo
//! test` runs this too, and fails where one is more than a twentieth off `baseline.txt`.

#[path = "../../../gobroke-core/benches/allocations/baseline.rs"]
mod baseline;
#[path = "../../../gobroke-core/benches/allocations/least.rs"]
mod least;
mod served;

use std::process::ExitCode;

use gobroke_core::Message;
use gobroke_endpoints::codec::{Codec, Frame, Inbound, JsonCodec, RawCodec};

use self::{baseline::Baseline, served::Framing};

const FRAMES: u64 = 1_000;
const JSON: &str = r#"{"id": "0190d4f5-8e0b-7c3a-9d2e-1f2a3b4c5d6e",
    "to": {"logic": ["chat"], "groups": ["lobby"]},
    "payload": {"text": "hello"},
    "metadata": {"trace": 7}}"#;

fn count(baseline: &mut Baseline, name: &str, codec: &dyn Codec, frame: Frame<'_>) {
    let decode = || match codec.decode(frame) {
        Ok(Inbound::Message(message)) => message,
        other => panic!("{other:?}"),
    };
    let message: Message = decode();
    let counted = allocation_counter::measure(|| {
        for _ in 0..FRAMES {
            std::hint::black_box(decode());
        }
    });
    baseline.count(&format!("{name}, read"), &counted, FRAMES);
    let mut out = Vec::with_capacity(4096);
    let counted = allocation_counter::measure(|| {
        for _ in 0..FRAMES {
            out.clear();
            codec.encode(&message, &mut out);
        }
    });
    baseline.count(&format!("{name}, write"), &counted, FRAMES);
}

fn main() -> ExitCode {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/benches/allocations/baseline.txt"
    );
    let mut baseline = Baseline::read(path);
    count(
        &mut baseline,
        "raw",
        &RawCodec::to_logic("chat"),
        Frame::Binary(&[b'x'; 128]),
    );
    count(
        &mut baseline,
        "json",
        &JsonCodec::to_logic("chat").allow_groups(true),
        Frame::Text(JSON),
    );
    let raw = || RawCodec::to_logic("logic");
    let json = || JsonCodec::to_logic("logic");
    let payload = "x".repeat(128);
    let object = format!(r#"{{"payload": "{payload}"}}"#);
    for (name, framing) in [("WebSocket", Framing::WebSocket), ("TCP", Framing::Tcp)] {
        let name = |codec: &str| format!("{name}, {codec}");
        served::count(
            &mut baseline,
            &name("raw"),
            framing,
            raw,
            payload.as_bytes(),
        );
        served::count(
            &mut baseline,
            &name("json"),
            framing,
            json,
            object.as_bytes(),
        );
    }
    baseline.judge()
}
