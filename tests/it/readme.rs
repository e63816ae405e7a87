//! The documents keep their word: their examples run, top to bottom, against a fresh server.
//!
//! - A block of `sh` runs by `bash -eu`; port 8080 in it is the server's, and 8081 and 8443 are free ones. A block of `json` or
//!   `text` right after it is what it prints. A command that goes on (`curl -N`) is ended when as much as that has come.
//! - A block of `jsonl` is a conversation on one `/ws` connection (on `/graphql` with `jsonl graphql`): `→` is sent, `←`
//!   is the next frame.
//! - `<!-- test: skip -->` before a block leaves it out.
//!
//! What differs from run to run is compared by its shape: ids, cursors, times, and numbers whose name begins with
//! `uptime` or ends with `_bytes`. A cursor that the document shows stands for the one that came, from there on.

use std::{
    collections::HashMap,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{doors::raw_ws::Socket, harness::DEADLINE, process::Process};

#[derive(Debug, PartialEq)]
struct Block {
    line: usize,
    language: String,
    text: String,
    skipped: bool,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut open, mut skip) = (false, false);
    for (line, text) in (1..).zip(document.lines()) {
        if let Some(language) = text.trim_start().strip_prefix("```") {
            open = !open;
            if open {
                blocks.push(Block { line, language: language.trim().to_owned(), text: String::new(), skipped: skip });
                skip = false;
            }
        } else if open {
            let block = blocks.last_mut().unwrap();
            block.text.push_str(text);
            block.text.push('\n');
        } else if !text.trim().is_empty() {
            skip = text.trim() == "<!-- test: skip -->";
        }
    }
    assert!(!open, "a block is not closed");
    blocks
}

/// What the document's ids and cursors are in this run.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn put_into(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(shown, real))
    }

    /// Replaces words whose value varies by what they are, and remembers what they stand for.
    fn same_text(&mut self, shown: &str, real: &str) -> bool {
        let (shown, real) = (words(shown), words(real));
        shown.len() == real.len()
            && shown.iter().zip(&real).all(|(shown, real)| {
                let kind = kind(shown);
                if kind.is_some() && kind == self::kind(real) {
                    self.0.entry(shown.clone()).or_insert_with(|| real.clone());
                    return true;
                }
                shown == real || shown == "…"
            })
    }

    fn same(&mut self, shown: &Value, real: &Value) -> bool {
        match (shown, real) {
            (Value::String(shown), Value::String(real)) => shown == "…" || self.same_text(shown, real),
            (Value::Array(shown), Value::Array(real)) => {
                shown.len() == real.len() && shown.iter().zip(real).all(|(shown, real)| self.same(shown, real))
            }
            (Value::Object(shown), Value::Object(real)) => {
                shown.len() == real.len()
                    && shown.iter().all(|(name, shown)| match real.get(name) {
                        Some(real) if name.starts_with("uptime") || name.ends_with("_bytes") => {
                            shown.is_number() && real.is_number()
                        }
                        Some(real) => self.same(shown, real),
                        None => false,
                    })
            }
            (shown, real) => shown == real,
        }
    }

    /// Compares outputs: as JSON values where the shown one is JSON, else line by line.
    fn same_output(&mut self, language: &str, shown: &str, real: &str) -> bool {
        let read = |text: &str| {
            serde_json::Deserializer::from_str(text).into_iter::<Value>().collect::<Result<Vec<_>, _>>().ok()
        };
        if language == "json" {
            return read(shown).zip(read(real)).is_some_and(|(shown, real)| self.same(&shown.into(), &real.into()));
        }
        let (shown, real): (Vec<_>, Vec<_>) = (shown.trim().lines().collect(), real.trim().lines().collect());
        shown.len() == real.len()
            && shown.iter().zip(real).all(|(shown, real)| {
                let json = |line: &str| line.strip_prefix("data: ").map(read);
                match (json(shown), json(real)) {
                    (Some(Some(shown)), Some(Some(real))) => self.same(&shown.into(), &real.into()),
                    _ => self.same_text(shown.trim_end(), real.trim_end()),
                }
            })
    }
}

