#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::pki::pkcs12::fuzz_pkcs12(data));
