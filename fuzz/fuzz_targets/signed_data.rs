#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::cms::signed::fuzz_signed_data(data));
