//! Feeds `patchbay_contract::fuzz_entry::credentials`; run with
//! `cargo +nightly fuzz run credentials corpus/credentials seeds/credentials`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_contract::fuzz_entry::credentials(data));
