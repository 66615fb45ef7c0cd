//! Feeds `patchbay_rtmp::fuzz_entry::flv_tag`; run with
//! `cargo +nightly fuzz run flv_tag corpus/flv_tag seeds/flv_tag`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_rtmp::fuzz_entry::flv_tag(data));
