#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::cms::enveloped::fuzz_kem_recipient_info(data));
