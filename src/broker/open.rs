//! The sockets and event streams that clients have open, by the door that they have come in by.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{MetricFamily, MetricKind, MetricValue, PrincipalConnection};

/// What stays open, by door and protocol.
const KINDS: [(&str, &str); 4] =
    [("graphql", "websocket"), ("graphql", "event-stream"), ("rest", "event-stream"), ("ws", "websocket")];

/// How many of each are open.
#[derive(Default)]
pub(super) struct OpenConnections([AtomicUsize; KINDS.len()]);

impl OpenConnections {
    pub fn family(&self) -> MetricFamily {
        let help = "WebSockets and event streams that are open.";
        let family = MetricFamily::new(MetricKind::Gauge, "client_connections", help);
        KINDS.iter().zip(&self.0).fold(family, |mut family, ((door, protocol), open)| {
            let value = MetricValue::Whole(open.load(Ordering::Relaxed) as u64);
            family.add([("door", *door), ("protocol", *protocol)], value);
            family
        })
    }
}

/// A socket or an event stream of a client; it is open until this is dropped.
#[must_use = "dropping it says that the connection has ended"]
pub struct ClientConnection {
    principal: Option<PrincipalConnection>,
    open: Arc<OpenConnections>,
    kind: Option<usize>,
}

impl ClientConnection {
    pub(super) fn new(
        principal: Option<PrincipalConnection>,
        open: &Arc<OpenConnections>,
        door: &str,
        protocol: &str,
    ) -> Self {
        let kind = KINDS.iter().position(|kind| *kind == (door, protocol));
        if let Some(count) = kind.and_then(|kind| open.0.get(kind)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Self { principal, open: open.clone(), kind }
    }

    /// From here on it counts as another principal's.
    pub fn pass_to(&mut self, principal: Option<PrincipalConnection>) {
        self.principal = principal;
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        if let Some(count) = self.kind.and_then(|kind| self.open.0.get(kind)) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
