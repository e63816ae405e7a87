//! An incarnation of a topic, as an engine knows it.

use super::{Epoch, Timestamp, TopicConfig, TopicName};

/// An incarnation of a topic, as an engine knows it.
#[derive(Clone, Debug)]
pub struct Incarnation {
    /// Its name.
    pub name: TopicName,
    /// Its epoch.
    pub epoch: Epoch,
    /// When it began.
    pub created_at: Timestamp,
    /// Made by a publish or a subscribe, not by a creation.
    pub implicit: bool,
    /// What it sets for itself.
    pub config: TopicConfig,
    /// The engine's own number for it, if it numbers its topics: above 0, and never given twice.
    pub serial: Option<u64>,
    /// Which of the engine's logs its messages are in.
    pub log: usize,
}

impl Incarnation {
    /// A new one that begins now, made by a creation.
    #[must_use]
    pub fn new(name: &TopicName, config: TopicConfig) -> Self {
        let (epoch, created_at) = (Epoch::random(), Timestamp::now());
        Self { name: name.clone(), epoch, created_at, implicit: false, config, serial: None, log: 0 }
    }
}
