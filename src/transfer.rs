//! Backup and moving: everything that an engine keeps as lines of JSON, and from there into any engine.
//!
//! An export says what was (`format.rs`); an import makes new topics of it. What of the old incarnation a new one can go on with –
//! ids, times, consumers' places – goes on; whoever holds a cursor of the old incarnation is told so, as with any topic that was
//! made anew.

mod export;
mod format;
mod import;
mod input;
mod plan;

use std::{io::Write, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    channel::{ConsumerLimits, Consumers, Registry, RegistrySettings},
    config::Config,
    engine::{Engine, Health},
};

pub use export::export;
pub use import::Import;

/// An engine with what it has brought into this process.
struct Store {
    engine: Arc<dyn Engine>,
    registry: Arc<Registry>,
    consumers: Arc<Consumers>,
}

/// How long a store may be silent while it is being opened: what is far away and large is read for longer than this.
const SILENCE: Duration = Duration::from_secs(10);

impl Store {
    /// Opens an engine, and waits until all that it has is here.
    async fn open(engine: Arc<dyn Engine>, config: &Config, settings: RegistrySettings) -> Result<Self, String> {
        let registry = Registry::new(settings);
        // Whoever was accepted once is not one too many here.
        let most = usize::MAX;
        let limits = ConsumerLimits { per_source: most, total: most, topics: most, ttl: config.broker.consumer_ttl };
        let consumers = Arc::new(Consumers::new(limits));
        engine.open(registry.clone(), consumers.clone()).await?;
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let (Health::Starting(why) | Health::ReadOnly(why)) = engine.health() else {
                return Ok(Self { engine, registry, consumers });
            };
            let messages = registry.messages();
            if messages != seen {
                (seen, since) = (messages, Instant::now());
            } else if since.elapsed() > SILENCE {
                let setting = if config.engine.engine == "nats" { "NATS_URL" } else { "DATA_DIR" };
                return Err(format!("{setting}: {why}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Says something beside the output.
fn note(text: &str) {
    // Nobody reads it: no reason to stop.
    let _ = writeln!(std::io::stderr(), "pub-sub: {text}");
}

/// `1 topic`, `2 topics`; of several words the first is the one that is counted.
fn counted(count: u64, what: &str) -> String {
    let (noun, rest) = what.find(' ').map_or((what, ""), |space| what.split_at(space));
    format!("{count} {noun}{}{rest}", if count == 1 { "" } else { "s" })
}

/// Says now and then how far it has come.
#[derive(Clone, Copy)]
struct Progress {
    begun: Instant,
    said: Instant,
}

/// The time between two words about it.
const EVERY: Duration = Duration::from_secs(5);

impl Progress {
    fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, said: now }
    }

    fn at(&mut self, messages: u64, doing: &str) {
        if self.said.elapsed() >= EVERY {
            self.said = Instant::now();
            note(&format!("{doing} {} so far", counted(messages, "message")));
        }
    }

    fn end(&self, counts: format::Counts, done: &str) {
        let format::Counts { topics, messages, known_ids, consumers } = counts;
        let (topics, messages) = (counted(topics, "topic"), counted(messages, "message"));
        let (ids, consumers) = (counted(known_ids, "id without a message"), counted(consumers, "consumer"));
        let seconds = self.begun.elapsed().as_secs_f64();
        note(&format!("{done} {topics}, {messages}, {ids} and {consumers} in {seconds:.1} s"));
    }
}
