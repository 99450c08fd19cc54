#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::mime::mbox::fuzz_mbox(data));
