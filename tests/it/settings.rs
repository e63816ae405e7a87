//! Settings by environment, flag and file, on the real binary; its help, and what it says of mistakes.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pub_sub::config::{Config, KEYS};
use serde_json::json;

use crate::{
    doors::{Door, RawWs, Start, numbers, raw_ws::Socket},
    harness::{TestServer, eventually},
    nats,
    process::{Process, command},
    raw::Raw,
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
    let response = server.client.post("/publish", &batch.into()).await.expect(207);
    let accepted =
        response["results"].as_array().unwrap().iter().filter(|result| result["status"] == "published").count();
    assert!((100..200).contains(&accepted), "{accepted}");
    assert_eq!((&response["published"], &response["refused"]), (&accepted.into(), &(1_000 - accepted).into()));
    let refused = &response["results"][999]["error"];
    assert_eq!(refused["code"], "RATE_LIMITED");
    for name in ["MAX_PUBLISH_RATE", "max_publish_rate"] {
        assert!(refused["message"].as_str().unwrap().contains(name), "how to lift it: {refused}");
    }
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

fn written(directory: &str, text: &str) -> std::path::PathBuf {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(directory);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("pub-sub.toml"), text).unwrap();
    directory
}

fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The whole line: the name as it was written, what is right, what was meant.
#[test]
fn a_mistake_is_named_as_it_was_written() {
    let numbers = "must be a whole number from 0 to 65535, not";
    for (name, value, line) in [
        ("LOG", "inof", "LOG: \"inof\" is not a level (trace, debug, info, warn, error, off); did you mean info?"),
        ("ENGINE", "dsk", "ENGINE: must be one of memory, disk, nats, not \"dsk\"; did you mean disk?"),
        ("PORT", "abc", &format!("PORT: {numbers} \"abc\"")),
        ("PORT", "8_080", &format!("PORT: {numbers} \"8_080\"; did you mean 8080?")),
        ("AUTO_CREATE_TOPICS", "yes", "AUTO_CREATE_TOPICS: must be true or false, not \"yes\"; did you mean true?"),
        ("MAX_PAYLOAD_BYTES", "1MiB", "MAX_PAYLOAD_BYTES: must be a whole number, not \"1MiB\"; did you mean 1048576?"),
        ("HOST", "127.0.0.256", "HOST: must be an IP address or the name of a host, not \"127.0.0.256\""),
        ("MAX_MESSAGES_PER_TOPIC", "99999999", "MAX_MESSAGES_PER_TOPIC: must not exceed MAX_MESSAGES_LIMIT"),
        ("DRAIN_SECONDS", "soon", "DRAIN_SECONDS: must be a time like 30s, 15m or 24h, not \"soon\""),
    ] {
        assert_eq!(refusal(&mut command(&[(name, value)])), format!("pub-sub: {line}\n"));
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        let of_flag = line.replacen(name, &flag, 1);
        for arguments in [vec![flag.as_str(), value], vec!["serve", &flag, value]] {
            assert_eq!(refusal(command(&[]).args(arguments)), format!("pub-sub: {of_flag}\n"));
        }
    }
    for (text, line) in [
        ("PORT = 1", "PORT: keys in pub-sub.toml have small letters and underscores; did you mean port?"),
        (
            "max-topics = 1",
            "max-topics: keys in pub-sub.toml have small letters and underscores; did you mean max_topics?",
        ),
        (
            "prot = 1",
            "prot: there is no such setting in pub-sub.toml; did you mean port?; `pub-sub --help-all` lists them",
        ),
        ("[server]\nport = 1", "server: is a table; settings stand outside of tables in pub-sub.toml"),
        ("port = \"abc\"", &format!("port: {numbers} \"abc\" (in pub-sub.toml)")),
        ("port = [1]", &format!("port: {numbers} a list or table (in pub-sub.toml)")),
        (
            "drain_seconds = 1\ndrain_timeout = 1",
            "drain_timeout: is the same setting as drain_seconds; set only one of them (in pub-sub.toml)",
        ),
    ] {
        let directory = written("mistakes", text);
        assert_eq!(refusal(command(&[]).current_dir(directory)), format!("pub-sub: {line}\n"));
    }
}

