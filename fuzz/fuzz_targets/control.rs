#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::admin::protocol::fuzz_control(data));
