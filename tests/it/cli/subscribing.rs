//! `pub-sub sub`.

use serde_json::{Value, json};

use super::{Restartable, in_memory, output, printed, refused, run, start, url};
use crate::{
    harness::eventually,
    process::{Process, command},
};

/// Messages that were published while there was no connection come as well, each once, and nothing is said to be missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_durable_server_that_is_killed_loses_nothing() {
    let mut server = Restartable::durable();
    let mut sub = start(server.addr(), &["sub", "numbers"]);
    server.client().wait_for_subscribers("numbers", 1).await;
    server.client().publish_numbers("numbers", 1..=50).await;
    assert_eq!(sub.numbers(50).await, (1..=50).collect::<Vec<_>>());
    for first in [51, 101] {
        server.kill().await;
        sub.noted("trying again").await;
        server.start_again();
        server.client().publish_numbers("numbers", first..=first + 49).await;
        assert_eq!(sub.numbers(50).await, (first..=first + 49).collect::<Vec<_>>());
    }
    sub.noted("connected again").await;
    sub.signal("INT");
    let (code, rest) = sub.ended().await;
    assert_eq!((code, rest.len()), (Some(0), 0), "{rest:?}");
    assert!(sub.notes().iter().all(|note| !note.contains("missed")), "{:?}", sub.notes());
}

/// The state is said to be complete once, also where the server was killed: what comes later goes on behind it.
#[tokio::test(flavor = "multi_thread")]
async fn the_state_comes_first() {
    let mut server = Restartable::durable();
    let put = |key: &str, data: u64| json!({"topic": "prices", "key": key, "data": data});
    let values = json!([put("a", 1), put("b", 2), put("a", 3), {"topic": "prices", "data": 4}]);
    server.client().post("/publish", &values).await.expect(200);
    let mut plain = start(server.addr(), &["sub", "prices", "--state"]);
    let mut whole = start(server.addr(), &["sub", "prices", "--state", "--json"]);
    assert_eq!(plain.numbers(2).await, [2, 3]);
    plain.noted("the state is complete").await;
    for wanted in [2, 3] {
        assert_eq!(whole.json().await["data"], wanted);
    }
    let marker = whole.json().await;
    assert_eq!((&marker["type"], marker["cursor"].is_string()), (&json!("state"), true), "{marker}");
    server.kill().await;
    for sub in [&plain, &whole] {
        sub.noted("trying again").await;
    }
    server.start_again();
    server.client().post("/publish", &json!([put("a", 5), put("a", 6)])).await.expect(200);
    assert_eq!(plain.numbers(2).await, [5, 6]);
    for wanted in [5, 6] {
        assert_eq!(whole.json().await["data"], wanted);
    }
    assert_eq!(plain.notes().iter().filter(|note| note.contains("the state is complete")).count(), 1);
}

/// The same for a pattern, over a topic that was there and one that was not.
#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_is_resumed() {
    let mut server = Restartable::durable();
    let mut sub = start(server.addr(), &["sub", "orders.>", "--json"]);
    // A pattern has no count of subscribers: its first message shows that it is open.
    let first = eventually("the first message", || async {
        server.client().publish("orders.a", 1.into()).await;
        sub.lines.try_recv().ok()
    })
    .await;
    server.kill().await;
    sub.noted("trying again").await;
    server.start_again();
    for topic in ["orders.a", "orders.b", "orders.b"] {
        server.client().publish(topic, "later".into()).await;
    }
    let mut events = vec![serde_json::from_str::<Value>(&first).unwrap()];
    while events.iter().filter(|event| event["topic"] == "orders.b").count() < 2 {
        events.push(sub.json().await);
    }
    let offsets = |topic: &str| -> Vec<u64> {
        let of_topic = events.iter().filter(|event| event["topic"] == topic);
        of_topic.map(|event| event["offset"].as_u64().unwrap()).collect()
    };
    let (a, b) = (offsets("orders.a"), offsets("orders.b"));
    assert!(a.len() > 1 && a.windows(2).all(|pair| pair[0] + 1 == pair[1]), "nothing twice, nothing left out: {a:?}");
    let newest = server.client().get("/topics/orders.a").await.expect(200)["last_offset"].as_u64();
    assert_eq!((a.last().copied(), b), (newest, vec![1, 2]));
    assert!(events.iter().all(|event| event["pattern_cursor"].is_string()), "{events:?}");
}