/// Runs of the characters of which ids, cursors and times are made, and what stands between.
fn words(text: &str) -> Vec<String> {
    let inside = |c: char| c.is_alphanumeric() || "-:.+".contains(c);
    let mut words: Vec<String> = Vec::new();
    let mut was_inside = None;
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if was_inside == Some(inside(c)) => word.push(c),
            _ => words.push(c.to_string()),
        }
        was_inside = Some(inside(c));
    }
    words
}

fn kind(word: &str) -> Option<&'static str> {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    if uuid::Uuid::parse_str(word).is_ok() {
        Some("id")
    } else if word.split_once('-').is_some_and(|(epoch, offset)| epoch.len() == 16 && hex(epoch) && hex(offset)) {
        Some("cursor")
    } else if let Some(position) = word.strip_prefix('p')
        && position.split_once('-').is_some_and(|(epoch, number)| epoch.len() == 16 && hex(epoch) && hex(number))
    {
        Some("pattern cursor")
    } else if word.len() == 16 && hex(word) {
        Some("epoch")
    } else if word.strip_prefix("sha256:").is_some_and(|hash| hash.len() == 64 && hex(hash)) {
        Some("hash")
    } else if word.ends_with('Z') && word.parse::<jiff::Timestamp>().is_ok() {
        Some("time")
    } else {
        None
    }
}

/// Kills a session with everything in it: `timeout` gives what it runs a process group of its own.
fn end_session(leader: u32) {
    let is_member = |process: &Path| {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        // Behind the name in parentheses: state, parent, process group, session.
        let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)?.parse().ok());
        session == Some(leader)
    };
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    for process in processes.filter(|process| is_member(process)) {
        let _ = Command::new("kill").arg("-KILL").arg(process.file_name().unwrap()).status();
    }
}

/// Runs a script where `pub-sub` is at hand; returns what it printed, and how it went if it ended by itself.
fn run(script: &str, directory: &Path, port: u16, wanted_lines: usize) -> (String, Option<bool>) {
    let script = script.replace("8080", &port.to_string());
    // Of a server that the script starts.
    let script = ["8081", "8443"].into_iter().fold(script, |script, port| {
        if script.contains(port) { script.replace(port, &crate::nats::free_port().to_string()) } else { script }
    });
    let ours = Path::new(env!("CARGO_BIN_EXE_pub-sub")).parent().unwrap();
    let path = format!("{}:{}", ours.display(), std::env::var("PATH").unwrap());
    let mut child = Command::new("setsid")
        .args(["bash", "-euo", "pipefail", "-c", &script])
        .env("PATH", path)
        // The default of the command line is the port that the documents show.
        .env("PUB_SUB_URL", format!("http://localhost:{port}"))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("bash and setsid");
    let mut stdout = child.stdout.take().unwrap();
    let (tell, printed) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            if tell.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let (begun, mut output) = (Instant::now(), Vec::new());
    let mut complete = None;
    loop {
        match printed.recv_timeout(Duration::from_millis(20)) {
            Ok(bytes) => output.extend(bytes),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let lines = String::from_utf8_lossy(&output).trim().lines().count();
        if wanted_lines > 0 && lines >= wanted_lines {
            complete.get_or_insert_with(Instant::now);
        }
        // It has said what it should, and goes on: a moment for what should not come.
        let patient = complete.is_none_or(|at: Instant| at.elapsed() < Duration::from_millis(500));
        if !patient || begun.elapsed() > DEADLINE {
            end_session(child.id());
            let _ = child.wait();
            return (String::from_utf8(output).unwrap(), complete.is_some().then_some(true));
        }
    }
    let status = child.wait().unwrap();
    (String::from_utf8(output).unwrap(), Some(status.success()))
}

async fn run_frames(server: &Process, block: &Block, names: &mut Names, at: &str) {
    let mut socket = if block.language.contains("graphql") {
        Socket::connect(&server.client, "/graphql", Some("graphql-transport-ws")).await
    } else {
        Socket::connect(&server.client, "/ws", None).await
    };
    for line in block.text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(sent) = line.strip_prefix('→') {
            socket.send(names.put_into(sent.trim())).await;
        } else if let Some(shown) = line.strip_prefix('←') {
            let shown: Value =
                serde_json::from_str(shown.trim()).unwrap_or_else(|error| panic!("{at}: {error}: {line}"));
            let real = socket.json().await;
            assert!(names.same(&shown, &real), "{at}\n shown: {shown}\n came:  {real}");
        } else {
            panic!("{at}: {line:?} is neither sent (→) nor received (←)");
        }
    }
    socket.close().await;
}

