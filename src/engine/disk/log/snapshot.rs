//! Reading the log at one moment, beside a process that may be writing it. Nothing is written and no lock is taken.
//!
//! A log only grows at its end, and a segment is removed only after its live records were copied to the end. So if
//! all segments of one moment are opened before any of them is read, they hold everything up to that moment, even if
//! files are removed meanwhile. Of messages only the locations are kept in memory. Their bytes are read when they are
//! needed.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use bytes::Bytes;

use super::{
    compacted::MessageBounds,
    contents::{Created, LogContents, TopicContents},
    error::OpenError,
    files::{FOOTPRINT, SegmentScanner, boot, file_name, number_of},
    footprint::KnownExtent,
    frame::{FRAME_HEADER_BYTES, is_valid},
    ids,
    ledger::now_ms,
    newest::ChainLink,
    record::{MessageRecord, StoredRecord},
    recovered::{RecoveredConsumer, RecoveredId},
    segment_reader::read_segment,
};

/// How often the segments are listed again because one was removed meanwhile. Each time a whole segment must have
/// been written, which takes far longer than a listing.
const ATTEMPTS: usize = 100;

/// What the log holds, by the same rules as recovery.
pub struct LogSnapshot {
    /// The segments by number.
    segments: Vec<(u64, File)>,
    /// The topics that were not deleted, in no order.
    pub topics: Vec<LogSnapshotTopic>,
    /// The consumers that were not deleted, in no order.
    pub consumers: Vec<RecoveredConsumer>,
    /// Bytes at the end at which no whole record begins: a write in progress, or a torn one.
    pub torn_bytes: u64,
}

/// A topic. The fields are those of [`super::RecoveredTopic`].
pub struct LogSnapshotTopic {
    pub epoch: u64,
    pub name: String,
    pub created_at_ms: i64,
    pub implicit: bool,
    pub settings: Box<[u8]>,
    pub compacted_until: u64,
    pub messages: Vec<MessageLocation>,
    pub ids: Vec<RecoveredId>,
    /// The newest offset. Offsets up to here were used, or skipped after an end that may have lost some.
    pub last: u64,
}

/// The location of a message in the log.
pub struct MessageLocation {
    pub offset: u64,
    prev: u64,
    at: u64,
    /// The size of the whole frame.
    bytes: u32,
    segment: u32,
}

impl MessageLocation {
    fn link(&self) -> ChainLink {
        ChainLink { offset: self.offset, prev: self.prev }
    }
}

impl LogSnapshot {
    /// Reads what the log in `directory` holds, or returns `None` if there is no log. `keep` returns for a topic's
    /// settings how many of its newest messages to read, `is_keyed` whether it keeps the newest message of each key only. Ids without a message are read if they are not older than
    /// `dedup_window`.
    ///
    /// # Errors
    /// The same as for opening the log.
    pub fn read(
        directory: &Path,
        keep: &dyn Fn(&[u8]) -> usize,
        is_keyed: fn(&[u8]) -> bool,
        dedup_window: Duration,
    ) -> Result<Option<Self>, OpenError> {
        let listing = OpenError::io(format!("reading {}", directory.display()));
        // The footprint is read before the segments. What it says was in them then, and they only grow.
        let footprint = fs::read(directory.join(FOOTPRINT)).unwrap_or_default();
        let extent = KnownExtent::of(&footprint, &boot());
        let segments = open_all(directory).map_err(listing)?;
        let Some((last, _)) = segments.last() else { return Ok(None) };
        let last = *last;
        let ids_since = now_ms().saturating_sub(i64::try_from(dedup_window.as_millis()).unwrap_or(i64::MAX));
        let mut contents = LogContents { ids_since, ..LogContents::default() };
        let mut torn_bytes = 0;
        for (index, (number, file)) in segments.iter().enumerate() {
            let reading = |error| OpenError::Io { doing: format!("reading {}", file_name(*number)), error };
            let mut scanner = file.try_clone().and_then(|file| SegmentScanner::new(Box::new(file))).map_err(reading)?;
            let extent = (*number == last).then_some(&extent);
            let end = read_segment(&mut scanner, *number, extent, |stored, frame, at| {
                let (bytes, segment) = (frame.len() as u32, index as u32);
                let location = |message: &MessageRecord<'_>| MessageLocation {
                    offset: message.offset,
                    prev: message.prev,
                    at,
                    bytes,
                    segment,
                };
                let _ = contents.apply(stored, |message, _| location(message));
            })?;
            torn_bytes = end.torn_bytes();
        }
        let mut topics = Vec::new();
        for topic in contents.topics.into_values() {
            topics.extend(topic_of(&segments, topic, keep, is_keyed)?);
        }
        let consumers = contents.consumers.into_values().filter_map(|(_, state)| state).collect();
        Ok(Some(Self { segments, topics, consumers, torn_bytes }))
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Returns an error if the message cannot be read or has changed.
    pub fn message<'a>(
        &self,
        location: &MessageLocation,
        buffer: &'a mut Vec<u8>,
    ) -> Result<MessageRecord<'a>, OpenError> {
        read_message(&self.segments, location, buffer)
    }
}

