//! How many allocations a packet costs, which one PUBLISH carries: 64 frames of 160 bytes, with a seal and without.
//!
//! `cargo bench -p gobroke-redis --bench allocations` prints it for each frame. Counts are the same on every machine, so
//! `cargo test` runs this too, and fails where one is more than a twentieth off `baseline.txt`.

#[path = "../../../gobroke-core/benches/allocations/baseline.rs"]
mod baseline;
#[path = "../../src/carrier/packet.rs"]
#[allow(dead_code, unused_imports, reason = "a part of it is counted")]
mod packet;
#[path = "../../src/carrier/seal.rs"]
#[allow(dead_code, unused_imports, reason = "a part of it is counted")]
mod seal;

use std::{hint::black_box, process::ExitCode};

use bytes::Bytes;

use self::{
    baseline::Baseline,
    packet::{Frames, Packet},
    seal::{Seal, Sealing},
};

const PACKETS: u64 = 100;
const FRAMES: u64 = 64;
const FRAME: [u8; 160] = [7; 160];
const CHANNEL: &str = "{gobroke}:to:one#1.0";

fn written(sealing: Option<&Sealing>) -> Bytes {
    let capacity = FRAMES as usize * (packet::EACH + FRAME.len());
    let mut packet = packet::begin(capacity, sealing);
    for _ in 0..FRAMES {
        packet::add(&mut packet, &FRAME);
    }
    packet::end(packet, CHANNEL, sealing)
}

fn frames(packet: Bytes, seal: Option<&Seal>) -> Frames {
    match packet::read(packet, CHANNEL, seal) {
        Ok(Packet::Frames(frames) | Packet::Sealed { frames, .. }) => frames,
        other => panic!("{other:?}"),
    }
}

fn count(baseline: &mut Baseline, name: &str, sealing: Option<&Sealing>) {
    let counted = allocation_counter::measure(|| {
        for _ in 0..PACKETS {
            black_box(written(sealing));
        }
    });
    baseline.count(&format!("{name}, write"), &counted, PACKETS * FRAMES);
    let packets: Vec<Bytes> = (0..PACKETS).map(|_| written(sealing)).collect();
    let seal = sealing.map(|sealing| &sealing.seal);
    let counted = allocation_counter::measure(|| {
        for packet in &packets {
            let read = frames(packet.clone(), seal).filter(Result::is_ok).count();
            assert_eq!(read as u64, FRAMES);
        }
    });
    baseline.count(&format!("{name}, read"), &counted, PACKETS * FRAMES);
}

fn main() -> ExitCode {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/benches/allocations/baseline.txt"
    );
    let mut baseline = Baseline::read(path);
    count(&mut baseline, "a packet", None);
    let sealing = Sealing::new(Seal::new(b"at least sixteen bytes"), "two#1.0");
    count(&mut baseline, "a sealed packet", Some(&sealing));
    baseline.judge()
}
