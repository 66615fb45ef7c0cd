//! Feeds `patchbay_rtmp::fuzz_entry::rtmp_client`; run with
//! `cargo +nightly fuzz run rtmp_client corpus/rtmp_client seeds/rtmp_client`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_rtmp::fuzz_entry::rtmp_client(data));
