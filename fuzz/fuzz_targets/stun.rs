//! Feeds `patchbay_webrtc::fuzz_entry::stun`; run with
//! `cargo +nightly fuzz run stun corpus/stun seeds/stun`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_webrtc::fuzz_entry::stun(data));