fn read_message<'a>(
    segments: &[(u64, File)],
    location: &MessageLocation,
    buffer: &'a mut Vec<u8>,
) -> Result<MessageRecord<'a>, OpenError> {
    let missing = || OpenError::Invalid("a location of another snapshot");
    let (number, file) = segments.get(location.segment as usize).ok_or_else(missing)?;
    let damaged = |why| OpenError::Damaged { file: file_name(*number), at: location.at, why };
    buffer.resize(location.bytes as usize, 0);
    let reading = |error| OpenError::Io { doing: format!("reading {}", file_name(*number)), error };
    file.read_exact_at(buffer, location.at).map_err(reading)?;
    if !is_valid(buffer) {
        return Err(damaged("a record's checksum differs"));
    }
    match StoredRecord::decode(&buffer[FRAME_HEADER_BYTES..]) {
        Ok(StoredRecord::Message { message, .. }) => Ok(message),
        _ => Err(damaged("a record changed")),
    }
}

fn topic_of(
    segments: &[(u64, File)],
    topic: TopicContents<MessageLocation>,
    keep: &dyn Fn(&[u8]) -> usize,
    is_keyed: fn(&[u8]) -> bool,
) -> Result<Option<LogSnapshotTopic>, OpenError> {
    let TopicContents { created, offsets, messages, ids, floor, compacted_until, .. } = topic.with_latest_settings();
    let Some(Created { epoch, name, created_at_ms, implicit, settings }) = created else { return Ok(None) };
    let last = messages.highest(MessageLocation::link).max(offsets.last).max(offsets.dense_from);
    let bounds = MessageBounds { floor, keep: keep(&settings), is_keyed: is_keyed(&settings), compacted_until };
    let mut buffer = Vec::new();
    let key_of =
        |location: &MessageLocation| Ok(read_message(segments, location, &mut buffer)?.key.map(Bytes::copy_from_slice));
    let selected = messages.select(bounds, MessageLocation::link, key_of)?;
    let (messages, compacted_until) = (selected.messages.kept, selected.compacted_until);
    let settings = settings.as_ref().into();
    let kept: Vec<u64> = messages.iter().map(|message| message.offset).collect();
    let ids = ids::without_message(&kept, ids);
    let topic =
        LogSnapshotTopic { epoch, name, created_at_ms, implicit, settings, compacted_until, messages, ids, last };
    Ok(Some(topic))
}

/// Opens all segments of one moment.
fn open_all(directory: &Path) -> io::Result<Vec<(u64, File)>> {
    let mut before = list(directory)?;
    for _ in 0..ATTEMPTS {
        // The segments are opened from the oldest to the newest: when the last one is opened, those before it are
        // sealed.
        let opened: io::Result<Vec<_>> =
            before.iter().map(|number| Ok((*number, File::open(directory.join(file_name(*number)))?))).collect();
        let opened = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        // A directory is not listed atomically. The listing may miss both a new segment and the older one whose
        // records were copied to it, but then a second listing differs.
        let after = list(directory)?;
        match opened {
            Some(opened) if after == before => return Ok(opened),
            _ => before = after,
        }
    }
    Err(io::Error::other("its segments are created and removed too fast"))
}

fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(number_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
