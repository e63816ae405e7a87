//! pub-sub
pub mod broker;
pub mod config;
pub mod graphql;
pub mod problem;
pub mod rest;
pub mod server;
pub mod socket;
mod streaming;
pub mod telemetry;
mod wire;
pub mod ws;

pub use server::serve;
