//! Feeds `patchbay_h5::fuzz_entry::ts_demux`; run with
//! `cargo +nightly fuzz run ts_demux corpus/ts_demux seeds/ts_demux`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patchbay_h5::fuzz_entry::ts_demux(data));
