//! What is not an export, or not whole, and stores that cannot take one: refused in one line, and nothing is written.

use std::path::PathBuf;

use pub_sub::{config::Config, transfer::Import};

use super::*;

/// The segments of a log, oldest first.
pub fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect();
    segments.sort();
    segments
}

/// An export with a line of each kind.
const SMALL: &str = r#"{"format":"pub-sub","version":3,"exportedAt":"2026-11-26T15:00:00.000Z","engine":"disk"}
{"topic":{"name":"news","epoch":"96f7d2ac6ce15aca","createdAt":"2026-11-26T14:00:00.000Z","implicit":false,"maxMessages":1000,"maxPublishRate":100,"floor":4,"last":9}}
{"message":{"offset":5,"id":"goal-1","given":true,"key":"spört","publishedAt":"2026-11-26T14:00:01.000Z","data":{"home":1,"away":[0,"x"]}}}
{"message":{"offset":9,"id":"01a209a7","given":false,"publishedAt":"2026-11-26T14:00:02.000Z","data":12345678901234567890}}
{"knownId":{"id":"göal-0","publishedAt":"2026-11-26T13:59:00.000Z"}}
{"topic":{"name":"empty","epoch":"86f7d2ac6ce15aca","createdAt":"2026-11-26T14:00:00.000Z","implicit":false,"maxMessages":3,"maxPublishRate":0,"floor":0,"last":0}}
{"consumer":{"source":"news","name":"tab-42","ack":"AUTO","usedAt":"2026-11-26T15:00:00.000Z","places":[{"topic":"news","epoch":"96f7d2ac6ce15aca","offset":5}]}}
{"end":{"topics":2,"messages":2,"knownIds":1,"consumers":1}}
"#;

/// It as this program writes it.
fn small() -> String {
    let directory = directory();
    // The times in it are of a day long ago.
    let store = Store::disk(directory.path()).with("DEDUP_WINDOW", "876000h");
    store.import(SMALL);
    store.export()
}

/// What reading says, without writing anything.
fn check(bytes: &[u8]) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(file.path(), bytes).unwrap();
    let mut config = Config::default();
    config.engine.engine = "disk".to_owned();
    Import::read(&config, Some(file.path())).map(drop)
}

/// Where each line begins and ends, with its number.
fn lines(text: &str) -> Vec<(usize, usize, usize)> {
    let mut at = 0;
    let line = |(index, line): (usize, &str)| {
        let begin = at;
        at += line.len();
        (index + 1, begin, at)
    };
    text.split_inclusive('\n').enumerate().map(line).collect()
}

/// Every bit of every line turned, every line cut behind every byte, every line left out: it is found, and said where.
#[test]
fn whatever_is_damaged_is_found() {
    let export = small();
    check(export.as_bytes()).unwrap();
    check(export.trim_end().as_bytes()).unwrap();
    let all = lines(&export);
    assert_eq!(all.len(), 8);
    for (number, begin, end) in all {
        let said = |bytes: &[u8]| {
            let why = check(bytes).expect_err("damage that is not found");
            let found: usize = why.strip_prefix("line ").and_then(|why| why.split(':').next()?.parse().ok()).unwrap();
            assert!(!why.contains('\n'), "{why}");
            found
        };
        for at in begin..end {
            for bit in 0..8 {
                let mut bytes = export.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                // The last line's end may be anything that is white space.
                if at + 1 < export.len() || !bytes[at].is_ascii_whitespace() {
                    assert_eq!(said(&bytes), number, "bit {bit} of byte {at}");
                }
            }
            // Cut within the line, its end left; and all behind it, too.
            if at > begin && at + 1 < end {
                assert_eq!(said(&[&export.as_bytes()[..at], &export.as_bytes()[end - 1..]].concat()), number);
                assert_eq!(said(&export.as_bytes()[..at]), number, "cut at {at}");
            }
        }
        // Left out, it is missed where it shows.
        let without = [&export.as_bytes()[..begin], &export.as_bytes()[end..]].concat();
        assert!(check(&without).is_err(), "line {number} is not missed");
        assert!(check(&export.as_bytes()[..begin]).is_err(), "cut before line {number}");
        // What stands twice is found, but for messages of their own: those are counted.
        let twice = [&export.as_bytes()[..end], &export.as_bytes()[begin..]].concat();
        assert!(check(&twice).is_err(), "line {number} may stand twice");
    }
}

