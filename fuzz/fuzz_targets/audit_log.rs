#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::audit::chain::fuzz_audit_log(data));
