#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::spool::fuzz_spool_record(data));