/// What somebody has written into an export by hand, and is not right.
#[test]
fn what_makes_no_sense_is_refused() {
    for (number, shown, instead, why) in [
        (1, "pub-sub", "sub-pub", "is of format \"sub-pub\", not \"pub-sub\""),
        (1, ":3,", ":5,", "is of version 5; this build reads versions 1 to 4"),
        (1, ":3,", ":0,", "is of version 0; this build reads versions 1 to 4"),
        (1, "{\"format\"", "[\"format\"", "is not the first line of an export"),
        (2, "1000", "0", "maxMessages must be from 1 to 1000000 (MAX_MESSAGES_LIMIT)"),
        (2, "1000", "1000001", "maxMessages must be from 1 to 1000000 (MAX_MESSAGES_LIMIT)"),
        (2, "news", "n*", "topic: must not contain '*' or '>' (they make a pattern)"),
        (2, "96f7", "g6f7", "invalid value: string \"g6f7d2ac6ce15aca\", expected an epoch"),
        (2, ":9}", ":3}", "last must not be below floor"),
        (2, "\"name\"", "\"nome\"", "missing field `name`"),
        (2, "\"floor\"", "\"flaw\":1,\"floor\"", "unknown field `flaw`"),
        (2, ":1000", ":\"many\"", "invalid type: string \"many\""),
        (2, "\"floor\"", "\"maxAge\":\"soon\",\"floor\"", "must be a duration like"),
        (3, "\"data\"", "\"ttl\":5,\"data\"", "invalid type: integer"),
        (3, "\"data\"", "\"removed\":1,\"data\"", "invalid type: integer"),
        (2, "\"floor\"", "\"retention\":\"latest\",\"floor\"", "unknown variant `latest`"),
        (2, "\"floor\"", "\"maxKeys\":0,\"floor\"", "maxKeys must be from 1 to 1000000"),
        (3, ":5,", ":4,", "offset must be more than 4 and at most 9, not 4"),
        (3, "goal-1", "", "id: must be 1 to 255 bytes of UTF-8 without control characters"),
        (3, "2026-11-26T14", "yesterday", "expected a time like"),
        (3, "[0,", "[0", "expected `,` or `]`"),
        (4, ":9,", ":10,", "offset must be more than 5 and at most 9, not 10"),
        (5, "göal-0", "", "id: must be 1 to 255 bytes of UTF-8 without control characters"),
        (5, "göal-0", "\\u0000", "id: must be 1 to 255 bytes of UTF-8 without control characters"),
        (5, "2026-11-26T13", "yesterday", "expected a time like"),
        (5, "\"id\":", "\"offset\":1,\"id\":", "unknown field `offset`"),
        (5, ",\"publishedAt\":\"2026-11-26T13:59:00.000Z\"", "", "missing field `publishedAt`"),
        (5, "knownId", "knownID", "unknown variant `knownID`"),
        (6, "empty", "news", "topic \"news\" comes a second time"),
        (7, "AUTO", "MAYBE", "expected AUTO or EXPLICIT"),
        (
            8,
            ":2,",
            ":3,",
            "says that there are 3 topics, 2 messages, 1 known ids, 1 consumers; \
             there are 2 topics, 2 messages, 1 known ids, 1 consumers",
        ),
        (8, "\"knownIds\":1,", "", "2 messages, 0 known ids, 1 consumers; there are 2 topics, 2 messages, 1 known ids"),
    ] {
        let mut lines: Vec<_> = SMALL.lines().map(str::to_owned).collect();
        let line = &mut lines[number - 1];
        assert!(line.contains(shown), "{line}");
        *line = line.replacen(shown, instead, 1);
        let said = check(lines.join("\n").as_bytes()).unwrap_err();
        assert!(said.starts_with(&format!("line {number}: ")) && said.contains(why), "{said}");
    }
    let order = |lines: &[usize]| {
        let all: Vec<_> = SMALL.lines().collect();
        check(lines.iter().map(|line| all[line - 1]).collect::<Vec<_>>().join("\n").as_bytes()).unwrap_err()
    };
    assert_eq!(order(&[]), "line 1: is missing: the file is cut off, or not complete yet");
    assert_eq!(order(&[1, 3]), "line 2: comes before any topic");
    assert_eq!(order(&[1, 5]), "line 2: comes before any topic");
    assert_eq!(order(&[1, 2, 3, 5, 4]), "line 5: a topic's messages come before its known ids");
    assert_eq!(order(&[1, 2, 7, 3]), "line 4: topics, messages and known ids come before consumers");
    assert_eq!(order(&[1, 2, 7, 5]), "line 4: topics, messages and known ids come before consumers");
    assert_eq!(order(&[1, 2, 7, 7]), "line 4: consumer \"tab-42\" of \"news\" comes a second time");
    assert_eq!(order(&[1, 2, 3, 4, 5, 6, 7, 8, 8]), "line 9: comes after the end");
    let long = format!("{}\n\"{}\n", SMALL.lines().next().unwrap(), "x".repeat(97 << 20));
    assert_eq!(check(long.as_bytes()).unwrap_err(), "line 2: is longer than 100663296 bytes");
}

