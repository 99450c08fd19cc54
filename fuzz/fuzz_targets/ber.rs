#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::cms::ber::fuzz_ber(data));
