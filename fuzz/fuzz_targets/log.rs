//! Records of the disk engine's log for libFuzzer, which finds inputs by what they reach in the code.

#![no_main]

#[path = "../targets/log.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
