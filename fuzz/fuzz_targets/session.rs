#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::smtp::session::fuzz_session(data));
