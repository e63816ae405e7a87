//! A process that is killed again and again while segments are small, messages grow old, and keys are removed.
//!
//! The process is this test program, which runs one test as a child. It says on its output what it is about to publish, and
//! what was acknowledged; and at its start, what it has found.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::{Disk, Fsync, Settings};
use crate::{
    channel::{
        Age, Channel, ConsumerLimits, Consumers, Key, NewMessage, Payload, Registry, RegistrySettings, Retention,
        TopicBounds, TopicConfig, TopicName,
    },
    engine::Engine,
};

const DIRECTORY: &str = "PUB_SUB_TEST_DIRECTORY";
const FIRST_NUMBER: &str = "PUB_SUB_TEST_FIRST_NUMBER";
const SYNCS: &str = "PUB_SUB_TEST_SYNCS";
const SEGMENT_BYTES: u64 = 8 << 10;
const WRITERS: u64 = 4;
const KEYS_EACH: u64 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Value,
    Removal,
    /// A value that is kept for a moment.
    Brief,
}

impl Kind {
    fn read(text: &str) -> Self {
        match text {
            "value" => Self::Value,
            "removal" => Self::Removal,
            "brief" => Self::Brief,
            other => panic!("{other}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Removal => "removal",
            Self::Brief => "brief",
        }
    }
}

/// Writes a line for the parent. Whole lines only, and at once: the process may be killed at any moment.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("@{line}\n").as_bytes()).expect("the parent reads");
    out.flush().expect("the parent reads");
}

fn new_message(key: &str, kind: Kind, number: u64) -> NewMessage {
    let data = if kind == Kind::Removal { "null".to_owned() } else { format!("[{number},\"{}\"]", "x".repeat(60)) };
    NewMessage {
        key: Some(Key::parse(key).expect("a key")),
        is_removal: kind == Kind::Removal,
        ttl: (kind == Kind::Brief).then(|| Age::from_millis(5)),
        ..NewMessage::of(Payload::parse(&data, 1_000).expect("JSON"))
    }
}

async fn open(directory: &Path, fsync: Fsync) -> (Arc<Disk>, Arc<Registry>) {
    let defaults = TopicBounds { tombstone_ttl: Age::from_millis(20), ..TopicBounds::new(100, 0) };
    let settings = Settings {
        directory: directory.to_owned(),
        fsync,
        max_payload_bytes: 1_000,
        dedup_window: Duration::ZERO,
        dedup_bytes: 0,
    };
    let disk =
        Arc::new(Disk { segment_bytes: SEGMENT_BYTES, keep_aged: Duration::from_millis(10), ..Disk::new(settings) });
    let registry = Registry::new(RegistrySettings {
        max_topics: 10,
        max_bytes_per_topic: 1 << 20,
        max_history_bytes: 1 << 24,
        max_patterns: 1,
        defaults,
        dedup_window: Duration::ZERO,
        dedup_bytes: 0,
    });
    let limits = ConsumerLimits { per_source: 1, total: 1, topics: 1, ttl: Duration::from_secs(1) };
    disk.open(registry.clone(), Arc::new(Consumers::new(limits))).await.expect("opens");
    (disk, registry)
}

async fn topic(disk: &Disk, registry: &Registry, name: &str, config: TopicConfig) -> Arc<Channel> {
    let name = TopicName::parse(name).expect("a name");
    match registry.find(&name) {
        Some(channel) => channel,
        None => disk.create(&name, config, false).await.expect("created"),
    }
}

/// Publishes values, removals and brief values under keys of its own, one after the other.
async fn write(disk: Arc<Disk>, latest: Arc<Channel>, history: Arc<Channel>, writer: u64, first: u64) {
    let mut noise = writer * 7 + first + 1;
    for number in first.. {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let roll = noise >> 33;
        let key = format!("{writer}-{}", (roll >> 8) % KEYS_EACH);
        let kind = match roll % 10 {
            0..=1 => Kind::Removal,
            2 => Kind::Brief,
            _ => Kind::Value,
        };
        say(&format!("try {key} {} {number}", kind.name()));
        let publication = disk.append(&latest, new_message(&key, kind, number)).await.expect("stored");
        say(&format!("ok {key} {}", publication.cursor.offset));
        disk.append(&history, new_message(&key, Kind::Value, number)).await.expect("stored");
    }
}

/// Not a test by itself. The next tests run it in another process.
#[tokio::test]
async fn child_publishes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let first = std::env::var(FIRST_NUMBER).expect("set").parse().expect("a number");
    let fsync = if std::env::var_os(SYNCS).is_some() { Fsync::Always } else { Fsync::Never };
    let (disk, registry) = open(Path::new(&directory), fsync).await;
    let keyed = TopicConfig { retention: Some(Retention::LatestPerKey), ..TopicConfig::default() };
    let aged = TopicConfig { max_age: Some(Age::from_millis(50)), ..TopicConfig::default() };
    let latest = topic(&disk, &registry, "latest", keyed).await;
    let history = topic(&disk, &registry, "history", aged).await;
    // The line of the test's name has no end yet.
    println!();
    for (message, _) in latest.kept().messages {
        let kind = match (message.is_removal, message.ttl) {
            (true, _) => Kind::Removal,
            (false, None) => Kind::Value,
            (false, Some(_)) => Kind::Brief,
        };
        let data = message.data.as_str().trim_start_matches('[').split(',').next().unwrap_or_default().to_owned();
        let number = data.parse().unwrap_or(0_u64);
        let key = message.key.as_ref().expect("a key").as_str();
        say(&format!("have {key} {} {number} {}", kind.name(), message.cursor.offset));
    }
    say("begins");
    for writer in 0..WRITERS {
        tokio::spawn(write(disk.clone(), latest.clone(), history.clone(), writer, first));
    }
    let mut sweep = tokio::time::interval(Duration::from_millis(2));
    loop {
        sweep.tick().await;
        for channel in registry.aging() {
            let reclaimed = channel.reclaim(50);
            disk.reclaimed(&channel, &reclaimed);
        }
    }
}

