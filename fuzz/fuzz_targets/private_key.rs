#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::keys::fuzz_private_key(data));
