#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::pki::certificate::fuzz_certificate(data));
