#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| distmesh_fuzz::datagram::check(bytes));
