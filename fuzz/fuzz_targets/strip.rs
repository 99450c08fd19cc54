#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::smime::verdict::fuzz_strip(data));
