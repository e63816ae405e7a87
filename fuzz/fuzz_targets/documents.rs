//! GraphQL documents for libFuzzer, which finds inputs by what they reach in the code.

#![no_main]

#[path = "../targets/documents.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
