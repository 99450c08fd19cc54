#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::load::report::fuzz_report(data));
