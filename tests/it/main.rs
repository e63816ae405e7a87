//! The contract, proven from outside: a real server on a port of its own, spoken to as clients speak to it.
//!
//! A scenario of the contract is written once and runs through every door ([`every_door!`]). Every wait has a deadline
//! and waits for a state.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing there, its helpers too"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "deadlines here are of the real clock, and tasks end with the test"
)]
#![allow(clippy::pedantic, clippy::explicit_counter_loop, reason = "tests are written to be read, not to be used")]
#![allow(dead_code, reason = "a door says more than every test looks at")]

#[macro_use]
mod doors;
mod harness;
mod process;
mod raw;

// What is checked of inputs from strangers, for random ones here and for those of the fuzzer.
#[path = "../../fuzz/targets/mod.rs"]
mod targets;

// The same tokens as in the unit tests, made without the library that checks them.
#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../../src/access/signer.rs"]
mod signer;

mod access;
mod attacks;
mod chaos;
mod cli;
mod clustered;
mod contract;
mod credentials;
mod durable;
mod engines;
mod generated;
mod instances;
mod layers;
mod metrics;
mod origins;
mod permissions;
mod random_input;
mod readme;
mod settings;
mod traces;
mod transfer;
mod transport;