#[test]
fn help_is_short_and_all_of_it_is_there() {
    let help = |arguments: &[&str]| {
        let output = command(&[]).args(arguments).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let short = help(&["--help"]);
    assert!(short.lines().count() <= 55, "{short}");
    for part in ["publish/subscribe", "  repair ", "--port <NUMBER>", "[default: 8080]", "--help-all", "--engine"] {
        assert!(short.contains(part), "{part} in {short}");
    }
    assert!(!short.contains("--max-document-tokens"), "{short}");
    assert_eq!((help(&["-h"]), help(&["help"])), (short.clone(), short));

    let all = help(&["--help-all"]);
    for key in KEYS {
        let flag = format!("--{} <", key.name.replace('_', "-"));
        let (_, entry) = all.split_once(&flag).unwrap_or_else(|| panic!("{flag} in {all}"));
        let entry = entry.split("\n\n").next().unwrap();
        assert!(!entry.contains("VALUE") && entry.lines().all(|line| line.len() <= 100), "{entry}");
        let default = format!("[default: {}]", key.default_text());
        let default_is_shown = entry.split_whitespace().collect::<Vec<_>>().join(" ").contains(&default);
        assert!(default_is_shown || key.default_text().is_empty(), "{default} in {entry}");
    }

    // A command shows its own flags, and the settings that it reads.
    for (name, own, shown) in [
        ("export", "--output", "--data-dir"),
        ("repair", "--dry-run", "--data-dir"),
        ("import", "[FILE]", "--nats-url"),
    ] {
        let text = help(&[name, "--help"]);
        let (own, shown) = (text.find(own), text.find(shown));
        assert!(own.is_some() && own < shown && !text.contains("--port"), "{text}");
        assert_eq!(help(&["help", name]), text);
        assert!(help(&[name, "--help-all"]).contains("--max-document-tokens"));
    }
}

/// As compose files and CI systems write variables that have no value.
#[test]
fn an_empty_variable_is_not_set() {
    // Where an empty one would open the server, it refuses the start: `credentials.rs` tests that.
    let opens = |name: &str| {
        let prefixes = ["api_key", "access_file", "jwt_secret", "jwt_public", "jwt_jwks", "jwt_issuer", "jwt_audience"];
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    let names = KEYS.iter().flat_map(|key| key.names()).filter(|name| !opens(name));
    let names: Vec<_> = names.map(str::to_uppercase).collect();
    let mut variables: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    variables.push(("NATS_PASSWORD_FILE", ""));
    let output = command(&variables).arg("config").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), Config::default().to_toml(), "{:?}", output.stderr);
}

#[tokio::test]
async fn a_host_may_have_a_name() {
    let server = Process::start(&[("HOST", "localhost")]);
    assert!(server.addr.ip().is_loopback());
    server.client.assert_alive().await;
    let port = server.addr.port().to_string();
    let mut healthcheck = command(&[("HOST", "localhost"), ("PORT", &port)]);
    assert!(healthcheck.arg("healthcheck").status().unwrap().success());
    let error = refusal(&mut command(&[("HOST", "no-such-host.invalid"), ("LOG", "off")]));
    assert!(error.starts_with("pub-sub: HOST: cannot resolve no-such-host.invalid: "), "{error}");
    assert_eq!(error.lines().count(), 1);
}

/// Nothing that the server prints contains a secret, at whatever level it logs.
#[tokio::test]
async fn secrets_are_masked() {
    let url = "nats://user:hunter2@127.0.0.1:1,nats://hunter2@127.0.0.1:1";
    let secrets =
        [("NATS_URL", url), ("NATS_PASSWORD", "hunter2"), ("NATS_TOKEN", "hunter2"), ("NATS_NKEY", "hunter2")];
    let output = command(&secrets).arg("config").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("nats_url = \"nats://user:***@127.0.0.1:1,nats://***@127.0.0.1:1\""), "{printed}");
    assert!(printed.contains("nats_password = \"***\"") && !printed.contains("hunter2"), "{printed}");

    let broken = [
        "nats_password = \"hunter2",
        "nats_password = [\"hunter2\"]",
        "host = \"nats://user:hunter2@host\"",
        "nats_url = \"nats://user:hunter2@host:port\"\nengine = \"nats\"",
        "nats_url = \"hunter2://user:hunter2@host\"\nengine = \"nats\"\nnats_replicas = 9",
    ];
    for text in broken {
        let error = refusal(command(&[]).current_dir(written("secrets", text)));
        assert!(error.lines().count() == 1 && !error.contains("hunter2"), "{text}: {error}");
    }

    let log = "trace,async_nats=trace,async_nats::connector=trace";
    let url = "nats://user:hunter2@127.0.0.1:1";
    let server = Process::start(&[("ENGINE", "nats"), ("NATS_URL", url), ("LOG", log)]);
    let log = server.log().join("\n");
    assert!(log.contains("NATS cannot be reached yet") && !log.contains("hunter2"), "{log}");
}

