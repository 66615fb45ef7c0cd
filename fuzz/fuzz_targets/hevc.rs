//! Feeds `patchbay_media::fuzz_entry::hevc`; run with
//! `cargo +nightly fuzz run hevc corpus/hevc seeds/hevc`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_media::fuzz_entry::hevc(data));
