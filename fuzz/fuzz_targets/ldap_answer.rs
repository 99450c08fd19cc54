#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::discovery::ldap::fuzz_ldap_answer(data));
