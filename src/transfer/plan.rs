//! The first pass of an import: it checks everything and collects what the second pass needs.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    time::Duration,
};

use super::{
    format::{self, AnyVersionHeader, FORMAT, HeaderLine, Line, LineCounts, VERSION},
    input::Lines,
};
use crate::{
    channel::{
        ConsumerKey, ConsumerName, Cursor, Epoch, Error, Headers, Key, KnownId, MessageId, NewMessage, Origin, Payload,
        Position, Source, Timestamp, TopicConfig, TopicName,
    },
    config::Config,
};

/// What is to be imported, except the messages.
pub(super) struct ImportPlan {
    pub topics: Vec<PlannedTopic>,
    pub consumers: Vec<(ConsumerKey, Position)>,
    pub counts: LineCounts,
    by_name: HashMap<TopicName, usize>,
}

/// A topic, and the offsets at which consumers stand in it.
pub(super) struct PlannedTopic {
    pub name: TopicName,
    pub implicit: bool,
    pub config: TopicConfig,
    /// The epoch of the exported incarnation.
    epoch: Epoch,
    /// The messages from this offset on are complete. A consumer that stands before it has missed messages and must
    /// be told.
    complete_from: u64,
    /// The offsets at which consumers stand, ascending.
    consumer_offsets: Vec<u64>,
    /// The new offsets for these, as far as the import has passed them.
    new_offsets: Vec<u64>,
    /// The new offset of the newest message that was passed, or 0 before the first.
    newest: u64,
}

impl PlannedTopic {
    /// Notes that the message of this offset was stored with the offset `now`.
    pub fn stored(&mut self, offset: u64, now: u64) {
        while self
            .consumer_offsets
            .get(self.new_offsets.len())
            .is_some_and(|consumer_offsets| *consumer_offsets < offset)
        {
            self.new_offsets.push(self.newest);
        }
        self.newest = self.newest.max(now);
    }

    /// Returns the new offset of the newest message that was stored.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Returns the offset in the new incarnation for a consumer that stood at `offset` in the old one, or `None` if
    /// the consumer has missed messages and must be told.
    fn new_offset(&self, offset: u64) -> Option<u64> {
        if offset < self.complete_from {
            return None;
        }
        let passed = self.consumer_offsets.binary_search(&offset).ok().and_then(|index| self.new_offsets.get(index));
        Some(passed.copied().unwrap_or(self.newest))
    }
}

impl ImportPlan {
    /// Reads and checks the whole input.
    ///
    /// # Errors
    /// Returns the number of the first invalid line, and what is wrong with it.
    pub fn read(lines: &mut Lines<impl Read>, config: &Config) -> Result<Self, String> {
        let mut reader = PlanReader::new(config);
        let result = loop {
            match lines.next() {
                Ok(Some(line)) => match format::check(line).and_then(|()| reader.take(line)) {
                    Ok(()) => {}
                    Err(why) => break Err(why),
                },
                Ok(None) => break reader.finish(),
                Err(why) => break Err(why),
            }
        };
        result.map_err(|why| format!("line {}: {why}", lines.number))
    }

    /// Returns a consumer's position in the new incarnations of its topics. If the consumer has missed messages of a
    /// topic, its position there stays in the old incarnation. It then begins with the oldest message, and is told.
    pub fn position(&self, position: &Position, epoch_of: impl Fn(&TopicName) -> Option<Epoch>) -> Position {
        let place = |(topic, old): &(TopicName, Cursor)| {
            let planned = self.by_name.get(topic).and_then(|index| self.topics.get(*index));
            let moved = planned
                .filter(|planned| planned.epoch == old.epoch)
                .and_then(|planned| Some(Cursor { epoch: epoch_of(topic)?, offset: planned.new_offset(old.offset)? }));
            (topic.clone(), moved.unwrap_or(*old))
        };
        Position {
            cursors: position.cursors.iter().map(place).collect(),
            since: None,
            ack: position.ack,
            used_at: position.used_at,
            ttl: position.ttl,
            seeks: 0,
        }
    }
}

/// Which lines may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadStage {
    Header,
    Topics,
    Consumers,
    Ended,
}

struct PlanReader<'a> {
    config: &'a Config,
    stage: ReadStage,
    plan: ImportPlan,
    names: HashSet<ConsumerKey>,
    /// The newest offset that was passed in the current topic.
    last: u64,
    /// The newest offset of that topic.
    end: u64,
    /// Whether the topic's known ids have begun.
    in_ids: bool,
}

