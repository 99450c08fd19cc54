#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::mime::header::fuzz_header(data));
