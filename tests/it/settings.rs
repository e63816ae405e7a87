//! Settings by environment, flag and file, on the real binary.

use std::process::Command;

use serde_json::json;

use crate::{
    doors::{Door, RawWs, Start, numbers, raw_ws::Socket},
    process::{Process, command},
};

#[tokio::test]
async fn the_documented_variables_have_their_effect() {
    let server = Process::start(&[
        ("MAX_MESSAGES_PER_TOPIC", "5"),
        ("MAX_PUBLISH_RATE", "12"),
        ("WS_READ_BUFFER_SIZE", "64"),
        ("WS_WRITE_BUFFER_SIZE", "0"),
    ]);
    let client = &server.client;
    client.publish_numbers("news", 1..=12).await;
    let topic = client.get("/topics/news").await.expect(200);
    assert_eq!(
        (&topic["messages"], &topic["max_messages"], &topic["max_publish_rate"]),
        (&5.into(), &5.into(), &12.into())
    );
    let batch: Vec<_> = (0..40).map(|n| json!({"topic": "news", "data": n})).collect();
    let response = client.post("/publish", &batch.into()).await;
    assert!(response.text.contains("RATE_LIMITED"), "{response:?}");
    // Buffers of any size carry any message.
    let mut ws = RawWs::to(client, "big", Start::Live).await;
    for size in [10, 100, 70_000, 500_000] {
        client.publish("big", "x".repeat(size).into()).await;
        assert_eq!(ws.event().await.message().data.as_str().unwrap().len(), size);
    }
}

#[tokio::test]
async fn zero_means_no_rate() {
    let server = Process::start(&[("MAX_PUBLISH_RATE", "0")]);
    server.client.publish_numbers("news", 1..=1_000).await;
    assert_eq!(server.client.get("/topics/news").await.expect(200)["messages"], 1_000);
}

#[tokio::test]
async fn the_default_rate_is_a_hundred() {
    let server = Process::start(&[]);
    let batch: Vec<_> = (0..1_000).map(|n| json!({"topic": "news", "data": n})).collect();
    let response = server.client.post("/publish", &batch.into()).await.expect(200);
    let accepted =
        response["results"].as_array().unwrap().iter().filter(|result| result["status"] == "published").count();
    assert!((100..200).contains(&accepted), "{accepted}");
}

/// Two servers, one port: the second says so and goes.
#[tokio::test]
async fn a_port_in_use() {
    let server = Process::start(&[]);
    let port = server.addr.port().to_string();
    let output = command(&[("HOST", "127.0.0.1"), ("PORT", &port)]).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&port), "{text}");
    server.client.assert_alive().await;
}

#[test]
fn what_is_wrong_is_one_line_with_its_name() {
    for (name, value) in [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("HOST", "not an address"),
        ("MAX_MESSAGES_PER_TOPIC", "0"),
        ("MAX_PUBLISH_RATE", "-1"),
        ("WS_READ_BUFFER_SIZE", "many"),
        ("AUTO_CREATE_TOPICS", "maybe"),
        ("CONSUMER_TTL", "a day"),
        ("MAX_TOPICS", "1e3"),
        ("DRAIN_SECONDS", "-5"),
    ] {
        let output = command(&[(name, value)]).output().unwrap();
        assert!(!output.status.success(), "{name}={value} is accepted");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.trim().lines().count(), 1, "{name}={value}: {text}");
        assert!(text.contains(name), "{name}={value}: {text}");
        assert!(output.stdout.is_empty());
    }
    let output = command(&[]).args(["--no-such-flag", "1"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8(output.stderr).unwrap().contains("no-such-flag"));
}

#[tokio::test]
async fn flags_go_before_variables_before_the_file() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("layers-of-settings");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(
        directory.join("pub-sub.toml"),
        "max_messages_per_topic = 1\nmax_topics = 2\nmax_publish_rate = 3\n",
    )
    .unwrap();
    let mut command =
        command(&[("HOST", "127.0.0.1"), ("PORT", "0"), ("MAX_TOPICS", "20"), ("MAX_PUBLISH_RATE", "30")]);
    command.current_dir(&directory).args(["--max-publish-rate", "300"]);
    let server = Process::run(&mut command);
    server.client.create("news").await;
    let topic = server.client.get("/topics/news").await.expect(200);
    assert_eq!((&topic["max_messages"], &topic["max_publish_rate"]), (&1.into(), &300.into()));
    for number in 1..20 {
        server.client.create(&format!("t{number}")).await;
    }
    server.client.post("/topics", &json!({"name": "one more"})).await.expect_error(503, "LIMIT_REACHED");
}

/// What `config` prints is a file that says the same.
#[test]
fn the_printed_settings_can_be_read_back() {
    let print = |command: &mut Command| {
        let output = command.arg("config").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = print(&mut command(&[("MAX_TOPICS", "7"), ("CONSUMER_TTL", "90m")]));
    for line in [
        "max_topics = 7",
        "port = 8080",
        "max_messages_per_topic = 1000",
        "max_publish_rate = 100",
        "ws_read_buffer_size = 1024",
        "ws_write_buffer_size = 1024",
        "auto_create_topics = true",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} in {printed}");
    }
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("printed.toml");
    std::fs::write(&file, &printed).unwrap();
    let again = print(command(&[]).arg("--config").arg(&file));
    assert_eq!(again, printed);
}

#[tokio::test]
async fn ready_soon_after_start() {
    let _alone = crate::harness::alone().await;
    let begun = std::time::Instant::now();
    let server = Process::start(&[]);
    server.client.get("/health/ready").await.expect(200);
    // The goal is 50 ms; the bound leaves room for a busy machine and a debug build.
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    let mut socket = Socket::connect(&server.client, "/ws", None).await;
    socket.send(r#"{"type":"ping"}"#).await;
    assert_eq!(socket.json().await["type"], "pong");
}

/// Killed in the middle and started again: the address is free, the memory engine begins empty.
#[tokio::test]
async fn killed_and_started_again() {
    let mut server = Process::start(&[]);
    let mut ws = RawWs::to(&server.client, "news", Start::Live).await;
    server.client.publish("news", 1.into()).await;
    assert_eq!(numbers(&ws.messages(1).await), [1]);
    server.signal("KILL");
    assert!(!server.ended().await.success());
    assert!(matches!(ws.event().await, crate::doors::Event::Cut));
    let port = server.addr.port().to_string();
    let again = Process::start(&[("PORT", &port)]);
    assert_eq!(again.addr, server.addr);
    again.client.get("/topics/news").await.expect_error(404, "TOPIC_NOT_FOUND");
}
