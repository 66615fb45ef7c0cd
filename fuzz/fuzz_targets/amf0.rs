//! Feeds `patchbay_rtmp::fuzz_entry::amf0`; run with
//! `cargo +nightly fuzz run amf0 corpus/amf0 seeds/amf0`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_rtmp::fuzz_entry::amf0(data));
