#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::pki::revocation::crl::fuzz_crl(data));