/// Whatever is refused, nothing is made: not even the directory.
#[test]
fn refusals_write_nothing() {
    let directory = directory();
    let path = directory.path().join("data");
    let store = Store::disk(&path);
    let export = small();
    let mut random = Random::new(1);
    for _ in 0..12 {
        let cut = random.below(export.len() as u64 - 2) as usize;
        let said =
            store.refuses(&["import"], &export[..(0..=cut).rev().find(|at| export.is_char_boundary(*at)).unwrap()]);
        assert!(said.starts_with("line "), "{said}");
        assert!(!path.exists(), "{said}");
    }
    let file = directory.path().join("export");
    fs::write(&file, export.replace("goal-1", "goal-2")).unwrap();
    for (arguments, input) in
        [(&["import", file.to_str().unwrap()][..], ""), (&["import"], &export[9..]), (&["import", "-"], "")]
    {
        assert!(store.refuses(arguments, input).starts_with("line "));
        assert!(!path.exists());
    }
    assert!(store.refuses(&["import", "/nowhere/at/all"], "").starts_with("/nowhere/at/all: "));
    let shown = path.display();
    assert_eq!(store.refuses(&["export"], ""), format!("DATA_DIR: {shown} does not exist, or is not a directory"));
    assert!(!path.exists());
    let output = directory.path().join("backup");
    fs::write(&output, "the one from yesterday").unwrap();
    store.refuses(&["export", "--output", output.to_str().unwrap()], "");
    assert_eq!(fs::read(&output).unwrap(), b"the one from yesterday");
    fs::create_dir(&path).unwrap();
    assert_eq!(store.refuses(&["export"], ""), format!("DATA_DIR: there is no log in {shown}"));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);

    let memory = Store(vec![("ENGINE", "memory".to_owned())]);
    assert_eq!(
        memory.refuses(&["export"], ""),
        "ENGINE: memory keeps nothing beyond its process; there is nothing to export"
    );
    assert_eq!(
        memory.refuses(&["import"], &export),
        "ENGINE: memory keeps nothing beyond its process; nothing would be left"
    );
}

/// A topic or a consumer of the same name, a server that has the directory: nothing is imported, not even what would have
/// had room.
#[tokio::test]
async fn what_is_there_stays() {
    let directory = directory();
    let store = Store::disk(directory.path());
    let server = store.serve();
    server.client.publish("empty", 1.into()).await;
    let path = directory.path().display();
    assert_eq!(store.refuses(&["import"], SMALL), format!("DATA_DIR: {path} is in use by another process"));
    stop(server).await;
    let before = store.export();
    assert_eq!(store.refuses(&["import"], SMALL), "topic \"empty\" exists already; nothing was imported");
    same(&before, &store.export());

    let other = self::directory();
    let store = Store::disk(other.path());
    let server = store.serve();
    let door = RawWs::with(&server.client, "a.*", Start::Live, &Options::consumer("tab", "AUTO")).await;
    door.close().await;
    stop(server).await;
    let before = store.export();
    let export = SMALL.replace("\"source\":\"news\",\"name\":\"tab-42\"", "\"source\":\"a.*\",\"name\":\"tab\"");
    assert_eq!(store.refuses(&["import"], &export), "consumer \"tab\" of \"a.*\" exists already; nothing was imported");
    same(&before, &store.export());
}

