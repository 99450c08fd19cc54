#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::pki::ldif::fuzz_ldif(data));
