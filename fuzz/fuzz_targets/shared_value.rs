#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::store::etcd::fuzz_shared_value(data));