/// A server that has forgotten everything: what was missed is said, also by one that had not received anything yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_is_told() {
    let mut server = Restartable::forgetful();
    let mut busy = start(server.addr(), &["sub", "news", "--json"]);
    let mut quiet = start(server.addr(), &["sub", "quiet", "--json"]);
    for topic in ["news", "quiet"] {
        server.client().wait_for_subscribers(topic, 1).await;
    }
    server.client().publish_numbers("news", 1..=3).await;
    for number in 1..=3 {
        assert_eq!(busy.json().await["data"], number);
    }
    server.kill().await;
    for sub in [&busy, &quiet] {
        sub.noted("trying again").await;
    }
    server.start_again();
    for topic in ["news", "quiet"] {
        server.client().publish_numbers(topic, 10..=11).await;
    }
    for sub in [&mut busy, &mut quiet] {
        let gap = sub.json().await;
        assert_eq!((&gap["type"], &gap["reason"]), (&json!("gap"), &json!("NEW_EPOCH")));
        assert_eq!((sub.json().await["data"].clone(), sub.json().await["data"].clone()), (json!(10), json!(11)));
        let note = sub.noted("missed").await;
        assert!(note.contains("(NEW_EPOCH)") && note.contains("is gone"), "{note}");
        sub.signal("TERM");
        assert_eq!(sub.ended().await.0, Some(0));
    }
}

