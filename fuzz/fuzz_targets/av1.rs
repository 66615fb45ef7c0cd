//! Feeds `patchbay_media::fuzz_entry::av1`; run with
//! `cargo +nightly fuzz run av1 corpus/av1 seeds/av1`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_media::fuzz_entry::av1(data));