/// Text that looks like a value of another type stays the text that it is.
#[test]
fn a_password_of_digits_keeps_its_zeros() {
    let print = |value: &str| {
        let output = command(&[("NATS_USER", value)]).arg("config").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for value in ["007", "1e5", "true", "[a]", "'b'"] {
        assert!(print(value).contains(&format!("nats_user = {value:?}\n")), "{value}");
    }
}

#[tokio::test]
async fn a_hangup_does_not_end_it() {
    let mut server = Process::start(&[]);
    for count in 1..=2 {
        server.signal("HUP");
        eventually("line in the log", || async {
            (server
                .log()
                .iter()
                .filter(|line| {
                    line.contains("SIGHUP: LOG and the files of access rules, keys and certificates are read again")
                })
                .count()
                == count)
                .then_some(())
        })
        .await;
    }
    server.client.assert_alive().await;
    server.signal("TERM");
    assert!(server.ended().await.success(), "{:?}", server.log());
}

/// Whoever reads the log may go away, as `pub-sub 2>&1 | head` does.
#[tokio::test]
async fn a_log_that_nobody_reads_ends_nothing() {
    let mut child = command(&[("HOST", "127.0.0.1"), ("PORT", "0")]).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let addr = lines.find_map(|line| line.split_once("addr=")?.1.split_whitespace().next()?.parse().ok()).unwrap();
    drop(lines);
    let client = crate::harness::Client::new(addr);
    let signal = |name: &str| {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).status().unwrap();
        assert!(sent.success());
    };
    // Each is logged. The last signal is handled after the others.
    signal("HUP");
    client.assert_alive().await;
    signal("TERM");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > crate::harness::DEADLINE {
            let _ = child.kill();
            panic!("still running");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(status.success(), "{status:?}");
}

/// The time between two requests is not the time for sending one.
#[tokio::test]
async fn idle_connections_have_a_time_of_their_own() {
    let head = "GET /health HTTP/1.1\r\nHost: x\r\n";
    let server = TestServer::with(|config| {
        config.server.request_timeout = Duration::from_millis(100);
        config.server.keep_alive_timeout = Duration::from_secs(1);
    });
    let mut idle = Raw::connect(server.addr).await;
    for _ in 0..2 {
        idle.write(format!("{head}\r\n")).await;
        let answered = Instant::now();
        assert_eq!(idle.response().await.unwrap().0.status, 200);
        tokio::time::timeout(Duration::from_millis(500), idle.closed()).await.unwrap_err();
        assert!(answered.elapsed() >= Duration::from_millis(500));
    }
    let answered = Instant::now();
    idle.closed().await;
    assert!(answered.elapsed() < Duration::from_secs(5), "{:?}", answered.elapsed());

    // A head that was begun has the shorter time, on a connection that was used before, too.
    let server = TestServer::with(|config| config.server.request_timeout = Duration::from_millis(100));
    let mut slow = Raw::connect(server.addr).await;
    slow.write(format!("{head}\r\n")).await;
    assert_eq!(slow.response().await.unwrap().0.status, 200);
    slow.write(head).await;
    slow.closed().await;
    assert!(Config::default().server.keep_alive_timeout > Duration::from_secs(60), "what load balancers wait");
}

#[tokio::test]
async fn threads_that_serve() {
    let server = Process::start(&[("WORKER_THREADS", "3")]);
    eventually("three threads", || async {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        (names.filter(|name| name.trim() == "tokio-rt-worker").count() == 3).then_some(())
    })
    .await;
}

/// One line says so, however often the server tries.
#[tokio::test]
async fn nats_without_jetstream_is_named() {
    struct Server(std::process::Child);
    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let port = nats::free_port().to_string();
    let mut plain = Command::new(nats::binary(nats::MAIN));
    plain.args(["--addr", "127.0.0.1", "--port", &port]).stdout(Stdio::null()).stderr(Stdio::null());
    let _plain = Server(plain.spawn().unwrap());
    eventually("NATS", || async { tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.ok() }).await;
    let url = format!("nats://127.0.0.1:{port}");
    // It listens after it has tried for 5 s.
    let server = Process::start(&[("ENGINE", "nats"), ("NATS_URL", &url)]);
    let check = |server: &Process| {
        let lines: Vec<_> = server.log().into_iter().filter(|line| line.contains("JetStream")).collect();
        assert_eq!(lines.len(), 1, "{:?}", server.log());
        assert!(lines[0].contains("NATS_URL: NATS has no JetStream"), "{lines:?}");
    };
    check(&server);
    server.client.get("/health/ready").await.expect_error(503, "UNAVAILABLE");
    let error = refusal(command(&[("ENGINE", "nats"), ("NATS_URL", &url)]).arg("export"));
    assert!(error.starts_with("pub-sub: NATS_URL: NATS has no JetStream") && error.lines().count() == 1, "{error}");

    // A server that has it, and an account that does not.
    let config = "accounts { A: { jetstream: enabled, users: [{ user: a, password: a }] }\n\
                  B: { users: [{ user: b, password: b }] } }\nno_auth_user: a";
    let nats = nats::Nats::start(nats::Options { config: config.to_owned(), ..Default::default() }).await;
    let url = nats.urls()[0].replace("nats://", "nats://b:b@");
    check(&Process::start(&[("ENGINE", "nats"), ("NATS_URL", &url)]));
}

/// What a server writes beside the sources does not get into a commit.
#[test]
fn git_ignores_the_default_data_directory() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".gitignore");
    let wanted = format!("/{}/", Config::default().engine.data_dir);
    assert!(std::fs::read_to_string(path).unwrap().lines().any(|line| line == wanted));
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
