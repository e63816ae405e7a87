//! Export and import: everything that an engine keeps as lines of JSON, and from there into any engine.
//!
//! An export describes the state at its time (`format.rs`). An import makes new topics of it. What a new incarnation
//! can take over from the old one – ids, times, consumers' positions – is taken over. A client with a cursor of the
//! old incarnation is told so, as after any topic that was deleted and created again.

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

/// An engine that is open, with what it has loaded into this process.
struct LoadedEngine {
    engine: Arc<dyn Engine>,
    registry: Arc<Registry>,
    consumers: Arc<Consumers>,
}

/// How long an engine may take without loading a message while it is being opened. A large or remote store is read
/// for longer in total.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);

impl LoadedEngine {
    /// Opens an engine and waits until everything that it has is loaded.
    async fn open(engine: Arc<dyn Engine>, config: &Config, settings: RegistrySettings) -> Result<Self, String> {
        let registry = Registry::new(settings);
        // A consumer that was accepted once is never above a limit here.
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
            } else if since.elapsed() > LOAD_TIMEOUT {
                let setting = if config.engine.engine == "nats" { "NATS_URL" } else { "DATA_DIR" };
                return Err(format!("{setting}: {why}"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Prints a line to standard error, beside the output.
fn note(text: &str) {
    // An error is ignored: the work goes on even if nobody reads the line.
    let _ = writeln!(std::io::stderr(), "pub-sub: {text}");
}

/// Returns `1 topic` or `2 topics`. If `what` has several words, the first is the noun.
fn counted(count: u64, what: &str) -> String {
    let (noun, rest) = what.find(' ').map_or((what, ""), |space| what.split_at(space));
    format!("{count} {noun}{}{rest}", if count == 1 { "" } else { "s" })
}

/// Reports the progress from time to time.
#[derive(Clone, Copy)]
struct Progress {
    started_at: Instant,
    reported_at: Instant,
}

/// The time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

impl Progress {
    fn begin() -> Self {
        let now = Instant::now();
        Self { started_at: now, reported_at: now }
    }

    fn at(&mut self, messages: u64, doing: &str) {
        if self.reported_at.elapsed() >= REPORT_INTERVAL {
            self.reported_at = Instant::now();
            note(&format!("{doing} {} so far", counted(messages, "message")));
        }
    }

    fn end(&self, counts: format::LineCounts, done: &str) {
        let format::LineCounts { topics, messages, known_ids, consumers } = counts;
        let (topics, messages) = (counted(topics, "topic"), counted(messages, "message"));
        let (ids, consumers) = (counted(known_ids, "id without a message"), counted(consumers, "consumer"));
        let seconds = self.started_at.elapsed().as_secs_f64();
        note(&format!("{done} {topics}, {messages}, {ids} and {consumers} in {seconds:.1} s"));
    }
}
