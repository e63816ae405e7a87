//! The promise checker: the real binary, everything at random through every door, and a model that knows what was
//! acknowledged. `make promise` starts it.
//!
//! `SEED` makes the same decisions again, `SECONDS` says for how long, `ENGINE` with which engine (`memory`, `disk`,
//! `nats`; all of them in turn unless given). A round makes fresh topics, publishes, subscribes, cuts and kills for a few
//! seconds, waits until every reader has come to the end, and holds everything that was seen against the model. What does
//! not fit is printed with its history and its seed, and ends the run with 1. `KNOWN` leaves out findings that contain one of
//! its parts (separated by `|`), to look behind a fault that is known.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by failing there, its helpers too")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "deadlines here are of the real clock, and tasks end with the round"
)]
#![allow(clippy::pedantic, reason = "tests are written to be read, not to be used")]
#![allow(dead_code, reason = "other tests use more of the servers that they share")]

#[path = "../support/nats.rs"]
mod nats;

mod acknowledge;
mod admin;
mod begin;
mod chain;
mod engine;
mod feed;
mod filter;
mod judge;
mod leave;
mod ledger;
mod leg;
mod mixer;
mod model;
mod net;
mod pages;
mod play;
mod publisher;
mod random;
mod reader;
mod report;
mod round;
mod schema;
mod segments;
mod server;
mod websocket;

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use round::Engine;

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(7, |since| since.as_nanos() as u64);
    let seed = number("SEED").unwrap_or(clock % 1_000_000_007);
    let seconds = number("SECONDS").unwrap_or(60);
    let engines = match std::env::var("ENGINE").as_deref() {
        Ok("memory") => vec![Engine::Memory],
        Ok("disk") => vec![Engine::Disk],
        Ok("nats") => vec![Engine::Nats],
        Err(_) | Ok("") => vec![Engine::Memory, Engine::Disk, Engine::Nats],
        Ok(other) => {
            println!("ENGINE={other} is no engine: memory, disk or nats");
            return ExitCode::from(2);
        }
    };
    println!("SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let each = Duration::from_secs(seconds) / engines.len() as u32;
    for engine in engines {
        match runtime.block_on(engine::run(engine, seed, each)) {
            Ok(counts) => println!("{engine:?}: {counts}"),
            Err(finding) => {
                println!("{finding}\n\nSEED={seed} ENGINE={} shows this", format!("{engine:?}").to_lowercase());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
