//! Feeds `patchbay_h5::fuzz_entry::ts_ingest`; run with
//! `cargo +nightly fuzz run ts_ingest corpus/ts_ingest seeds/ts_ingest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_h5::fuzz_entry::ts_ingest(data));
