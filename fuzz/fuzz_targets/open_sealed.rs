#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::smime::open::fuzz_open_sealed(data));
