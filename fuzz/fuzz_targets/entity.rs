#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::mime::entity::fuzz_entity(data));
