//! Feeds `patchbay_webrtc::fuzz_entry::sdp`; run with
//! `cargo +nightly fuzz run sdp corpus/sdp seeds/sdp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_webrtc::fuzz_entry::sdp(data));
