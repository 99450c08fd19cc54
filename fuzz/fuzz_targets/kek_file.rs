#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::store::keyring::fuzz_kek_file(data));
