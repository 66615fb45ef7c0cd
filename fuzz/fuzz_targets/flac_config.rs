//! Feeds `patchbay_media::fuzz_entry::flac_config`; run with
//! `cargo +nightly fuzz run flac_config corpus/flac_config seeds/flac_config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_media::fuzz_entry::flac_config(data));