/// A gap is said with its number and offsets, and can end the command.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_counted() {
    let server = in_memory(|config| config.broker.max_messages_per_topic = 2);
    let first = server.publish("news", 1.into()).await;
    server.publish_numbers("news", 2..=5).await;
    let after = first["cursor"].as_str().unwrap();
    let sub = run(server.addr, &["sub", "news", "--after", after, "--count", "2"]).await;
    assert_eq!(printed(&sub), "4\n5\n");
    let wanted =
        "pub-sub: missed 2 messages of \"news\" (offsets 2 to 3): the topic does not keep them any more (EXPIRED)\n";
    assert_eq!(String::from_utf8(sub.stderr).unwrap(), wanted);

    let strict = run(server.addr, &["sub", "news", "--after", after, "--count", "2", "--fail-on-gap", "--json"]).await;
    assert_eq!(refused(&strict, 3), wanted);
    let gap: Value = serde_json::from_slice(&strict.stdout).unwrap();
    assert_eq!((&gap["missed"], &gap["from_offset"], &gap["to_offset"]), (&json!(2), &json!(2), &json!(3)));
    let strict = run(server.addr, &["sub", "news", "--last", "2", "--count", "2", "--fail-on-gap"]).await;
    assert_eq!(printed(&strict), "4\n5\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_begins_and_ends_where_it_should() {
    let server = in_memory(|_| {});
    server.publish_all("news", [json!({"n": 1.50}), json!("two"), json!(null)]).await;
    server.post("/publish", &json!({"topic": "news", "data": {"total": 7}, "key": "sport"})).await.expect(200);
    let sub = async |arguments: &[&str]| printed(&run(server.addr, &[&["sub", "news"], arguments].concat()).await);
    assert_eq!(sub(&["--last", "4", "--count", "3"]).await, "{\"n\":1.5}\n\"two\"\nnull\n");
    assert_eq!(sub(&["--since", "1h", "--count", "1"]).await, "{\"n\":1.5}\n");
    assert_eq!(sub(&["--last", "4", "--key", "sport", "--count", "1"]).await, "{\"total\":7}\n");
    let filter = "{\"field\":\"total\",\"gt\":5}";
    assert_eq!(sub(&["--last", "4", "--filter", filter, "--timeout", "3s"]).await, "{\"total\":7}\n");
    // Nothing more comes: that is success unless more was wanted.
    assert_eq!(sub(&["--timeout", "50ms"]).await, "");
    let short = run(server.addr, &["sub", "news", "--last", "1", "--count", "2", "--timeout", "3s"]).await;
    assert!(refused(&short, 1).contains("1 of 2 messages have come"), "{short:?}");
    let whole = sub(&["--last", "1", "--count", "1", "--json"]).await;
    let event: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!((&event["type"], &event["key"], &event["offset"]), (&json!("event"), &json!("sport"), &json!(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said() {
    let server = in_memory(|_| {});
    let sub = async |arguments: &[&str]| run(server.addr, &[&["sub"], arguments].concat()).await;
    for wrong in [
        &[][..],
        &["a", "--last", "1", "--after", "x"],
        &["a", "--ack", "explicit"],
        &["a", "--count", "0"],
        &["a", "--timeout", "soon"],
        &["a", "--since", "yesterday"],
        &["a", "--filter", "{"],
    ] {
        refused(&sub(wrong).await, 2);
    }
    assert!(refused(&sub(&["a", "--after", "x"]).await, 1).contains("(BAD_REQUEST)"));
    assert!(refused(&sub(&["a*"]).await, 1).contains("(INVALID_TOPIC)"));
    assert!(refused(&sub(&["a", "--url", "ftp://x"]).await, 2).contains("--url: must be a URL"));

    let nobody = crate::nats::free_port();
    let refusal = refused(&run(([127, 0, 0, 1], nobody).into(), &["sub", "a"]).await, 1);
    let wanted = format!("pub-sub: connection refused: is the server running at http://127.0.0.1:{nobody}?\n");
    assert_eq!(refusal, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_ends_the_subscription() {
    let server = in_memory(|_| {});
    let mut sub = start(server.addr, &["sub", "news"]);
    server.wait_for_subscribers("news", 1).await;
    server.publish("news", 1.into()).await;
    assert_eq!(sub.line().await, "1");
    server.delete("/topics/news").await.expect(200);
    assert_eq!(sub.ended().await, (Some(1), Vec::new()));
    sub.noted("\"news\" was deleted").await;
}

/// Who waits for the server from the start may begin before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let mut server = Restartable::durable();
    server.kill().await;
    let mut sub = start(server.addr(), &["sub", "news", "--last", "5", "--retry-for", "30s", "--count", "1"]);
    sub.noted("connection refused").await;
    server.start_again();
    server.client().publish("news", 7.into()).await;
    assert_eq!(sub.ended().await, (Some(0), vec!["7".to_owned()]), "{:?}", sub.notes());
}

/// Whoever reads the output may go: at once when nothing is written, and when there is something to write.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_ends_it_in_silence() {
    let server = in_memory(|_| {});
    server.publish_numbers("news", 1..=2_000).await;
    let program = env!("CARGO_BIN_EXE_pub-sub");
    for last in ["1", "1000"] {
        let script = format!("\"$0\" sub news --last {last} | head -n 1 >/dev/null; echo ${{PIPESTATUS[0]}}");
        let address = url(server.addr);
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", &script, program]).env("PUB_SUB_URL", &address);
        shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let output = output(&mut shell, String::new()).await;
        assert_eq!((printed(&output).as_str(), output.stderr.as_slice()), ("0\n", &b""[..]), "--last {last}");
    }
}

/// A pipe that is full holds nothing up but the output: a signal still ends the command.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_though_nobody_reads() {
    let server = in_memory(|_| {});
    server.publish_all("news", (0..500).map(|_| Value::from("x".repeat(1_000)))).await;
    let address = url(server.addr);
    let mut sub = command(&[("PUB_SUB_URL", &address)]).args(["sub", "news", "--last", "500"]).spawn().unwrap();
    let stdout = sub.stdout.take().unwrap();
    eventually("a full pipe", || async { (rustix::io::ioctl_fionread(&stdout).unwrap() > 60_000).then_some(()) }).await;
    let sent = std::process::Command::new("kill").arg("-INT").arg(sub.id().to_string()).status();
    assert!(sent.unwrap().success());
    let status = eventually("the end", || {
        let ended = sub.try_wait().unwrap();
        async move { ended }
    })
    .await;
    assert_eq!(status.code(), Some(0));
}

/// A device that takes nothing is a failure, unlike a reader that has gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said() {
    let server = in_memory(|_| {});
    server.publish("news", 1.into()).await;
    let address = url(server.addr);
    for arguments in [&["sub", "news", "--last", "1"][..], &["topics"]] {
        let mut full = command(&[("PUB_SUB_URL", &address)]);
        full.args(arguments).stdout(std::fs::File::create("/dev/full").unwrap());
        let ended = tokio::task::spawn_blocking(move || full.output().unwrap()).await.unwrap();
        let refusal = refused(&ended, 1);
        assert!(refusal.contains("cannot write to standard output: No space left"), "{refusal}");
    }
}

/// Credentials travel with every request, and what is missing is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_signs_in() {
    let server = Process::start(&[("API_KEY", "a-key-that-nobody-guesses")]);
    let stranger = refused(&run(server.addr, &["sub", "news"]).await, 1);
    assert!(stranger.contains("(UNAUTHENTICATED); --token or PUB_SUB_TOKEN signs in"), "{stranger}");
    let address = url(server.addr);
    let environment = [("PUB_SUB_URL", address.as_str()), ("PUB_SUB_TOKEN", "a-key-that-nobody-guesses")];
    let published = output(command(&environment).args(["pub", "news", "1"]), String::new()).await;
    assert_eq!(printed(&published), "");
    for consumer in [&[][..], &["--consumer", "c"]] {
        let arguments = [&["sub", "news", "--last", "1", "--count", "1"], consumer].concat();
        assert_eq!(printed(&output(command(&environment).args(&arguments), String::new()).await), "1\n");
        let stranger = run(server.addr, &arguments).await;
        assert!(refused(&stranger, 1).contains("UNAUTHENTICATED"), "{stranger:?}");
    }
}
