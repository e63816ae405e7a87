//! Making new topics of an export.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    path::Path,
    sync::Arc,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    LoadedEngine, Progress, counted,
    format::{self, Line},
    input::{Input, Lines},
    note,
    plan::{ImportPlan, known_id, new_message, parse},
};
use crate::{
    channel::{Channel, ConsumerKey, Epoch, Error, KnownId, Refusal, RegistrySettings, TopicName},
    config::Config,
    engine::Append,
};

/// How many topics and consumers are created at once. Each of them waits for a sync, or for the cluster.
const CONCURRENT_CREATES: usize = 64;

/// How many messages may be in flight. It is half of what the engines' queues hold, so none of them refuses a
/// message.
const IN_FLIGHT: usize = 4_096;

/// How many bytes of data may be in flight, if it is more than one message.
const IN_FLIGHT_BYTES: usize = 4 << 20;

/// How many known ids are collected before they are stored together.
const IDS_PER_BATCH: usize = 20_000;

/// An export that was read and checked.
pub struct Import {
    config: Config,
    input: Input,
    plan: ImportPlan,
}

impl Import {
    /// Reads an export from `file`, or from standard input, for the configured engine, and checks all of it. If the
    /// input cannot be read twice, it is copied to a temporary file; nothing else is written.
    ///
    /// # Errors
    /// Returns one line, which names the line of the input if that is invalid.
    pub fn read(config: &Config, file: Option<&Path>) -> Result<Self, String> {
        let mut config = config.clone();
        match config.engine.engine.as_str() {
            // Whatever the server's policy is, an import must be durable when it ends.
            "disk" => "always".clone_into(&mut config.engine.fsync),
            "nats" => {}
            other => return Err(format!("ENGINE: {other} keeps nothing beyond its process; nothing would be left")),
        }
        let mut input = Input::open(file)?;
        let plan = ImportPlan::read(&mut input.lines()?, &config)?;
        Ok(Self { config, input, plan })
    }

    /// Makes the topics of the export. They are durable when this returns. After an error, or when `stop` is
    /// cancelled, what was written is deleted again.
    ///
    /// # Errors
    /// Returns one line, which names the line of the input if that is invalid.
    pub async fn run(self, stop: &CancellationToken) -> Result<(), String> {
        let Self { config, input, plan } = self;
        run(&config, input, plan, stop).await
    }
}

async fn run(config: &Config, mut input: Input, mut plan: ImportPlan, stop: &CancellationToken) -> Result<(), String> {
    let settings = RegistrySettings {
        max_topics: usize::MAX,
        max_bytes_per_topic: config.broker.max_bytes_per_topic,
        max_history_bytes: config.broker.max_history_bytes,
        max_patterns: 0,
        defaults: config.broker.defaults(),
        dedup_window: config.broker.dedup_window,
        dedup_bytes: config.broker.dedup_bytes,
    };
    let store = LoadedEngine::open(config.engine.engine(config.broker.engine_bounds())?, config, settings).await?;
    let imported = match check(&store, &plan, config) {
        Ok(()) => {
            let mut importing = RunningImport {
                store: &store,
                config,
                stop,
                channels: Vec::new(),
                consumers: Vec::new(),
                repeated: 0,
                ids: Vec::new(),
                collected_ids: 0,
                known_ids: 0,
                progress: Progress::begin(),
            };
            match importing.run(&mut plan, &mut input).await {
                Ok(()) => {
                    importing.summary(&plan);
                    Ok(())
                }
                Err(why) => Err(importing.roll_back(&why).await),
            }
        }
        Err(why) => Err(why),
    };
    store.engine.close().await;
    imported
}

/// Checks that all names are free and that there is room.
fn check(store: &LoadedEngine, plan: &ImportPlan, config: &Config) -> Result<(), String> {
    for topic in &plan.topics {
        if store.registry.find(&topic.name).is_some() {
            return Err(format!("topic {:?} exists already; nothing was imported", topic.name));
        }
    }
    for (key, _) in &plan.consumers {
        if store.consumers.get(key).is_some() {
            let (name, source) = (key.name.name(), key.source.as_str());
            return Err(format!("consumer {name:?} of {source:?} exists already; nothing was imported"));
        }
    }
    let (there, most) = (store.registry.count(""), config.broker.max_topics);
    if there + plan.topics.len() > most {
        return Err(format!("MAX_TOPICS: {there} topics are there, and at most {most} may be; nothing was imported"));
    }
    Ok(())
}

/// An import that is running.
struct RunningImport<'a> {
    store: &'a LoadedEngine,
    config: &'a Config,
    stop: &'a CancellationToken,
    /// The new topics, in the order of the plan.
    channels: Vec<Arc<Channel>>,
    consumers: Vec<ConsumerKey>,
    /// Messages that were not stored because an earlier message of their topic has the same id.
    repeated: u64,
    /// Ids without messages that are still to be stored, by the index of their topic.
    ids: Vec<(usize, Vec<KnownId>)>,
    collected_ids: usize,
    /// How many of them were within the deduplication window.
    known_ids: u64,
    progress: Progress,
}