impl<'a> PlanReader<'a> {
    fn new(config: &'a Config) -> Self {
        let plan = ImportPlan {
            topics: Vec::new(),
            consumers: Vec::new(),
            counts: LineCounts::default(),
            by_name: HashMap::new(),
        };
        Self { config, stage: ReadStage::Header, plan, names: HashSet::new(), last: 0, end: 0, in_ids: false }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let line = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())?;
        if self.stage == ReadStage::Header {
            return self.header(line);
        }
        match (parse(line)?, self.stage) {
            (_, ReadStage::Ended) => Err("comes after the end".to_owned()),
            (Line::Topic(topic), ReadStage::Topics) => self.topic(&topic),
            (Line::Message(message), ReadStage::Topics) => self.message(&message),
            (Line::KnownId(known), ReadStage::Topics) => self.known_id(&known),
            (Line::Consumer(consumer), _) => self.consumer(&consumer),
            (Line::End(counts), _) => self.end(counts),
            (Line::Topic(_) | Line::Message(_) | Line::KnownId(_), _) => {
                Err("topics, messages and known ids come before consumers".to_owned())
            }
        }
    }

    fn header(&mut self, line: &str) -> Result<(), String> {
        let any: AnyVersionHeader =
            serde_json::from_str(line).map_err(|_| "is not the first line of an export".to_owned())?;
        if any.format != FORMAT {
            return Err(format!("is of format {:?}, not {FORMAT:?}", any.format));
        }
        if !(1..=VERSION).contains(&any.version) {
            return Err(format!("is of version {}; this build reads versions 1 to {VERSION}", any.version));
        }
        serde_json::from_str::<HeaderLine>(line).map_err(|error| wrong(&error))?;
        self.stage = ReadStage::Topics;
        Ok(())
    }

    fn topic(&mut self, topic: &format::TopicLine<'_>) -> Result<(), String> {
        self.pass_end();
        topic.config.check(self.config.broker.max_messages_limit, self.config.broker.max_keys).map_err(|error| {
            match error {
                // In the spelling of the file.
                Error::BadRequest { field: "max_messages", message } => {
                    format!("maxMessages {message} (MAX_MESSAGES_LIMIT)")
                }
                Error::BadRequest { field: "max_keys", message } => format!("maxKeys {message} (MAX_KEYS)"),
                Error::BadRequest { field: "expect_every", message } => format!("expectEvery {message}"),
                error => error.to_string(),
            }
        })?;
        if topic.last < topic.floor {
            return Err("last must not be below floor".to_owned());
        }
        let name = TopicName::parse(&topic.name).map_err(|error| error.to_string())?;
        let index = self.plan.topics.len();
        if self.plan.by_name.insert(name.clone(), index).is_some() {
            return Err(format!("topic {name:?} comes a second time"));
        }
        self.plan.topics.push(PlannedTopic {
            name,
            implicit: topic.implicit,
            config: topic.config,
            epoch: topic.epoch.0,
            complete_from: topic.floor,
            consumer_offsets: Vec::new(),
            new_offsets: Vec::new(),
            newest: 0,
        });
        (self.last, self.end, self.in_ids) = (topic.floor, topic.last, false);
        self.plan.counts.topics += 1;
        Ok(())
    }

    /// Ends the current topic. What was published after its last message is lost.
    fn pass_end(&mut self) {
        if let Some(topic) = self.plan.topics.last_mut()
            && self.last < self.end
        {
            topic.complete_from = self.end;
        }
    }

    fn message(&mut self, message: &format::MessageLine<'_>) -> Result<(), String> {
        let topic = self.plan.topics.last_mut().ok_or("comes before any topic")?;
        if self.in_ids {
            return Err("a topic's messages come before its known ids".to_owned());
        }
        let offset = message.offset;
        if offset <= self.last || offset > self.end {
            return Err(format!("offset must be more than {} and at most {}, not {offset}", self.last, self.end));
        }
        new_message(message, self.config.broker.max_payload_bytes)?;
        if message.after_loss {
            topic.complete_from = offset - 1;
        }
        self.last = offset;
        self.plan.counts.messages += 1;
        Ok(())
    }

    fn known_id(&mut self, known: &format::KnownIdLine<'_>) -> Result<(), String> {
        if self.plan.topics.is_empty() {
            return Err("comes before any topic".to_owned());
        }
        known_id(known)?;
        self.in_ids = true;
        self.plan.counts.known_ids += 1;
        Ok(())
    }

    fn consumer(&mut self, consumer: &format::ConsumerLine<'_>) -> Result<(), String> {
        if self.stage == ReadStage::Topics {
            self.pass_end();
            self.stage = ReadStage::Consumers;
        }
        let source = Source::parse(&consumer.source).map_err(|error| error.to_string())?;
        let name = ConsumerName::parse(&consumer.name).and_then(|name| name.owned_by(consumer.owner.as_deref()));
        let name = name.map_err(|error| error.to_string())?;
        let key = ConsumerKey { source, name };
        if !self.names.insert(key.clone()) {
            return Err(format!("consumer {:?} of {:?} comes a second time", key.name.name(), key.source.as_str()));
        }
        let mut cursors = Vec::with_capacity(consumer.positions.len());
        for position in &consumer.positions {
            let topic = TopicName::parse(&position.topic).map_err(|error| error.to_string())?;
            let cursor = Cursor { epoch: position.epoch.0, offset: position.offset };
            let planned = self.plan.by_name.get(&topic).and_then(|index| self.plan.topics.get_mut(*index));
            if let Some(planned) = planned.filter(|planned| planned.epoch == cursor.epoch) {
                planned.consumer_offsets.push(cursor.offset);
            }
            cursors.push((topic, cursor));
        }
        let position = Position {
            ack: consumer.ack.0,
            cursors,
            used_at: consumer.used_at.0,
            since: None,
            ttl: consumer.ttl_ms.map(Duration::from_millis),
            seeks: 0,
        };
        self.plan.consumers.push((key, position));
        self.plan.counts.consumers += 1;
        Ok(())
    }

    fn end(&mut self, counts: LineCounts) -> Result<(), String> {
        if counts != self.plan.counts {
            let describe = |counts: LineCounts| {
                let LineCounts { topics, messages, known_ids, consumers } = counts;
                format!("{topics} topics, {messages} messages, {known_ids} known ids, {consumers} consumers")
            };
            return Err(format!("says that there are {}; there are {}", describe(counts), describe(self.plan.counts)));
        }
        if self.stage == ReadStage::Topics {
            self.pass_end();
        }
        self.stage = ReadStage::Ended;
        Ok(())
    }

    fn finish(mut self) -> Result<ImportPlan, String> {
        if self.stage != ReadStage::Ended {
            return Err("is missing: the file is cut off, or not complete yet".to_owned());
        }
        for topic in &mut self.plan.topics {
            topic.consumer_offsets.sort_unstable();
            topic.consumer_offsets.dedup();
        }
        Ok(self.plan)
    }
}

