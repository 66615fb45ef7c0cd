//! Feeds `patchbay_rtmp::fuzz_entry::flv_ingest`; run with
//! `cargo +nightly fuzz run flv_ingest corpus/flv_ingest seeds/flv_ingest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_rtmp::fuzz_entry::flv_ingest(data));
