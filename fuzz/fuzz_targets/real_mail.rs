#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waxwing::load::mails::fuzz_real_mail(data));
