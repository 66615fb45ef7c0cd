//! Feeds `patchbay_webrtc::fuzz_entry::tcp_frames`; run with
//! `cargo +nightly fuzz run tcp_frames corpus/tcp_frames seeds/tcp_frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_webrtc::fuzz_entry::tcp_frames(data));
