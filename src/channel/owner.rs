//! The connection behind an inbox, as those see it who deliver to it directly.

use std::sync::{OnceLock, Weak};

/// A connection that can be delivered to from outside of its own task.
pub trait Deliver: Send + Sync {
    /// Reads one batch of the subscription under `key` and writes it to the socket. Returns false where the connection's own
    /// task has to do it: it is busy, its socket takes no more, or it is about to end.
    fn deliver(&self, key: u64) -> bool;
}

/// The connection behind an inbox, once it has said who it is.
#[derive(Default)]
pub struct Owner(OnceLock<Weak<dyn Deliver>>);

impl Owner {
    /// Says whom to deliver to. The first call counts.
    pub fn set(&self, connection: Weak<dyn Deliver>) {
        let _ = self.0.set(connection);
    }

    /// [`Deliver::deliver`], where there is a connection.
    pub(super) fn deliver(&self, key: u64) -> bool {
        self.0.get().and_then(Weak::upgrade).is_some_and(|connection| connection.deliver(key))
    }
}
