#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::pki::revocation::ocsp::fuzz_ocsp(data));
