#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile::revdial_v2(data));
