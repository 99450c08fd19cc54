#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::store::record::fuzz_store_record(data));
