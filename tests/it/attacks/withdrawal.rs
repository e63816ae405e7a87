//! Keys that are removed, narrowed and widened in the access file while they are used.

use pub_sub::access::KeyHash;

use super::{Innocent, Restricted, key_of, rule};
use crate::{
    doors::{Door, Event, Options, RawWs, Start, numbers},
    harness::{Client, eventually},
    process::Process,
};

every_pushing_door! {
    a_removed_key_loses_its_streams,
    a_replaced_key_loses_its_streams,
    a_narrowed_key_keeps_the_rest,
}

const READS: fn(&str) -> String = |patterns| rule("reader", &format!("subscribe = [{patterns}]"));

/// Waits until the file counts: the response to this request has this status.
async fn until(client: &Client, path: &str, status: u16) {
    let seen = || async { (client.get(path).await.status == status).then_some(()) };
    eventually(&format!("{status} at {path}"), seen).await;
}

async fn a_removed_key_loses_its_streams<D: Door>() {
    let other = rule("other", "subscribe = [\">\"]\npublish = [\">\"]");
    let server = Restricted::start(&(READS("\">\"") + &other));
    let (reader, mut innocent) = (server.key("reader"), Innocent::of(&server.key("other")).await);
    let mut door = D::to(&reader, "news", Start::Live).await;
    let mut pattern = D::to(&reader, "news.>", Start::Live).await;
    server.admin.publish_numbers("news", 1..=2).await;
    let seen = door.messages(2).await;
    server.write_rules(&other);
    for door in [&mut door, &mut pattern] {
        assert_eq!(door.event().await, Event::Error("UNAUTHENTICATED".to_owned()));
        if D::SOCKET.is_none() {
            assert_eq!(door.event().await, Event::Closed(None));
        }
    }
    reader.get("/topics").await.expect_error(401, "UNAUTHENTICATED");
    server.admin.publish_numbers("news", 3..=4).await;
    innocent.receives().await;
    // It comes back with its cursor once the key is there again.
    server.write_rules(&(READS("\">\"") + &other));
    until(&reader, "/topics", 200).await;
    let mut door = D::to(&reader, "news", Start::After(seen[1].cursor.clone())).await;
    assert_eq!(numbers(&door.messages(2).await), [3, 4]);
    innocent.receives().await;
}

/// A key that is exchanged for another one under the same name is withdrawn, with all that it had open.
async fn a_replaced_key_loses_its_streams<D: Door>() {
    let server = Restricted::start(&READS("\">\""));
    let reader = server.key("reader");
    let mut door = D::to(&reader, "news", Start::Live).await;
    let newer =
        READS("\">\"").replace(&KeyHash::of(&key_of("reader")).to_string(), &KeyHash::of("psk_newer").to_string());
    server.write_rules(&newer);
    assert_eq!(door.event().await, Event::Error("UNAUTHENTICATED".to_owned()));
    reader.get("/topics").await.expect_error(401, "UNAUTHENTICATED");
    let newer = server.nobody().signed_in("psk_newer");
    let mut door = D::to(&newer, "news", Start::Live).await;
    server.admin.publish("news", 1.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [1]);
}

async fn a_narrowed_key_keeps_the_rest<D: Door>() {
    let server = Restricted::start(&READS("\"a.*\", \"b.*\""));
    let reader = server.key("reader");
    let mut lost = D::to(&reader, "a.1", Start::Live).await;
    let mut kept = D::to(&reader, "b.1", Start::Live).await;
    let mut pattern = D::to(&reader, ">", Start::Live).await;
    for (topic, data) in [("a.1", 1), ("b.1", 2), ("c.1", 3)] {
        server.admin.publish(topic, data.into()).await;
    }
    assert_eq!(numbers(&pattern.messages(2).await), [1, 2]);
    assert_eq!(numbers(&lost.messages(1).await), [1]);
    server.write_rules(&READS("\"b.*\""));
    assert_eq!(lost.event().await, Event::Error("FORBIDDEN".to_owned()));
    // A topic that is made later is no way around.
    for (topic, data) in [("a.1", 4), ("a.2", 5), ("c.2", 6), ("b.1", 7), ("b.2", 8)] {
        server.admin.publish(topic, data.into()).await;
    }
    assert_eq!(numbers(&pattern.messages(2).await), [7, 8]);
    assert_eq!(numbers(&kept.messages(2).await), [2, 7]);
    assert_eq!(
        D::open(&reader).await.subscribe("a.1", Start::Live, &Options::default()).await.unwrap_err(),
        "FORBIDDEN"
    );
    server.write_rules(&READS("\"b.*\", \"c.>\""));
    until(&reader, "/topics/c.1", 200).await;
    for (topic, data) in [("a.1", 9), ("c.1", 10), ("c.3", 11), ("b.1", 12)] {
        server.admin.publish(topic, data.into()).await;
    }
    assert_eq!(numbers(&pattern.messages(3).await), [10, 11, 12]);
    assert_eq!(numbers(&kept.messages(1).await), [12]);
}

