//! Backup and moving, as an operator does it: the real binary's `export` and `import`, and servers before and behind.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    doors::{Door, GraphqlSse, GraphqlWs, Options, RawWs, RestPages, Sse, Start, numbers},
    harness::{Client, Random, encode, eventually, within},
    nats,
    process::{Process, command},
};

mod broken;
mod ids;
mod moving;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A store: what `ENGINE` and its settings say.
#[derive(Clone)]
struct Store(Vec<(&'static str, String)>);

impl Store {
    fn disk(directory: &Path) -> Self {
        Self(vec![("ENGINE", "disk".to_owned()), ("DATA_DIR", directory.to_str().unwrap().to_owned())])
    }

    fn nats(servers: &nats::Nats, prefix: &str) -> Self {
        let url = servers.urls().join(",");
        Self(vec![("ENGINE", "nats".to_owned()), ("NATS_URL", url), ("NATS_PREFIX", prefix.to_owned())])
    }

    /// The same with one more setting.
    fn with(&self, name: &'static str, value: &str) -> Self {
        let mut store = self.clone();
        store.0.push((name, value.to_owned()));
        store
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    fn serve(&self) -> Process {
        let more = [("MAX_PUBLISH_RATE", "0"), ("FSYNC", "never"), ("MAX_MESSAGES_PER_TOPIC", "1000")];
        Process::start(&[&self.environment()[..], &more].concat())
    }

    /// Runs the program to its end.
    fn run(&self, arguments: &[&str], input: Option<&[u8]>) -> Output {
        let mut command = command(&self.environment());
        command.args(arguments);
        let Some(input) = input else { return command.output().unwrap() };
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
        // It may end without having read all of it.
        let writing = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        output
    }

    fn export(&self) -> String {
        let output = self.run(&["export"], None);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn import(&self, export: &str) {
        let output = self.run(&["import"], Some(export.as_bytes()));
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Imports what must be refused, and returns the one line that says why.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, Some(input.as_bytes()));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said.trim_end().strip_prefix("pub-sub: ").unwrap_or_else(|| panic!("{said}")).to_owned()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// An export as it is compared: without what is new with every incarnation.
#[derive(Debug, Default, PartialEq)]
struct Content {
    topics: BTreeMap<String, Topic>,
    consumers: Vec<Value>,
}

#[derive(Debug, PartialEq)]
struct Topic {
    settings: Value,
    messages: Vec<Message>,
    /// What is said of each id that is known without a message.
    known_ids: Vec<Value>,
    epoch: String,
    floor: u64,
}

#[derive(Debug, PartialEq)]
struct Message {
    offset: u64,
    /// All but the offset, and the data as it stands there.
    rest: Value,
    data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    topic: Option<Value>,
    #[serde(borrow)]
    message: Option<BTreeMap<&'a str, &'a RawValue>>,
    known_id: Option<Value>,
    consumer: Option<Value>,
    end: Option<Value>,
}

/// Reads an export by its own means.
fn read(export: &str) -> Content {
    let mut content = Content::default();
    let mut lines = export.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    // The examples of tests are of the versions before, which are read, too.
    assert!(header["format"] == "pub-sub" && [2, 3, 4].map(Value::from).contains(&header["version"]), "{header}");
    let (mut last, mut messages, mut known_ids, mut ended) = (String::new(), 0_u64, 0_u64, false);
    for text in lines {
        assert!(!ended, "{text} behind the end");
        let line: Line = serde_json::from_str(text).unwrap();
        if let Some(mut topic) = line.topic {
            last = topic["name"].as_str().unwrap().to_owned();
            let (epoch, floor) = (topic["epoch"].as_str().unwrap().to_owned(), topic["floor"].as_u64().unwrap());
            for new in ["epoch", "createdAt", "floor", "last"] {
                topic.as_object_mut().unwrap().remove(new).unwrap();
            }
            let topic = Topic { settings: topic, messages: Vec::new(), known_ids: Vec::new(), epoch, floor };
            assert!(content.topics.insert(last.clone(), topic).is_none(), "{last} stands twice");
        } else if let Some(mut message) = line.message {
            let offset = message.remove("offset").unwrap().get().parse().unwrap();
            let data = message.remove("data").unwrap().get().to_owned();
            let rest = serde_json::to_value(&message).unwrap();
            content.topics.get_mut(&last).unwrap().messages.push(Message { offset, rest, data });
            messages += 1;
        } else if let Some(known) = line.known_id {
            content.topics.get_mut(&last).unwrap().known_ids.push(known);
            known_ids += 1;
        } else if let Some(consumer) = line.consumer {
            content.consumers.push(consumer);
        } else {
            let counts = json!({
                "topics": content.topics.len(), "messages": messages, "knownIds": known_ids,
                "consumers": content.consumers.len()
            });
            assert_eq!(line.end.unwrap(), counts);
            ended = true;
        }
    }
    assert!(ended, "no end");
    // A position is the count of messages up to it, unless something was missed.
    for consumer in &mut content.consumers {
        let mut positions: Vec<String> = Vec::new();
        for position in consumer["places"].as_array().unwrap() {
            let name = position["topic"].as_str().unwrap();
            let (offset, topic) = (position["offset"].as_u64().unwrap(), &content.topics[name]);
            let whole = position["epoch"] == topic.epoch && offset >= topic.floor;
            let passed = topic.messages.iter().filter(|message| message.offset <= offset).count();
            positions.push(if whole { format!("{name} {passed}") } else { format!("{name} has missed some") });
        }
        positions.sort();
        consumer["places"] = positions.into();
    }
    content
}

/// As the contents are compared: the offsets of a new incarnation start again.
fn same(one: &str, other: &str) {
    let [one, other] = [one, other].map(|export| {
        let mut content = read(export);
        for topic in content.topics.values_mut() {
            (topic.epoch, topic.floor) = (String::new(), 0);
            topic.messages.iter_mut().for_each(|message| message.offset = 0);
        }
        content
    });
    assert_eq!(one, other);
}

/// JSON that is easily lost or mended on the way.
fn random_data(random: &mut Random) -> String {
    match random.below(12) {
        0 => r#"{"a":1,"A":2,"":null}"#.to_owned(),
        1 => "123456789012345678901234567890.50e+400".to_owned(),
        2 => r#""\ud83d\ude00 \u0000\u001f\/ \"\\ 漢💥""#.to_owned(),
        3 => format!("{}1{}", "[".repeat(60), "]".repeat(60)),
        4 => "null".to_owned(),
        5 => format!("\"{}\"", "x".repeat(random.below(20_000) as usize)),
        6 => {
            // As bytes are sent that are no text.
            let escaped: String = (0..random.below(200)).map(|_| format!("\\u{:04x}", random.below(0xd800))).collect();
            format!("\"{escaped}\"")
        }
        7 => r#"{"crc":"00000000","message":{"offset":1}}"#.to_owned(),
        _ => format!("{{\"n\":{},\"ü\":[true,-0,1E5,{{}}]}}", random.below(1_000_000)),
    }
}

async fn publish(client: &Client, topic: &str, data: &str, id: Option<String>, key: Option<String>) -> Value {
    let ttl = key.as_ref().map(|_| "90m".to_owned());
    let more = [("id", id), ("key", key), ("ttl", ttl)]
        .map(|(name, text)| text.map_or(String::new(), |text| format!(r#","{name}":{}"#, json!(text))));
    let body = format!(r#"{{"topic":{},"data":{data}{}}}"#, json!(topic), more.concat());
    client.post_text("/publish", body).await.expect(200)
}

/// Fills a server with topics of all kinds, messages and consumers.
async fn fill(server: &Process, random: &mut Random) {
    let client = &server.client;
    let names = ["news", "a.b", "a.c", "ünï \"漢\"", "=20/%", "small", "empty", "x"];
    for (index, name) in names.iter().enumerate().filter(|(index, _)| index % 2 == 1) {
        let settings =
            json!({"name": name, "max_messages": 20 + index, "max_publish_rate": index * 1_000, "max_age": "12h"});
        client.post("/topics", &settings).await.expect(201);
    }
    client.post("/topics", &json!({"name": "empty", "max_messages": 7})).await.expect(201);
    let mut explicit = RawWs::with(client, "news", Start::Live, &Options::consumer("explicit", "EXPLICIT")).await;
    let mut auto = RawWs::with(client, "a.b", Start::Live, &Options::consumer("auto ü", "AUTO")).await;
    let waiting = RawWs::with(client, "only a consumer", Start::Live, &Options::consumer("waits", "AUTO")).await;
    let all = RawWs::with(client, "a.*", Start::Live, &Options::consumer("pattern", "EXPLICIT")).await;
    let short = json!({"name": "short", "max_messages": 3});
    client.post("/topics", &short).await.expect(201);
    let behind = RawWs::with(client, "short", Start::Live, &Options::consumer("behind", "EXPLICIT")).await;
    for number in 1..=3 {
        publish(client, "news", &number.to_string(), None, None).await;
        publish(client, "a.b", &number.to_string(), None, None).await;
    }
    let seen = [explicit.event().await.message(), explicit.event().await.message(), explicit.event().await.message()];
    let path = format!("/topics/news/consumers/{}/ack", encode("explicit"));
    client.post(&path, &json!({"cursor": seen[1].cursor})).await.expect(200);
    auto.event().await.message();
    for number in 0..300 {
        let name = names[random.below(6) as usize];
        let id = (random.below(2) == 0).then(|| format!("id {} 💥", random.below(200)));
        let key = (random.below(3) == 0).then(|| format!("key \"{}\"\\=", random.below(5)));
        publish(client, name, &random_data(random), id, key).await;
        if number % 30 == 0 {
            publish(client, "short", &number.to_string(), None, None).await;
        }
    }
    for _ in 0..4 {
        publish(client, "news", "1", None, None).await;
        publish(client, "a.b", "2", None, None).await;
    }
    for door in [explicit, auto, waiting, all, behind] {
        door.close().await;
    }
}

async fn stop(mut server: Process) {
    server.signal("TERM");
    assert!(server.ended().await.success());
}

/// What two stores hold, disk to disk and over NATS and back, is the same, whatever is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_arrives() {
    let servers = nats::Nats::single().await;
    for round in 0..3 {
        let mut random = Random::new(round);
        let (first, second, third) = (directory(), directory(), directory());
        let [first, second, third] = [&first, &second, &third].map(|directory| Store::disk(directory.path()));
        let between = Store::nats(&servers, &format!("round{round}"));
        let server = first.serve();
        fill(&server, &mut random).await;
        stop(server).await;
        let export = first.export();
        let content = read(&export);
        assert_eq!((content.topics.len(), content.consumers.len()), (10, 5), "{:?}", content.topics.keys());
        assert!(!content.topics["a.b"].known_ids.is_empty(), "no id outlived its message");
        assert!(export.contains(r#""ttl":"90m""#) && export.contains(r#""maxAge":"12h""#));
        let missed = json!(["short has missed some"]);
        assert!(content.consumers.iter().any(|consumer| consumer["places"] == missed), "{:?}", content.consumers);
        second.import(&export);
        same(&export, &second.export());
        between.import(&second.export());
        let over = between.export();
        same(&export, &over);
        third.import(&over);
        same(&export, &third.export());
        // And a server on it says the same; so it does again.
        let server = third.serve();
        for (name, topic) in &content.topics {
            let told = server.client.get(&format!("/topics/{}", encode(name))).await.expect(200);
            assert_eq!(told["messages"], topic.messages.len(), "{name}");
        }
        stop(server).await;
        same(&export, &third.export());
    }
}

/// Beside a server that is published to, and that takes segments away meanwhile: of each topic a piece without a gap, with
/// all that was acknowledged before the export began; and the directory is left as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_running_server() {
    const TOPICS: usize = 3;
    let directory = directory();
    let store = Store::disk(directory.path());
    let server = store.serve();
    for topic in 0..TOPICS {
        let settings = json!({"name": format!("t{topic}"), "max_messages": 5 + topic * 40});
        server.client.post("/topics", &settings).await.expect(201);
    }
    let acked: Arc<[AtomicU64; TOPICS]> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let publishing: Vec<_> = (0..TOPICS)
        .map(|topic| {
            let (client, acked, done) = (server.client.clone(), acked.clone(), done.clone());
            tokio::spawn(async move {
                let mut number = 1;
                while !done.load(Ordering::Relaxed) {
                    let data = format!("[{number},\"{}\"]", "x".repeat(300_000));
                    publish(&client, &format!("t{topic}"), &data, None, None).await;
                    acked[topic].store(number, Ordering::Release);
                    number += 1;
                }
            })
        })
        .collect();
    let (mut exports, mut oldest) = (0, Vec::new());
    // Until segments have gone, and some more.
    while exports < 8 || oldest.len() < 3 {
        let before: Vec<_> = acked.iter().map(|acked| acked.load(Ordering::Acquire)).collect();
        let other = store.clone();
        let export = tokio::task::spawn_blocking(move || other.export()).await.unwrap();
        let after: Vec<_> = acked.iter().map(|acked| acked.load(Ordering::Acquire)).collect();
        let content = read(&export);
        for topic in 0..TOPICS {
            let found = &content.topics[&format!("t{topic}")];
            let numbers: Vec<u64> = found
                .messages
                .iter()
                .map(|message| message.data[1..].split(',').next().unwrap().parse().unwrap())
                .collect();
            let newest = numbers.last().copied().unwrap_or(0);
            assert!((before[topic]..=after[topic] + 1).contains(&newest), "{newest}: {before:?} {after:?}");
            let kept = newest.min(5 + topic as u64 * 40);
            assert!(numbers.iter().copied().eq(newest - kept + 1..=newest), "{topic}: {numbers:?}");
            assert!(found.messages.iter().all(|message| message.rest.get("afterLoss").is_none()));
        }
        let segment = broken::segments(directory.path()).remove(0);
        if oldest.last() != Some(&segment) {
            oldest.push(segment);
        }
        exports += 1;
        assert!(exports < 500, "no segment went");
    }
    done.store(true, Ordering::Relaxed);
    for publishing in publishing {
        publishing.await.unwrap();
    }
    // Taking the lock would have shown.
    server.client.assert_alive().await;
}

/// Killed, with the beginning of a record at its end: what was acknowledged is in the export, and not a byte of the
/// directory is touched.
#[tokio::test]
async fn after_a_kill() {
    let directory = directory();
    let store = Store::disk(directory.path());
    let mut server = store.serve();
    server.client.publish_numbers("news", 1..=100).await;
    server.signal("KILL");
    server.ended().await;
    let segment = broken::segments(directory.path()).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    for tail in [&[][..], &whole[24..40], &[0; 3], &[7; 100]] {
        fs::write(&segment, [&whole, tail].concat()).unwrap();
        let look = || {
            let mut files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap()).collect();
            files.sort_by_key(|entry| entry.file_name());
            let file = |entry: &fs::DirEntry| {
                (entry.file_name(), fs::read(entry.path()).unwrap(), entry.metadata().unwrap().modified().unwrap())
            };
            files.iter().map(file).collect::<Vec<_>>()
        };
        let before = look();
        let output = store.run(&["export"], None);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output).contains(&format!("the last {} bytes", tail.len())), !tail.is_empty());
        assert!(before == look(), "the directory was changed");
        let content = read(std::str::from_utf8(&output.stdout).unwrap());
        let data: Vec<_> = content.topics["news"].messages.iter().map(|message| message.data.clone()).collect();
        assert!(data.iter().cloned().eq((1..=100).map(|number| number.to_string())), "{data:?}");
    }
}
