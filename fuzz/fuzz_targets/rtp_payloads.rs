//! Feeds `patchbay_rtp::fuzz_entry::rtp_payloads`; run with
//! `cargo +nightly fuzz run rtp_payloads corpus/rtp_payloads seeds/rtp_payloads`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_rtp::fuzz_entry::rtp_payloads(data));
