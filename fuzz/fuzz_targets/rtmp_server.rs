//! Feeds `patchbay_rtmp::fuzz_entry::rtmp_server`; run with
//! `cargo +nightly fuzz run rtmp_server corpus/rtmp_server seeds/rtmp_server`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_rtmp::fuzz_entry::rtmp_server(data));
