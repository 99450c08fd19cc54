#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::address::fuzz_address(data));
