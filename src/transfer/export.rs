//! Writing everything that an engine keeps.

use std::{
    borrow::Cow,
    collections::HashSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    LoadedEngine, Progress,
    format::{
        self, AckText, ConsumerLine, EpochText, FORMAT, HeaderLine, Line, LineCounts, MessageLine, TimeText, TopicLine,
        TopicPosition, VERSION,
    },
    note,
};
use crate::{
    channel::{ConsumerKey, Headers, Key, KnownId, Position, RegistrySettings, Source, Timestamp},
    config::Config,
    engine::{
        disk::{Snapshot, StoredId, StoredMessage},
        nats,
    },
};

/// Writes everything that the configured engine keeps to `output`, or to standard output. The file appears only when
/// it is complete, and it replaces an earlier one.
///
/// # Errors
/// Returns one line.
pub async fn export(config: &Config, output: Option<&Path>) -> Result<(), String> {
    let progress = Progress::begin();
    match config.engine.engine.as_str() {
        "disk" => from_disk(config, output, progress),
        "nats" => from_nats(config, output, progress).await,
        other => Err(format!("ENGINE: {other} keeps nothing beyond its process; there is nothing to export")),
    }
}

fn from_disk(config: &Config, output: Option<&Path>, progress: Progress) -> Result<(), String> {
    let snapshot =
        Snapshot::read(Path::new(&config.engine.data_dir), config.broker.defaults(), config.broker.dedup_window)?;
    if snapshot.torn_bytes > 0 {
        note(&format!(
            "the last {} bytes of the log are not a whole record but a write in progress or a torn one; they are left out",
            snapshot.torn_bytes
        ));
    }
    let mut writer = ExportWriter::open(output, progress)?;
    writer.header(config)?;
    let consumed: HashSet<&str> = snapshot.consumers.iter().map(|(key, _)| key.source.as_str()).collect();
    for topic in &snapshot.topics {
        // An implicit topic without messages and consumers disappears by itself, so it is not exported.
        if topic.implicit && topic.last == 0 && !consumed.contains(topic.name.as_str()) {
            continue;
        }
        writer.topic(TopicLine {
            name: topic.name.as_str().into(),
            epoch: EpochText(topic.epoch),
            created_at: TimeText(topic.created_at),
            implicit: topic.implicit,
            config: topic.config,
            floor: topic.floor,
            last: topic.last,
        })?;
        snapshot.messages(topic, |message| writer.message(message))?;
        for StoredId { id, at, .. } in &topic.ids {
            writer.known_id(id, *at)?;
        }
    }
    for (key, position) in &snapshot.consumers {
        writer.consumer(key, position)?;
    }
    writer.end()
}

async fn from_nats(config: &Config, output: Option<&Path>, progress: Progress) -> Result<(), String> {
    let prefix = &config.engine.nats.prefix;
    if !nats::exists(&config.engine.nats).await? {
        return Err(format!("NATS_PREFIX: there is nothing of {prefix:?} in NATS"));
    }
    // Everything in the streams is exported, even if a server with these settings would keep less of it.
    let most = usize::MAX;
    let settings = RegistrySettings {
        max_topics: most,
        max_bytes_per_topic: most,
        max_history_bytes: most,
        max_patterns: 0,
        defaults: config.broker.defaults(),
        dedup_window: config.broker.dedup_window,
        dedup_bytes: most,
    };
    let store = LoadedEngine::open(config.engine.engine(config.broker.engine_bounds())?, config, settings).await?;
    let written = write_channels(&store, config, output, progress);
    store.engine.close().await;
    written
}

fn write_channels(
    store: &LoadedEngine,
    config: &Config,
    output: Option<&Path>,
    progress: Progress,
) -> Result<(), String> {
    let mut writer = ExportWriter::open(output, progress)?;
    writer.header(config)?;
    let mut channels = store.registry.all();
    channels.sort_by(|a, b| a.name().cmp(b.name()));
    for channel in channels {
        let (kept, implicit) = (channel.kept(), channel.is_implicit());
        if implicit && kept.last == 0 && !store.consumers.any(&Source::Topic(channel.name().clone())) {
            continue;
        }
        writer.topic(TopicLine {
            name: channel.name().as_str().into(),
            epoch: EpochText(channel.epoch()),
            created_at: TimeText(channel.created_at()),
            implicit,
            config: channel.config(),
            floor: kept.floor,
            last: kept.last,
        })?;
        let mut before = kept.floor;
        for (message, given_id) in &kept.messages {
            writer.message(StoredMessage {
                offset: message.cursor.offset,
                after_loss: message.prev != before,
                at: message.published_at,
                id: message.id.as_str(),
                given_id: *given_id,
                key: message.key.as_ref().map(Key::as_str),
                data: message.data.as_str(),
                headers: message.headers.as_ref().map(Headers::as_json),
                ttl: message.ttl,
                is_removal: message.is_removal,
            })?;
            before = message.cursor.offset;
        }
        for KnownId { id, at } in &kept.ids {
            writer.known_id(id.as_str(), *at)?;
        }
    }
    // Consumers come after the messages: a position that has moved meanwhile is still one up to which messages were
    // delivered.
    let mut consumers: Vec<_> = store.consumers.all();
    consumers.sort_by(|a, b| {
        let by = |key: &ConsumerKey| (key.source.as_str().to_owned(), key.name.clone());
        by(a.key()).cmp(&by(b.key()))
    });
    for consumer in consumers {
        writer.consumer(consumer.key(), &consumer.position())?;
    }
    writer.end()
}

