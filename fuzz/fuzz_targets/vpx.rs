//! Feeds `patchbay_media::fuzz_entry::vpx`; run with
//! `cargo +nightly fuzz run vpx corpus/vpx seeds/vpx`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_media::fuzz_entry::vpx(data));
