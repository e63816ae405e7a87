//! The scenarios of the contract. Each runs on the engine that `TEST_ENGINE` names, except those in a module called
//! `memory`; what brings its own engine, or needs none, is beside this module.

mod ages;
mod bad_http;
mod bad_input;
mod conditions;
mod consumers;
mod cuts;
mod delivery;
mod gaps;
mod graphql;
mod headers;
mod http;
mod ids;
mod lag;
mod latest;
mod letters;
mod limits;
mod live;
mod matching;
mod naming;
mod overflow;
mod pages;
mod positions;
mod removals;
mod request_ids;
mod rest;
mod resume;
mod seeking;
mod shutdown;
mod silence;
mod slow;
mod sockets;
mod sse;
mod state;
mod ws;
