#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::pki::public_key::fuzz_public_key(data));