/// A key whose patterns share nothing any more with those of a subscription loses it.
#[tokio::test]
async fn a_pattern_of_which_nothing_is_left_ends() {
    let server = Restricted::start(&READS("\"a.*\", \"b.*\""));
    let reader = server.key("reader");
    let mut door = RawWs::to(&reader, "a.>", Start::Live).await;
    server.write_rules(&READS("\"b.*\""));
    assert_eq!(door.event().await, Event::Error("FORBIDDEN".to_owned()));
    door.assert_open().await;
    door.subscribe("b.1", Start::Live, &Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_rules() {
    let server = Restricted::start(&READS("\">\""));
    let reader = server.key("reader");
    let mut door = RawWs::to(&reader, "news", Start::Live).await;
    let failures = || server.metric("pubsub_access_reload_failures_total");
    assert_eq!(failures().await, 0);
    for (number, broken) in [
        "[[key]\n",
        "[[key]]\nname = \"mallory\"\n",
        &READS("\"a.>.b\""),
        "anonymous = { everything = true }\n",
        &(READS("\">\"") + &READS("\">\"")),
        &"#".repeat(2 << 20),
    ]
    .into_iter()
    .enumerate()
    {
        server.write_rules(broken);
        eventually("the broken file is seen", || async { (failures().await > number as u64).then_some(()) }).await;
        assert_eq!(failures().await, number as u64 + 1, "each content counts once");
        reader.get("/topics").await.expect(200);
        server.nobody().get("/topics").await.expect_error(401, "UNAUTHENTICATED");
        server.admin.publish("news", number.into()).await;
        assert_eq!(door.event().await.message().data, number);
    }
    std::fs::remove_file(server.directory.path().join("access.toml")).unwrap();
    eventually("the file that is gone is seen", || async { (failures().await == 7).then_some(()) }).await;
    reader.get("/topics").await.expect(200);
    server.write_rules(&rule("other", "subscribe = [\">\"]"));
    assert_eq!(door.event().await, Event::Error("UNAUTHENTICATED".to_owned()));
    server.key("other").get("/topics").await.expect(200);
}

/// SIGHUP concerns the whole process, so this is one of its own.
#[tokio::test]
async fn a_signal_makes_a_change_count_at_once() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("access.toml");
    std::fs::write(&path, READS("\">\"")).unwrap();
    let mut process = Process::start(&[("ACCESS_FILE", path.to_str().unwrap())]);
    let reader = process.client.signed_in(&super::key_of("reader"));
    let mut door = RawWs::to(&reader, "news", Start::Live).await;
    for number in 0..20 {
        // Each has one key, and takes the other one's away.
        let (present, absent) = if number % 2 == 0 { ("other", "reader") } else { ("reader", "other") };
        std::fs::write(&path, rule(present, "subscribe = [\">\"]")).unwrap();
        process.signal("HUP");
        until(&process.client.signed_in(&super::key_of(absent)), "/topics", 401).await;
        until(&process.client.signed_in(&super::key_of(present)), "/topics", 200).await;
    }
    assert_eq!(door.event().await, Event::Error("UNAUTHENTICATED".to_owned()));
    process.signal("TERM");
    assert!(process.ended().await.success());
}
