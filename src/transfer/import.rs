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
    Progress, Store, counted,
    format::{self, Line},
    input::{Input, Lines},
    note,
    plan::{Plan, known_id, new_message, parse},
};
use crate::{
    channel::{Channel, ConsumerKey, Epoch, Error, KnownId, Refusal, RegistrySettings, TopicName},
    config::Config,
    engine::Append,
};

/// Topics and consumers that may be on their way at once: each waits for a sync, or for the cluster.
const AT_ONCE: usize = 64;

/// Messages that may be on their way at once: half of what the engines' queues hold, so that none refuses.
const IN_FLIGHT: usize = 4_096;

/// Bytes of data that may be on their way at once, if it is more than one message.
const IN_FLIGHT_BYTES: usize = 4 << 20;

/// Known ids that are held until they are stored together.
const IDS_AT_ONCE: usize = 20_000;

/// An export that was read and found whole.
pub struct Import {
    config: Config,
    input: Input,
    plan: Plan,
}

impl Import {
    /// Reads an export from `file`, or from standard input, for the configured engine, and checks all of it. Nothing is
    /// written but a temporary file, if the input cannot be read twice.
    ///
    /// # Errors
    /// One line, which names the line of the input where it is at fault.
    pub fn read(config: &Config, file: Option<&Path>) -> Result<Self, String> {
        let mut config = config.clone();
        match config.engine.engine.as_str() {
            // Whatever the server does later: what is imported is stored, not about to be.
            "disk" => "always".clone_into(&mut config.engine.fsync),
            "nats" => {}
            other => return Err(format!("ENGINE: {other} keeps nothing beyond its process; nothing would be left")),
        }
        let mut input = Input::open(file)?;
        let plan = Plan::read(&mut input.lines()?, &config)?;
        Ok(Self { config, input, plan })
    }

    /// Makes its topics. They are stored for good when this returns; with an error, or when `stop` is cancelled, what was
    /// written is deleted again.
    ///
    /// # Errors
    /// One line, which names the line of the input where it is at fault.
    pub async fn run(self, stop: &CancellationToken) -> Result<(), String> {
        let Self { config, input, plan } = self;
        run(&config, input, plan, stop).await
    }
}

async fn run(config: &Config, mut input: Input, mut plan: Plan, stop: &CancellationToken) -> Result<(), String> {
    let settings = RegistrySettings {
        max_topics: usize::MAX,
        max_bytes_per_topic: config.broker.max_bytes_per_topic,
        max_history_bytes: config.broker.max_history_bytes,
        max_patterns: 0,
        defaults: config.broker.defaults(),
        dedup_window: config.broker.dedup_window,
        dedup_bytes: config.broker.dedup_bytes,
    };
    let store = Store::open(config.engine.engine(config.broker.engine_bounds())?, config, settings).await?;
    let imported = match check(&store, &plan, config) {
        Ok(()) => {
            let mut importing = Importing {
                store: &store,
                config,
                stop,
                channels: Vec::new(),
                consumers: Vec::new(),
                repeated: 0,
                ids: Vec::new(),
                held_ids: 0,
                known_ids: 0,
                progress: Progress::begin(),
            };
            match importing.run(&mut plan, &mut input).await {
                Ok(()) => {
                    importing.summary(&plan);
                    Ok(())
                }
                Err(why) => Err(importing.take_back(&why).await),
            }
        }
        Err(why) => Err(why),
    };
    store.engine.close().await;
    imported
}

/// Whether all names are free, and there is room.
fn check(store: &Store, plan: &Plan, config: &Config) -> Result<(), String> {
    for topic in &plan.topics {
        if store.registry.find(&topic.name).is_some() {
            return Err(format!("topic {:?} exists already; nothing was imported", topic.name));
        }
    }
    for (key, _) in &plan.consumers {
        if store.consumers.get(key).is_some() {
            let (name, source) = (key.name.as_str(), key.source.as_str());
            return Err(format!("consumer {name:?} of {source:?} exists already; nothing was imported"));
        }
    }
    let (there, most) = (store.registry.count(""), config.broker.max_topics);
    if there + plan.topics.len() > most {
        return Err(format!("MAX_TOPICS: {there} topics are there, and at most {most} may be; nothing was imported"));
    }
    Ok(())
}

