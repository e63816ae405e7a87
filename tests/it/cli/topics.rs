//! `pub-sub topics` and `pub-sub health`.

use serde_json::{Value, json};

use super::{in_memory, printed, refused, run};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_changed_and_deleted() {
    let server = in_memory(|_| {});
    let topics = async |arguments: &[&str]| run(server.addr, &[&["topics"], arguments].concat()).await;
    let created = topics(&[
        "create",
        "news",
        "--max-messages",
        "5",
        "--max-publish-rate",
        "7",
        "--max-age",
        "90s",
        "--expect-every",
        "5m",
    ])
    .await;
    assert_eq!(printed(&created), "created news\n");
    assert!(refused(&topics(&["create", "news"]).await, 1).contains("(TOPIC_EXISTS)"));
    server.publish_numbers("news", 1..=2).await;
    let shown = printed(&topics(&["show", "news"]).await);
    assert!(shown.contains("max age            90s\n") && shown.contains("expect every       5m\n"), "{shown}");
    assert!(shown.contains("max publish rate   7\n") && shown.contains("message count      2\n"), "{shown}");

    let updated = printed(&topics(&["update", "news", "--max-messages", "1", "--json"]).await);
    assert_eq!(serde_json::from_str::<Value>(&updated).unwrap()["status"], "updated");
    assert!(refused(&topics(&["update", "news"]).await, 2).contains("such as --max-messages or --latest-per-key"));

    printed(&topics(&["create", "wörter/x"]).await);
    let list = printed(&topics(&[]).await);
    let lines: Vec<_> = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["NAME", "MESSAGES", "SUBSCRIBERS", "KEEPS", "RATE", "LAST", "PUBLISHED"]);
    assert_eq!(lines[1][..5], ["news", "1", "0", "1", "7"]);
    assert_eq!(lines[2], ["wörter/x", "0", "0", "1000", "-", "-"]);
    assert!(!list.contains('\x1b'), "no colours in a pipe: {list:?}");

    printed(&topics(&["create", "rates", "--latest-per-key", "--max-keys", "9"]).await);
    let shown = printed(&topics(&["show", "rates"]).await);
    assert!(
        shown.contains("retention          LATEST_PER_KEY\n") && shown.contains("max keys           9\n"),
        "{shown}"
    );
    let listed = printed(&topics(&["list", "--prefix", "rates"]).await);
    assert!(listed.lines().last().unwrap().contains("1 a key"), "{listed}");
    printed(&topics(&["update", "rates", "--history"]).await);
    assert!(printed(&topics(&["show", "rates"]).await).contains("retention          HISTORY\n"));
    printed(&topics(&["delete", "rates"]).await);

    let gone = topics(&["delete", "none", "news", "wörter/x"]).await;
    assert_eq!(String::from_utf8(gone.stdout.clone()).unwrap(), "deleted news\ndeleted wörter/x\n");
    assert!(refused(&gone, 1).contains("\"none\" does not exist"));
    assert_eq!(server.get("/topics").await.expect(200)["topics"], json!([]));
}

/// Colours are for terminals alone, and not for people who do not want them.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_colours() {
    let server = in_memory(|_| {});
    // A program that runs another one on a terminal. It is a part of every Debian, but not of every system.
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return;
    }
    let address = super::url(server.addr);
    let shown = async |variables: &[(&str, &str)]| {
        let mut script = std::process::Command::new("script");
        script.args(["-qec", concat!(env!("CARGO_BIN_EXE_pub-sub"), " topics"), "/dev/null"]);
        script.env_remove("NO_COLOR").env("PUB_SUB_URL", &address).envs(variables.iter().copied());
        script.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        printed(&super::output(&mut script, String::new()).await)
    };
    assert!(shown(&[]).await.starts_with("\x1b[1mNAME"));
    assert!(shown(&[("NO_COLOR", "1")]).await.starts_with("NAME"));
}

/// A list is as long as it is, whatever a page of the server holds.
#[tokio::test(flavor = "multi_thread")]
async fn long_lists_are_complete() {
    let server = in_memory(|_| {});
    for number in 0..250 {
        server.create(&format!("t{number:03}")).await;
    }
    let lines = printed(&run(server.addr, &["topics", "list", "--json"]).await);
    let names: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, (0..250).map(|number| format!("t{number:03}")).collect::<Vec<_>>());
    let some = printed(&run(server.addr, &["topics", "--prefix", "t00", "--json"]).await);
    assert_eq!(some.lines().count(), 10);
    let before = printed(&run(server.addr, &["topics", "--json", "--prefix", "t01", "list"]).await);
    assert_eq!(before.lines().count(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_that_of_the_server_at_the_url() {
    let server = in_memory(|_| {});
    let line = printed(&run(server.addr, &["health"]).await);
    assert!(line.starts_with("ready, version ") && line.ends_with(" 0 topics, 0 subscribers\n"), "{line}");
    let json = printed(&run(server.addr, &["healthcheck", "--json"]).await);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["status"], "ok");
    let nobody = crate::nats::free_port();
    assert!(refused(&run(([127, 0, 0, 1], nobody).into(), &["health"]).await, 1).contains("is the server running at"));
}
