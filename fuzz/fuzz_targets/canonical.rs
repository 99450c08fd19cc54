#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::mime::canonical::fuzz_canonical(data));
