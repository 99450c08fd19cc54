#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::smime::header_protection::fuzz_header_protection(data));