fn start(directory: &Path, first: u64, syncs: bool) -> (Child, BufReader<impl std::io::Read>) {
    let name = concat!(module_path!(), "::child_publishes_until_it_is_killed").split_once("::").expect("a path").1;
    let mut command = Command::new(std::env::current_exe().expect("a program"));
    command.args(["--exact", "--nocapture", "--test-threads=1", name]);
    command.env(DIRECTORY, directory).env(FIRST_NUMBER, first.to_string()).stdout(Stdio::piped());
    if syncs {
        command.env(SYNCS, "1");
    }
    let mut child = command.spawn().expect("starts");
    let said = BufReader::new(child.stdout.take().expect("piped"));
    (child, said)
}

/// What the parent knows of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The newest message that was acknowledged or found: offset, kind, number.
    stored: Option<(u64, Kind, u64)>,
    /// The one on its way.
    pending: Option<(Kind, u64)>,
}

impl Known {
    /// Checks what was found of the key at a start; from here on that is what is known.
    fn check(&mut self, key: &str, found: Option<(u64, Kind, u64)>) {
        match (found, self.stored) {
            (None, None) => {}
            (None, Some((_, kind, _))) => {
                let is_over = |kind| kind != Kind::Value;
                let was_ended = is_over(kind) || self.pending.is_some_and(|(kind, _)| is_over(kind));
                assert!(was_ended, "the newest value of {key} is lost: {self:?}");
            }
            (Some(found), Some(stored)) if found.0 == stored.0 => {
                assert_eq!((found.1, found.1 == Kind::Removal || found.2 == stored.2), (stored.1, true), "{key}");
            }
            (Some(found), stored) => {
                let is_newer = stored.is_none_or(|stored| found.0 > stored.0);
                assert!(is_newer, "{key} has an older message again: {found:?}, {self:?}");
                let (kind, number) = self.pending.unwrap_or_else(|| panic!("{key}: {found:?}, {self:?}"));
                assert_eq!((found.1, found.1 == Kind::Removal || found.2 == number), (kind, true), "{key}");
            }
        }
        // A key without a message stays so.
        self.stored = found.or(self.stored.map(|(offset, _, number)| (offset, Kind::Removal, number)));
        self.pending = None;
    }
}

fn killed_again_and_again(syncs: bool, rounds: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let (mut acknowledged, mut noise) = (0, 99_u64);
    for round in 0..rounds {
        let (mut child, mut said) = start(directory.path(), round * 1_000_000, syncs);
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut left = 300 + (noise >> 40) % 1_000;
        let mut found = BTreeMap::new();
        let mut line = String::new();
        // A line that the kill has cut has no end.
        while {
            line.clear();
            said.read_line(&mut line).expect("text") > 0 && line.ends_with('\n')
        } {
            let Some(words) = line.trim_end().strip_prefix('@') else { continue };
            let words: Vec<&str> = words.split(' ').collect();
            match words[..] {
                ["have", key, kind, number, offset] => {
                    let stored = (offset.parse().unwrap(), Kind::read(kind), number.parse().unwrap());
                    assert!(found.insert(key.to_owned(), stored).is_none(), "two messages of {key}");
                }
                ["begins"] => {
                    for key in found.keys() {
                        known.entry(key.clone()).or_default();
                    }
                    for (key, known) in &mut known {
                        known.check(key, found.remove(key));
                    }
                }
                ["try", key, kind, number] => {
                    let known = known.entry(key.to_owned()).or_default();
                    known.pending = Some((Kind::read(kind), number.parse().unwrap()));
                }
                ["ok", key, offset] => {
                    let known = known.entry(key.to_owned()).or_default();
                    let (kind, number) = known.pending.take().expect("it was tried");
                    known.stored = Some((offset.parse().unwrap(), kind, number));
                    acknowledged += 1;
                    left -= 1;
                    if left == 0 {
                        child.kill().expect("killed");
                    }
                }
                _ => panic!("{line}"),
            }
            if left == 0 {
                left = u64::MAX;
            }
        }
        assert!(left > 10_000, "the child ended by itself in round {round}: {:?}", child.wait());
        child.wait().expect("ended");
        let segments = std::fs::read_dir(directory.path()).expect("read").map(|file| file.expect("read"));
        let bytes: u64 = segments.map(|file| file.metadata().expect("there").len()).sum();
        assert!(bytes < 20 * SEGMENT_BYTES, "{bytes} bytes on the disk in round {round}");
    }
    println!("{acknowledged} acknowledged");
    assert_eq!(known.len() as u64, WRITERS * KEYS_EACH);
}

#[test]
fn no_newest_value_is_lost_by_a_kill_and_no_removed_key_comes_back() {
    killed_again_and_again(false, 12);
}

#[test]
fn nor_with_a_sync_for_each_batch() {
    killed_again_and_again(true, 4);
}
