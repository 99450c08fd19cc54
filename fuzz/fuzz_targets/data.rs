#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::smtp::data::fuzz_data(data));
