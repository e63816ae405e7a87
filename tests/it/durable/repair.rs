//! A damaged log: the server refuses it, and `pub-sub repair` cuts it where that is asked for.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::json;

use super::{directory, gap_of_unknown_size, on, segment};
use crate::{
    doors::{Door, RawWs, Start},
    process::command,
};

fn on_log(directory: &Path) -> Command {
    let path = directory.to_str().unwrap();
    command(&[("HOST", "127.0.0.1"), ("PORT", "0"), ("ENGINE", "disk"), ("DATA_DIR", path)])
}

fn repair(directory: &Path, flags: &[&str]) -> (i32, String) {
    let output = on_log(directory).arg("repair").args(flags).output().unwrap();
    (output.status.code().unwrap(), said(&output))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What the server says when it does not start on this log.
fn refused(directory: &Path) -> String {
    let output = on_log(directory).output().unwrap();
    assert!(!output.status.success());
    said(&output).lines().last().unwrap().to_owned()
}

/// Files beside the log that keep what was cut.
fn kept(directory: &Path) -> Vec<(String, u64)> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let named = files.map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().len()));
    named.filter(|(name, _)| name.starts_with("cut-")).collect()
}

/// Three bytes in the midst of a young log, after an orderly stop and after a kill: nothing is cut without being asked for,
/// and what is cut is kept, numbered behind, and told.
#[tokio::test]
async fn damage_in_the_midst_refuses_and_a_repair_cuts_there() {
    for (signal, fsync) in [("TERM", "always"), ("TERM", "never"), ("KILL", "always"), ("KILL", "interval")] {
        let directory = directory();
        let mut server = on(directory.path(), fsync);
        let mut cursors = Vec::new();
        for number in 1..=50_u64 {
            let done = server.client.publish("news", json!({"number": number, "fill": "x".repeat(500)})).await;
            cursors.push(done["cursor"].as_str().unwrap().to_owned());
        }
        let (code, refusal) = repair(directory.path(), &[]);
        assert_eq!((code, refusal.contains("is in use by another process")), (2, true), "{refusal}");
        server.signal(signal);
        server.ended().await;
        let (code, sound) = repair(directory.path(), &[]);
        assert_eq!((code, sound.contains("is sound: 1 segments")), (0, true), "{sound}");

        let path = segment(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 3].copy_from_slice(&[0xff; 3]);
        fs::write(&path, &bytes).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let refusal = refused(directory.path());
        let at = refusal.strip_prefix(&format!("pub-sub: DATA_DIR: {name} is damaged at byte ")).expect(&refusal);
        let at: usize = at.split(':').next().unwrap().parse().unwrap();
        assert!(at <= middle && middle < at + 600, "{refusal}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "left as it was");

        let (code, would) = repair(directory.path(), &["--dry-run"]);
        assert!(code == 1 && would.contains(&format!("{name} is damaged at byte {at}: ")), "{code} {would}");
        assert_eq!((fs::read(&path).unwrap(), kept(directory.path())), (bytes.clone(), vec![]));
        let (code, did) = repair(directory.path(), &[]);
        let (file, size) = kept(directory.path()).pop().expect("kept");
        assert!(code == 0 && did.contains(&file), "{code} {did}");
        assert_eq!(size as usize, bytes.len() - at);
        assert_eq!(fs::read(directory.path().join(file)).unwrap(), bytes[at..]);
        assert_eq!(repair(directory.path(), &[]).0, 0);

        let server = on(directory.path(), fsync);
        let page = server.client.get("/topics/news/messages?limit=100").await.expect(200);
        let left = page["messages"].as_array().unwrap().len() as u64;
        assert!((20..30).contains(&left), "{left} messages before the damage");
        let mut ahead = RawWs::to(&server.client, "news", Start::After(cursors[49].clone())).await;
        let next = server.client.publish("news", 0.into()).await["offset"].as_u64().unwrap();
        assert!(next > 50, "offset {next} was shown");
        assert_eq!(gap_of_unknown_size(&mut ahead).await, (51, next - 1));
        assert_eq!(ahead.event().await.message().offset, next);
    }
}

#[tokio::test]
async fn a_repair_says_why_it_can_do_nothing() {
    let directory = directory();
    let (code, said) = repair(&directory.path().join("nowhere"), &[]);
    assert!(code == 2 && said.starts_with("pub-sub: DATA_DIR: "), "{said}");
    let path = directory.path().to_str().unwrap();
    let output = command(&[("ENGINE", "memory"), ("DATA_DIR", path)]).arg("repair").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(self::said(&output).starts_with("pub-sub: ENGINE: "));
    let (code, said) = repair(directory.path(), &[]);
    assert!(code == 2 && said.contains("DATA_DIR: there is no log"), "{said}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was made there");
    drop(on(directory.path(), "always"));
    // Flags say it as for the server.
    let output = command(&[]).args(["repair", "--engine", "disk", "--data-dir", path]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", self::said(&output));
}

/// A write that a kill tore: it is cut off, and kept beside the log, which a log line says.
#[tokio::test]
async fn a_torn_end_is_kept_beside_the_log() {
    let directory = directory();
    let mut server = on(directory.path(), "always");
    server.client.publish("news", 1.into()).await;
    server.signal("KILL");
    server.ended().await;
    let path = segment(directory.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(&[90, 0, 0, 0, 1, 2, 3]);
    fs::write(&path, bytes).unwrap();
    let server = on(directory.path(), "always");
    let (file, size) = kept(directory.path()).pop().expect("kept");
    assert_eq!(size, 7);
    assert!(server.log().iter().any(|line| line.contains(&file)), "{:?}", server.log());
    assert_eq!(server.client.publish("news", 2.into()).await["offset"], 2, "nothing that was shown was lost");
}
