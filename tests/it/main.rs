//! The contract, proven from outside: a real server on a port of its own, spoken to as clients speak to it.
//!
//! A scenario of the contract is written once and runs through every door ([`every_door!`]). Every wait has a deadline
//! and waits for a state.

#[macro_use]
mod doors;
mod harness;
mod process;
mod raw;

mod bad_http;
mod bad_input;
mod consumers;
mod cuts;
mod delivery;
mod graphql;
mod layers;
mod limits;
mod matching;
mod overflow;
mod positions;
mod readme;
mod rest;
mod settings;
mod shutdown;
mod slow;
mod sockets;
mod sse;
mod ws;
