#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::cms::algorithm::fuzz_capabilities(data));
