#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| freshet::fuzz::http1_head(bytes));
