//! What the driver and the servers to compare with share.

pub mod frame;
pub mod message;