/// Runs a document; returns how many examples there were.
async fn keeps_its_word(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let document = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let server = Process::start(&[]);
    // Its examples find what those before them have left, and nothing else.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (mut names, mut examples) = (Names::default(), 0);
    let blocks = blocks(&document);
    for (index, block) in blocks.iter().enumerate().filter(|(_, block)| !block.skipped) {
        let at = format!("{name}:{}", block.line);
        if block.language == "sh" {
            let response = blocks
                .get(index + 1)
                .filter(|next| ["json", "text"].contains(&next.language.as_str()) && !next.skipped);
            let wanted = response.map_or(0, |response| response.text.trim().lines().count());
            let (script, port) = (names.put_into(&block.text), server.addr.port());
            // The lines of pretty JSON are no measure of compact JSON.
            let wanted = if response.is_some_and(|response| response.language == "json") { 0 } else { wanted };
            let here = directory.path().to_owned();
            let running = tokio::task::spawn_blocking(move || run(&script, &here, port, wanted));
            let (printed, ended_well) = running.await.unwrap();
            assert_eq!(ended_well, Some(true), "{at} failed or did not end; it printed\n{printed}");
            if let Some(response) = response {
                let same = names.same_output(&response.language, &response.text, &printed);
                assert!(same, "{at}\n shown:\n{}\n printed:\n{printed}", response.text);
            }
            examples += 1;
        } else if block.language.split(' ').next() == Some("jsonl") {
            run_frames(&server, block, &mut names, &at).await;
            examples += 1;
        }
    }
    assert!(examples > 0, "{name} has no example");
}

#[tokio::test]
async fn the_readme_keeps_its_word() {
    keeps_its_word("README.md").await;
}

#[tokio::test]
async fn the_command_line_page_keeps_its_word() {
    keeps_its_word("docs/command-line.md").await;
}

#[tokio::test]
async fn the_protocol_page_keeps_its_word() {
    keeps_its_word("docs/protocol.md").await;
}

#[tokio::test]
async fn the_backup_page_keeps_its_word() {
    keeps_its_word("docs/backup.md").await;
}

#[tokio::test]
async fn the_recipes_keep_their_word() {
    keeps_its_word("docs/recipes.md").await;
}

#[tokio::test]
async fn the_security_page_keeps_its_word() {
    keeps_its_word("docs/security.md").await;
}

#[test]
fn documents_are_taken_apart() {
    let found =
        blocks("x\n```sh\ncurl a\n```\n\n```json\n{}\n```\n<!-- test: skip -->\n```sh\nb\n```\ny\n```js\n```\n");
    let seen: Vec<_> = found.iter().map(|block| (block.line, block.language.as_str(), block.skipped)).collect();
    assert_eq!(seen, [(2, "sh", false), (6, "json", false), (10, "sh", true), (14, "js", false)]);
    assert_eq!(found[0].text, "curl a\n");
}

#[test]
fn what_varies_is_compared_by_shape() {
    let mut names = Names::default();
    let shown = r#"{"id":"0197c5a0-0000-7000-8000-000000000000","cursor":"00aa00aa00aa00aa-1","ts":"2026-01-01T00:00:00Z","uptime_sec":1,"n":1}"#;
    let real = r#"{"n":1,"id":"0197c5a0-1234-7000-8000-123456789abc","cursor":"123412341234abcd-7","ts":"2027-01-01T00:00:00.123Z","uptime_sec":99}"#;
    assert!(names.same_output("json", shown, real));
    assert_eq!(names.put_into("after 00aa00aa00aa00aa-1!"), "after 123412341234abcd-7!");
    assert!(!names.same_output("json", shown, &real.replace("\"n\":1", "\"n\":2")));
    assert!(!names.same_output("json", shown, &real.replace("\"n\":1,", "")));
    assert!(!names.same_output("json", shown, &real.replace("123412341234abcd-7", "x")));
    assert!(names.same_output(
        "text",
        "id: 00aa00aa00aa00aa-1\ndata: {\"a\":1,\"b\":2}",
        "id: 123412341234abcd-7\ndata: {\"b\":2,\"a\":1}\n"
    ));
    assert!(!names.same_output("text", "a\nb", "a"));
}
