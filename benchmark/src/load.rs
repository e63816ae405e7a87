//! The load client: one thread with epoll, which publishes, receives, and checks that every subscriber gets every message once
//! and in order. It has to stay cheaper than any server, so it reads no more of a frame than the number in it.

pub mod connection;
pub mod fleet;
pub mod requests;
