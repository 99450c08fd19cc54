#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::cms::compressed::fuzz_compressed_data(data));
