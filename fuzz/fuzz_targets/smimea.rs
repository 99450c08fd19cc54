#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::discovery::smimea::fuzz_smimea(data));
