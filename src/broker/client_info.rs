//! Where a client has come in.

use std::net::IpAddr;

/// Where a client has come in.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo {
    /// The interface that it uses, such as `graphql`.
    pub door: &'static str,
    /// Its address, if it is known.
    pub address: Option<IpAddr>,
}

impl ClientInfo {
    /// It has come in nowhere: it is a part of the server.
    pub(super) const NONE: Self = Self { door: "none", address: None };
}
