//! What the actors of one round share.

use std::{net::SocketAddr, sync::Mutex};

use tokio::sync::watch;

use crate::{leg::Leg, model::Model, random::Random, schema::Dialect, server::Server};

/// How far a round has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything goes on at once.
    Busy,
    /// Publishers finish what they have begun.
    Quiet,
    /// Publishers have finished; readers are to read to the end.
    Settle,
    /// Readers are to leave.
    Over,
}

/// The engine that the servers run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Memory,
    Disk,
    Nats,
}

/// One round: fresh topics, and everybody who works with them.
pub struct Round<'a> {
    pub engine: Engine,
    pub seed: u64,
    pub number: u64,
    pub servers: &'a [Server],
    pub dialect: Dialect,
    pub model: Mutex<Model>,
    pub topics: Vec<String>,
    pub phase: watch::Receiver<Phase>,
    pub chains: Vec<Mutex<Vec<Leg>>>,
    /// Topics are deleted and made again.
    pub deletes: bool,
}

impl Round<'_> {
    /// The decisions of one actor.
    pub fn random(&self, actor: u64) -> Random {
        Random::new(self.seed, self.number * 1000 + actor)
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn is_busy(&self) -> bool {
        self.phase() == Phase::Busy
    }

    /// One of the instances, and where it listens now.
    pub fn instance(&self, random: &mut Random) -> (usize, SocketAddr) {
        let index = random.below(self.servers.len() as u64) as usize;
        (index, self.servers[index].addr())
    }

    pub fn note(&self, subject: &str, what: impl Into<String>) {
        self.model.lock().unwrap().note(subject, what);
    }
}
