//! What holds for every input from strangers: one function for each kind of them.

pub mod documents;
pub mod frames;
pub mod log;
pub mod sockets;
