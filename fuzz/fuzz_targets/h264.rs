//! Feeds `patchbay_media::fuzz_entry::h264`; run with
//! `cargo +nightly fuzz run h264 corpus/h264 seeds/h264`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_media::fuzz_entry::h264(data));
