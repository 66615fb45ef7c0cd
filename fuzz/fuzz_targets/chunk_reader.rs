//! Feeds `patchbay_rtmp::fuzz_entry::chunk_reader`; run with
//! `cargo +nightly fuzz run chunk_reader corpus/chunk_reader seeds/chunk_reader`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_rtmp::fuzz_entry::chunk_reader(data));
