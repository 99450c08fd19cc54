#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::config::fuzz_config(data));
