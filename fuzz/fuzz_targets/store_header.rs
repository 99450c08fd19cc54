#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::store::keyring::fuzz_store_header(data));