/// A sealed segment that is damaged has lost what was stored: no export hides it, and no half of one is left.
#[tokio::test]
async fn damage_in_a_sealed_segment() {
    let directory = directory();
    let store = Store::disk(directory.path());
    let server = store.serve();
    let big = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..40 {
        publish(&server.client, "news", &big, None, None).await;
    }
    stop(server).await;
    let segments = segments(directory.path());
    assert!(segments.len() > 1);
    let mut bytes = fs::read(&segments[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segments[0], bytes).unwrap();
    let output = directory.path().join("backup");
    let said = store.refuses(&["export", "--output", output.to_str().unwrap()], "");
    assert!(said.starts_with("DATA_DIR: 00000000000000000001.seg is damaged at byte "), "{said}");
    assert!(!output.exists() && !directory.path().join("backup.partial").exists());
}

/// A signal in the midst of writing: all of it is taken back.
#[tokio::test]
async fn a_signal_takes_it_all_back() {
    const MESSAGES: u64 = 50_000;
    let directory = directory();
    let path = directory.path().join("data");
    let store = Store::disk(&path);
    let mut export = String::from(SMALL.split_inclusive('\n').next().unwrap());
    export +=
        "{\"topic\":{\"name\":\"long\",\"epoch\":\"96f7d2ac6ce15aca\",\"createdAt\":\"2026-11-26T14:00:00.000Z\",";
    export += &format!(
        "\"implicit\":false,\"maxMessages\":{MESSAGES},\"maxPublishRate\":0,\"floor\":0,\"last\":{MESSAGES}}}}}\n"
    );
    for offset in 1..=MESSAGES {
        export += &format!("{{\"message\":{{\"offset\":{offset},\"id\":\"{offset}\",\"given\":true,");
        export += "\"publishedAt\":\"2026-11-26T14:00:01.000Z\",\"data\":null}}\n";
    }
    export += &format!("{{\"end\":{{\"topics\":1,\"messages\":{MESSAGES},\"consumers\":0}}}}\n");
    let file = directory.path().join("export");
    fs::write(&file, &export).unwrap();
    let child = command(&store.environment()).arg("import").arg(&file).spawn().unwrap();
    eventually("the first messages on the disk", || async {
        let segment = path.join("00000000000000000001.seg");
        fs::metadata(segment).is_ok_and(|segment| segment.len() > 20_000).then_some(())
    })
    .await;
    let sent = std::process::Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(said(&output), "pub-sub: stopped by a signal; nothing was imported\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(read(&store.export()), Content::default());
    store.import(&export);
    assert_eq!(read(&store.export()).topics["long"].messages.len() as u64, MESSAGES);
}

/// NATS that takes no message of that size in the midst of an import: all of it is taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_is_taken_back() {
    let config = "max_payload: 64KB".to_owned();
    let servers = nats::Nats::start(nats::Options { config, ..nats::Options::default() }).await;
    let store = Store::nats(&servers, "small").with("DEDUP_WINDOW", "876000h");
    assert_eq!(store.refuses(&["export"], ""), "NATS_PREFIX: there is nothing of \"small\" in NATS");
    assert_eq!(
        store.refuses(&["export"], ""),
        "NATS_PREFIX: there is nothing of \"small\" in NATS",
        "nor made by asking"
    );
    let big = SMALL.replace("12345678901234567890", &format!("\"{}\"", "x".repeat(100_000)));
    let said = store.refuses(&["import"], &big);
    assert!(said.starts_with("line 4: data: the payload must be at most "), "{said}");
    assert!(said.ends_with("; nothing was imported"), "{said}");
    assert_eq!(read(&store.export()), Content::default());
    store.import(SMALL);
    same(SMALL, &store.export());
    assert_eq!(store.refuses(&["import"], SMALL), "topic \"news\" exists already; nothing was imported");
}
