#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gobroke_core::fuzzing::envelope(data));