/// An import under way.
struct Importing<'a> {
    store: &'a Store,
    config: &'a Config,
    stop: &'a CancellationToken,
    /// The new topics, in the order of the plan.
    channels: Vec<Arc<Channel>>,
    consumers: Vec<ConsumerKey>,
    /// Messages that were not stored because their id stands before them in their topic.
    repeated: u64,
    /// Ids of messages that are gone, by their topic, which are still to be stored.
    ids: Vec<(usize, Vec<KnownId>)>,
    held_ids: usize,
    /// How many of them were within their window.
    known_ids: u64,
    progress: Progress,
}

/// A message on its way.
struct Sent {
    append: Append,
    /// Which of the topics it is in.
    topic: usize,
    offset: u64,
    bytes: usize,
    line: u64,
}

impl Importing<'_> {
    async fn run(&mut self, plan: &mut Plan, input: &mut Input) -> Result<(), String> {
        self.create_topics(plan).await?;
        let mut lines = input.lines()?;
        let stored = self.store_messages(plan, &mut lines).await;
        stored.map_err(|(line, why)| if line == 0 { why } else { format!("line {line}: {why}") })?;
        self.restore_consumers(plan).await
    }

    fn check_stop(&self) -> Result<(), String> {
        if self.stop.is_cancelled() { Err("stopped by a signal".to_owned()) } else { Ok(()) }
    }

    async fn create_topics(&mut self, plan: &Plan) -> Result<(), String> {
        let wanted = plan.topics.iter().map(|topic| {
            let (engine, name) = (self.store.engine.clone(), topic.name.clone());
            let (config, implicit) = (topic.config, topic.implicit);
            async move { engine.create(&name, config, implicit).await }
        });
        let mut made = all(wanted, self.stop).await;
        // Answered in any order; those that were made have to be known even if another was not.
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
        plan: &mut Plan,
        lines: &mut Lines<impl std::io::Read>,
    ) -> Result<(), (u64, String)> {
        let mut sent: VecDeque<Sent> = VecDeque::new();
        let (mut bytes, mut messages) = (0, 0);
        // Topics come in the order in which they were read the first time.
        let mut topics = 0_usize;
        // The first line was checked, and says nothing more.
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
                    self.hold(topics.checked_sub(1).ok_or_else(|| changed(number))?, known);
                    if self.held_ids >= IDS_AT_ONCE {
                        bytes = 0;
                        self.store_held(plan, &mut sent).await?;
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
            while !sent.is_empty() && (sent.len() >= IN_FLIGHT || bytes + size > IN_FLIGHT_BYTES) {
                bytes -= self.settle(plan, &mut sent).await?;
            }
            let append = self.store.engine.append(&channel, new_message);
            sent.push_back(Sent { append, topic, offset: message.offset, bytes: size, line: number });
            bytes += size;
            messages += 1;
            self.progress.at(messages, "imported");
        }
        self.store_held(plan, &mut sent).await?;
        if messages == plan.counts.messages { Ok(()) } else { Err(changed(number)) }
    }

    /// An id of this topic is to be known, if it is not too old for that.
    fn hold(&mut self, topic: usize, known: KnownId) {
        if !known.is_within(self.config.broker.dedup_window) {
            return;
        }
        self.known_ids += 1;
        self.held_ids += 1;
        match self.ids.last_mut().filter(|(last, _)| *last == topic) {
            Some((_, ids)) => ids.push(known),
            None => self.ids.push((topic, vec![known])),
        }
    }

    /// Stores the messages that are on their way, and behind them the ids that are held: where a message has one of them, it
    /// is the message that counts.
    async fn store_held(&mut self, plan: &mut Plan, sent: &mut VecDeque<Sent>) -> Result<(), (u64, String)> {
        while !sent.is_empty() {
            self.settle(plan, sent).await?;
        }
        self.held_ids = 0;
        let held = std::mem::take(&mut self.ids);
        let count = held.len();
        let wanted = held.into_iter().filter_map(|(topic, ids)| {
            let (engine, channel) = (self.store.engine.clone(), self.channels.get(topic)?.clone());
            Some(async move { engine.remember(&channel, &ids).await })
        });
        let stored = all(wanted, self.stop).await;
        let complete = stored.len() == count;
        match stored.into_iter().find_map(|(_, stored)| stored.err()) {
            Some(error) => Err((0, error.to_string())),
            None if complete => Ok(()),
            None => self.check_stop().map_err(|why| (0, why)),
        }
    }

    /// Waits for the oldest message on its way; answers its bytes.
    async fn settle(&mut self, plan: &mut Plan, sent: &mut VecDeque<Sent>) -> Result<usize, (u64, String)> {
        let Some(Sent { append, topic, offset, bytes, line }) = sent.pop_front() else { return Ok(0) };
        let publication = append.await.map_err(|refusal| match refusal {
            Refusal::Closed => (line, "its topic was deleted meanwhile".to_owned()),
            Refusal::Error(error) => (line, error.to_string()),
        })?;
        let Some(planned) = plan.topics.get_mut(topic) else { return Ok(bytes) };
        let now = publication.cursor.offset;
        if publication.duplicate {
            self.repeated += 1;
        } else if now <= planned.newest() {
            // One that was tried again, after a leader's death say, while those behind it came through.
            return Err((line, "was stored behind a later message; try again when the cluster is well".to_owned()));
        }
        planned.stored(offset, now);
        Ok(bytes)
    }

    async fn restore_consumers(&mut self, plan: &Plan) -> Result<(), String> {
        let epochs: HashMap<&TopicName, Epoch> =
            self.channels.iter().map(|channel| (channel.name(), channel.epoch())).collect();
        let wanted = plan.consumers.iter().map(|(key, position)| {
            let position = plan.position(position, |topic| epochs.get(topic).copied());
            let (engine, key) = (self.store.engine.clone(), key.clone());
            async move { engine.positions().import(&key, &position).await }
        });
        let mut refused = None;
        for (index, restored) in all(wanted, self.stop).await {
            let Some((key, _)) = plan.consumers.get(index) else { continue };
            match restored {
                Ok(true) => self.consumers.push(key.clone()),
                Ok(false) => {
                    refused = Some(format!("consumer {:?} of {:?} exists", key.name.as_str(), key.source.as_str()));
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

    fn summary(&self, plan: &Plan) {
        if self.repeated > 0 {
            let repeated = counted(self.repeated, "message");
            note(&format!("left out {repeated} whose id stands before in the same topic"));
        }
        let messages = plan.counts.messages - self.repeated;
        let counts = format::Counts { messages, known_ids: self.known_ids, ..plan.counts };
        self.progress.end(counts, "imported");
    }

    /// Deletes what was written; answers what is to be said.
    async fn take_back(&mut self, why: &str) -> String {
        let engine = &self.store.engine;
        let mut left = Vec::new();
        for key in &self.consumers {
            if !matches!(engine.positions().remove(key).await, Ok(()) | Err(Error::ConsumerNotFound(_))) {
                left.push(format!("consumer {:?}", key.name.as_str()));
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

/// Runs all, some at once, and answers what they answered with their numbers; begins no more when `stop` is cancelled or
/// one has failed.
async fn all<T: Send + 'static>(
    wanted: impl Iterator<Item = impl Future<Output = Result<T, Error>> + Send + 'static>,
    stop: &CancellationToken,
) -> Vec<(usize, Result<T, Error>)> {
    let mut tasks = JoinSet::new();
    let mut answers = Vec::new();
    let mut wanted = wanted.enumerate().fuse();
    let mut failed = false;
    loop {
        while tasks.len() < AT_ONCE && !failed && !stop.is_cancelled() {
            let Some((index, task)) = wanted.next() else { break };
            tasks.spawn(async move { (index, task.await) });
        }
        match tasks.join_next().await {
            None => return answers,
            Some(Ok((index, answer))) => {
                failed |= answer.is_err();
                answers.push((index, answer));
            }
            // Not one of them panics, and nobody aborts them.
            Some(Err(_)) => failed = true,
        }
    }
}
