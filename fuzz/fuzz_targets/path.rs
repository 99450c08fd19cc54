#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::pki::path::fuzz_path(data));