/// Where the lines go.
enum OutputTarget {
    Stdout(io::Stdout),
    /// Anything that is not a regular file, for example a pipe. It is written directly.
    Open(File),
    /// A file that has another name until it is complete.
    Partial {
        file: File,
        path: PathBuf,
        partial: PathBuf,
    },
    Finished,
}

impl Drop for OutputTarget {
    fn drop(&mut self) {
        if let Self::Partial { partial, .. } = self {
            // An incomplete file is of no use.
            let _ = fs::remove_file(partial);
        }
    }
}

impl OutputTarget {
    fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(io::stdout())) };
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Ok(Self::Open(File::options().write(true).open(path)?));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        Ok(Self::Partial { file: File::create(&partial)?, path: path.to_owned(), partial })
    }

    /// Called when everything was written: renames the file.
    fn finish(&mut self) -> io::Result<()> {
        let Self::Partial { file, path, partial } = self else { return Ok(()) };
        file.sync_all()?;
        fs::rename(&*partial, &*path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = File::open(directory)?;
        *self = Self::Finished;
        directory.sync_all()
    }
}

impl Write for OutputTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::Open(file) | Self::Partial { file, .. } => file.write(bytes),
            Self::Finished => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::Open(file) | Self::Partial { file, .. } => file.flush(),
            Self::Finished => Ok(()),
        }
    }
}

/// Writes lines and counts them.
struct ExportWriter {
    out: BufWriter<OutputTarget>,
    name: String,
    line: Vec<u8>,
    counts: LineCounts,
    progress: Progress,
}

impl ExportWriter {
    fn open(output: Option<&Path>, progress: Progress) -> Result<Self, String> {
        let name = output.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        let target = OutputTarget::open(output).map_err(|error| format!("{name}: {error}"))?;
        let out = BufWriter::with_capacity(256 << 10, target);
        Ok(Self { out, name, line: Vec::new(), counts: LineCounts::default(), progress })
    }

    fn put(&mut self, value: &impl Serialize) -> Result<(), String> {
        format::put(value, &mut self.line)?;
        self.out.write_all(&self.line).map_err(|error| format!("{}: {error}", self.name))
    }

    fn header(&mut self, config: &Config) -> Result<(), String> {
        self.put(&HeaderLine {
            format: FORMAT.to_owned(),
            version: VERSION,
            exported_at: TimeText(Timestamp::now()),
            engine: config.engine.engine.clone(),
        })
    }

    fn topic(&mut self, topic: TopicLine<'_>) -> Result<(), String> {
        self.counts.topics += 1;
        self.put(&Line::Topic(topic))
    }

    fn message(&mut self, message: StoredMessage<'_>) -> Result<(), String> {
        let StoredMessage { offset, after_loss, at, id, given_id, key, data, headers, ttl, is_removal } = message;
        // The data is parsed again, because an export must not hold anything that an import refuses.
        let data: &RawValue =
            serde_json::from_str(data).map_err(|error| format!("the data of message {offset}: {error}"))?;
        let headers: Option<&RawValue> = headers
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error| format!("the headers of message {offset}: {error}"))?;
        self.counts.messages += 1;
        self.progress.at(self.counts.messages, "exported");
        self.put(&Line::Message(MessageLine {
            offset,
            after_loss,
            id: id.into(),
            given: given_id,
            key: key.map(Cow::Borrowed),
            headers,
            published_at: TimeText(at),
            data,
            ttl,
            removed: is_removal,
        }))
    }

    fn known_id(&mut self, id: &str, at: Timestamp) -> Result<(), String> {
        self.counts.known_ids += 1;
        self.put(&Line::KnownId(format::KnownIdLine { id: id.into(), published_at: TimeText(at) }))
    }

    fn consumer(&mut self, key: &ConsumerKey, position: &Position) -> Result<(), String> {
        self.counts.consumers += 1;
        let position_of = |(topic, cursor): &(crate::channel::TopicName, crate::channel::Cursor)| TopicPosition {
            topic: topic.as_str().to_owned().into(),
            epoch: EpochText(cursor.epoch),
            offset: cursor.offset,
        };
        self.put(&Line::Consumer(ConsumerLine {
            source: key.source.as_str().into(),
            name: key.name.name().into(),
            owner: key.name.owner().map(Into::into),
            ack: AckText(position.ack),
            used_at: TimeText(position.used_at),
            ttl_ms: position.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            positions: position.cursors.iter().map(position_of).collect(),
        }))
    }

    fn end(mut self) -> Result<(), String> {
        self.put(&Line::End(self.counts))?;
        let finished = self.out.flush().and_then(|()| self.out.get_mut().finish());
        finished.map_err(|error| format!("{}: {error}", self.name))?;
        self.progress.end(self.counts, "exported");
        Ok(())
    }
}
