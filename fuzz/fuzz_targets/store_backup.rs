#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::store::backup::fuzz_backup(data));