/// A message that is in flight.
struct InFlightMessage {
    append: Append,
    /// The index of its topic.
    topic: usize,
    offset: u64,
    bytes: usize,
    line: u64,
}

impl RunningImport<'_> {
    async fn run(&mut self, plan: &mut ImportPlan, input: &mut Input) -> Result<(), String> {
        self.create_topics(plan).await?;
        let mut lines = input.lines()?;
        let stored = self.store_messages(plan, &mut lines).await;
        stored.map_err(|(line, why)| if line == 0 { why } else { format!("line {line}: {why}") })?;
        self.import_consumers(plan).await
    }

    fn check_stop(&self) -> Result<(), String> {
        if self.stop.is_cancelled() { Err("stopped by a signal".to_owned()) } else { Ok(()) }
    }

    async fn create_topics(&mut self, plan: &ImportPlan) -> Result<(), String> {
        let wanted = plan.topics.iter().map(|topic| {
            let (engine, name) = (self.store.engine.clone(), topic.name.clone());
            let (config, implicit) = (topic.config, topic.implicit);
            async move { engine.create(&name, config, implicit).await }
        });
        let mut made = run_all(wanted, self.stop).await;
        // The results come in any order. Topics that were created must be known even if another creation failed.
        made.sort_by_key(|(index, _)| *index);
        let complete = made.len() == plan.topics.len();
        let mut refused = None;
        for (_, made) in made {
            match made {
                Ok(channel) => self.channels.push(channel),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) => Err(error.to_string()),
            None if complete => Ok(()),
            None => self.check_stop(),
        }
    }

    /// Stores all messages, in order. An error comes with the number of its line.
    async fn store_messages(
        &mut self,
        plan: &mut ImportPlan,
        lines: &mut Lines<impl std::io::Read>,
    ) -> Result<(), (u64, String)> {
        let mut in_flight: VecDeque<InFlightMessage> = VecDeque::new();
        let (mut bytes, mut messages) = (0, 0);
        // Topics come in the same order as in the first pass.
        let mut topics = 0_usize;
        // The first line was checked in the first pass and is skipped.
        let mut number = 0;
        let changed = |number: u64| (number, "changed while it was imported".to_owned());
        loop {
            self.check_stop().map_err(|why| (0, why))?;
            let line = lines.next();
            number += 1;
            let line = line.map_err(|why| (number, why))?.ok_or_else(|| changed(number))?;
            if number == 1 {
                continue;
            }
            let read = format::check(line).and_then(|()| std::str::from_utf8(line).map_err(|error| error.to_string()));
            let message = match read.and_then(parse).map_err(|why| (number, why))? {
                Line::Topic(topic) => {
                    let planned = plan.topics.get(topics).filter(|planned| planned.name.as_str() == topic.name);
                    planned.ok_or_else(|| changed(number))?;
                    topics += 1;
                    continue;
                }
                Line::KnownId(known) => {
                    let known = known_id(&known).map_err(|why| (number, why))?;
                    self.collect_id(topics.checked_sub(1).ok_or_else(|| changed(number))?, known);
                    if self.collected_ids >= IDS_PER_BATCH {
                        bytes = 0;
                        self.store_collected_ids(plan, &mut in_flight).await?;
                    }
                    continue;
                }
                Line::Message(message) => message,
                Line::Consumer(_) | Line::End(_) => break,
            };
            let new_message =
                new_message(&message, self.config.broker.max_payload_bytes).map_err(|why| (number, why))?;
            let topic = topics.checked_sub(1).ok_or_else(|| changed(number))?;
            let channel = self.channels.get(topic).cloned().ok_or_else(|| changed(number))?;
            let size = new_message.data.len();
            while !in_flight.is_empty() && (in_flight.len() >= IN_FLIGHT || bytes + size > IN_FLIGHT_BYTES) {
                bytes -= self.wait_for_oldest(plan, &mut in_flight).await?;
            }
            let append = self.store.engine.append(&channel, new_message);
            in_flight.push_back(InFlightMessage { append, topic, offset: message.offset, bytes: size, line: number });
            bytes += size;
            messages += 1;
            self.progress.at(messages, "imported");
        }
        self.store_collected_ids(plan, &mut in_flight).await?;
        if messages == plan.counts.messages { Ok(()) } else { Err(changed(number)) }
    }

    /// Collects an id of this topic, if it is within the deduplication window.
    fn collect_id(&mut self, topic: usize, known: KnownId) {
        if !known.is_within(self.config.broker.dedup_window) {
            return;
        }
        self.known_ids += 1;
        self.collected_ids += 1;
        match self.ids.last_mut().filter(|(last, _)| *last == topic) {
            Some((_, ids)) => ids.push(known),
            None => self.ids.push((topic, vec![known])),
        }
    }

    /// Waits for the messages in flight, and then stores the collected ids. If a message has one of these ids, the
    /// message counts.
    async fn store_collected_ids(
        &mut self,
        plan: &mut ImportPlan,
        in_flight: &mut VecDeque<InFlightMessage>,
    ) -> Result<(), (u64, String)> {
        while !in_flight.is_empty() {
            self.wait_for_oldest(plan, in_flight).await?;
        }
        self.collected_ids = 0;
        let collected = std::mem::take(&mut self.ids);
        let count = collected.len();
        let wanted = collected.into_iter().filter_map(|(topic, ids)| {
            let (engine, channel) = (self.store.engine.clone(), self.channels.get(topic)?.clone());
            Some(async move { engine.remember(&channel, &ids).await })
        });
        let stored = run_all(wanted, self.stop).await;
        let complete = stored.len() == count;
        match stored.into_iter().find_map(|(_, stored)| stored.err()) {
            Some(error) => Err((0, error.to_string())),
            None if complete => Ok(()),
            None => self.check_stop().map_err(|why| (0, why)),
        }
    }

    /// Waits for the oldest message in flight and returns its size.
    async fn wait_for_oldest(
        &mut self,
        plan: &mut ImportPlan,
        in_flight: &mut VecDeque<InFlightMessage>,
    ) -> Result<usize, (u64, String)> {
        let Some(InFlightMessage { append, topic, offset, bytes, line }) = in_flight.pop_front() else { return Ok(0) };
        let publication = append.await.map_err(|refusal| match refusal {
            Refusal::Closed => (line, "its topic was deleted meanwhile".to_owned()),
            Refusal::Error(error) => (line, error.to_string()),
        })?;
        let Some(planned) = plan.topics.get_mut(topic) else { return Ok(bytes) };
        let now = publication.cursor.offset;
        if publication.duplicate {
            self.repeated += 1;
        } else if now <= planned.newest() {
            // The message was retried, for example after its leader died, and later messages were stored meanwhile.
            return Err((line, "was stored after a later message; try again when the cluster is healthy".to_owned()));
        }
        planned.stored(offset, now);
        Ok(bytes)
    }

    async fn import_consumers(&mut self, plan: &ImportPlan) -> Result<(), String> {
        let epochs: HashMap<&TopicName, Epoch> =
            self.channels.iter().map(|channel| (channel.name(), channel.epoch())).collect();
        let wanted = plan.consumers.iter().map(|(key, position)| {
            let position = plan.position(position, |topic| epochs.get(topic).copied());
            let (engine, key) = (self.store.engine.clone(), key.clone());
            async move { engine.positions().import(&key, &position).await }
        });
        let mut refused = None;
        for (index, restored) in run_all(wanted, self.stop).await {
            let Some((key, _)) = plan.consumers.get(index) else { continue };
            match restored {
                Ok(true) => self.consumers.push(key.clone()),
                Ok(false) => {
                    refused = Some(format!("consumer {:?} of {:?} exists", key.name.name(), key.source.as_str()));
                }
                Err(error) => refused = Some(error.to_string()),
            }
        }
        match refused {
            Some(why) => Err(why),
            None if self.consumers.len() == plan.consumers.len() => Ok(()),
            None => self.check_stop(),
        }
    }

    fn summary(&self, plan: &ImportPlan) {
        if self.repeated > 0 {
            let repeated = counted(self.repeated, "message");
            note(&format!("left out {repeated} whose id an earlier message of the same topic has"));
        }
        let messages = plan.counts.messages - self.repeated;
        let counts = format::LineCounts { messages, known_ids: self.known_ids, ..plan.counts };
        self.progress.end(counts, "imported");
    }

    /// Deletes what was written, and returns the error to report.
    async fn roll_back(&mut self, why: &str) -> String {
        let engine = &self.store.engine;
        let mut left = Vec::new();
        for key in &self.consumers {
            if !matches!(engine.positions().remove(key).await, Ok(()) | Err(Error::ConsumerNotFound(_))) {
                left.push(format!("consumer {:?}", key.name.name()));
            }
        }
        for channel in &self.channels {
            if !matches!(engine.delete(channel).await, Ok(()) | Err(Error::TopicNotFound(_))) {
                left.push(format!("topic {:?}", channel.name()));
            }
        }
        match &left[..] {
            [] => format!("{why}; nothing was imported"),
            [one] => format!("{why}; {one} could not be deleted again"),
            [first, others @ ..] => format!("{why}; {first} and {} more could not be deleted again", others.len()),
        }
    }
}

/// Runs all futures, a limited number at once, and returns their results with their indices. It starts no more when
/// `stop` is cancelled or one has failed.
async fn run_all<T: Send + 'static>(
    wanted: impl Iterator<Item = impl Future<Output = Result<T, Error>> + Send + 'static>,
    stop: &CancellationToken,
) -> Vec<(usize, Result<T, Error>)> {
    let mut tasks = JoinSet::new();
    let mut results = Vec::new();
    let mut wanted = wanted.enumerate().fuse();
    let mut failed = false;
    loop {
        while tasks.len() < CONCURRENT_CREATES && !failed && !stop.is_cancelled() {
            let Some((index, task)) = wanted.next() else { break };
            tasks.spawn(async move { (index, task.await) });
        }
        match tasks.join_next().await {
            None => return results,
            Some(Ok((index, result))) => {
                failed |= result.is_err();
                results.push((index, result));
            }
            // The tasks do not panic, and nobody aborts them.
            Some(Err(_)) => failed = true,
        }
    }
}