/// Parses a line after the first.
///
/// # Errors
/// Returns what is wrong with it.
pub(super) fn parse(line: &str) -> Result<Line<'_>, String> {
    serde_json::from_str(line).map_err(|error| wrong(&error))
}

/// Returns the parser's message without its own line number, which is always 1.
fn wrong(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.replace(" at line 1 column ", " at byte ")
}

/// Returns the id to be known.
///
/// # Errors
/// Returns what is wrong with it.
pub(super) fn known_id(known: &format::KnownIdLine<'_>) -> Result<KnownId, String> {
    let id = MessageId::parse(&known.id).map_err(|error| error.to_string())?;
    // An id from the future would be known for longer than the window.
    Ok(KnownId { id, at: known.published_at.0.min(Timestamp::now()) })
}

/// Returns the message to be published again.
///
/// # Errors
/// Returns what is wrong with it.
pub(super) fn new_message(message: &format::MessageLine<'_>, max_payload_bytes: usize) -> Result<NewMessage, String> {
    let read = || {
        let id = MessageId::parse(&message.id)?;
        let (id, made_up_id) = if message.given { (Some(id), None) } else { (None, Some(id)) };
        Ok(NewMessage {
            id,
            key: message.key.as_deref().map(Key::parse).transpose()?,
            headers: message.headers.map_or(Ok(None), |headers| Headers::parse(headers.get()))?,
            origin: Some(Origin { at: message.published_at.0, made_up_id }),
            ttl: message.ttl.filter(|ttl| !ttl.is_unlimited()),
            is_removal: message.removed,
            ..NewMessage::of(Payload::existing(message.data, max_payload_bytes)?)
        })
    };
    read().map_err(|error: Error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Ack;

    fn header() -> String {
        "{\"format\":\"pub-sub\",\"version\":1,\"exportedAt\":\"2026-11-26T15:00:00.000Z\",\"engine\":\"nats\"}\n"
            .to_owned()
    }

    fn topic(floor: u64, last: u64) -> String {
        format!(
            "{{\"topic\":{{\"name\":\"t\",\"epoch\":\"{:016x}\",\"createdAt\":\"2026-11-26T15:00:00.000Z\",\"implicit\":false,\
             \"maxMessages\":9,\"maxPublishRate\":0,\"floor\":{floor},\"last\":{last}}}}}\n",
            1
        )
    }

    fn message(offset: u64, after_loss: bool) -> String {
        format!(
            "{{\"message\":{{\"offset\":{offset},\"afterLoss\":{after_loss},\"id\":\"{offset}\",\"given\":false,\
             \"publishedAt\":\"2026-11-26T15:00:00.000Z\",\"data\":0}}}}\n"
        )
    }

    /// Returns a consumer line for each position, in the incarnation of this epoch.
    fn consumers(epoch: u64, places: &[u64]) -> String {
        let line = |offset: &u64| {
            format!(
                "{{\"consumer\":{{\"source\":\"t\",\"name\":\"{epoch} {offset}\",\"ack\":\"AUTO\",\
                 \"usedAt\":\"2026-11-26T15:00:00.000Z\",\"places\":[{{\"topic\":\"t\",\"epoch\":\"{epoch:016x}\",\
                 \"offset\":{offset}}}]}}}}\n"
            )
        };
        places.iter().map(line).collect()
    }

    /// Returns each position after an import that numbers the messages 101, 102, and so on. It is 0 for a position
    /// that stays where it was because messages are missing.
    fn moved(floor: u64, last: u64, messages: &[(u64, bool)], epoch: u64, places: &[u64]) -> Vec<u64> {
        let lines: String = messages.iter().map(|(offset, after_loss)| message(*offset, *after_loss)).collect();
        let end =
            format!("{{\"end\":{{\"topics\":1,\"messages\":{},\"consumers\":{}}}}}", messages.len(), places.len());
        let text = header() + &topic(floor, last) + &lines + &consumers(epoch, places) + &end;
        let mut plan = ImportPlan::read(&mut Lines::new(text.as_bytes()), &Config::default()).unwrap();
        for (index, (offset, _)) in messages.iter().enumerate() {
            plan.topics[0].stored(*offset, 101 + index as u64);
        }
        let new = Epoch::from_bits(2);
        let place = |offset: &u64| {
            let name = TopicName::parse("t").unwrap();
            let old = Cursor { epoch: Epoch::from_bits(epoch), offset: *offset };
            let (cursors, used_at) = (vec![(name, old)], Timestamp(0));
            let position = Position { ack: Ack::Auto, cursors, used_at, since: None, ttl: None, seeks: 0 };
            match plan.position(&position, |_| Some(new)).cursors[0].1 {
                Cursor { epoch, offset } if epoch == new => offset.max(1),
                cursor => {
                    assert_eq!(cursor, old);
                    0
                }
            }
        };
        places.iter().map(place).collect()
    }

    #[test]
    fn consumers_positions_move_with_the_messages() {
        let messages = [(11, false), (15, false), (16, false), (30, false)];
        let places = [8, 9, 10, 11, 12, 15, 16, 29, 30, 31, u64::MAX];
        // A consumer before the floor has missed messages. One at the floor has not, and begins with the first
        // message (shown as 1 instead of 0).
        let expected = [0, 0, 1, 101, 101, 102, 103, 103, 104, 104, 104];
        assert_eq!(moved(10, 30, &messages, 1, &places), expected);
        // A position of another incarnation is not moved.
        assert_eq!(moved(10, 30, &messages, 3, &places), [0; 11]);
    }

    #[test]
    fn consumers_before_lost_messages_are_told() {
        let messages = [(1, false), (2, false), (7, true), (8, false)];
        assert_eq!(moved(0, 8, &messages, 1, &[0, 1, 2, 5, 6, 7, 8]), [0, 0, 0, 0, 102, 103, 104]);
        // Messages after the newest one can be lost, too.
        assert_eq!(moved(0, 20, &messages, 1, &[2, 8, 19, 20]), [0, 0, 0, 104]);
        // The topic has no messages left.
        assert_eq!(moved(20, 20, &[], 1, &[0, 19, 20, 21]), [0, 0, 1, 1]);
        assert_eq!(moved(0, 0, &[], 1, &[0]), [1]);
    }
}
