//! Feeds `patchbay_media::fuzz_entry::aac_config`; run with
//! `cargo +nightly fuzz run aac_config corpus/aac_config seeds/aac_config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_media::fuzz_entry::aac_config(data));
