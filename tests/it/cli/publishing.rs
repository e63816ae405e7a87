//! `pub-sub pub`.

use serde_json::{Value, json};

use super::{Restartable, history, in_memory, printed, refused, run, run_with, start};

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_messages() {
    let server = in_memory(|_| {});
    let publish = async |arguments: &[&str]| run(server.addr, &[&["pub", "news"], arguments].concat()).await;
    for arguments in [
        &["hello"][..],
        &["{\"n\": 1.50e400}", "-5", "[1, 2]"],
        &["--text", "7", "null"],
        &["--key", "sport", "--id", "goal-1", "{\"home\":1}"],
        &["--id", "goal-1", "again"],
    ] {
        assert_eq!(printed(&publish(arguments).await), "", "nothing is printed");
    }
    let page = server.get("/topics/news/messages").await;
    // Every digit is kept, which no parsed number shows.
    assert!(page.text.contains(r#""data":{"n":1.50e400}"#), "{page:?}");
    let page = page.expect(200);
    let messages = page["messages"].as_array().unwrap();
    let data: Vec<_> = messages.iter().map(|message| &message["data"]).collect();
    let wanted =
        [json!("hello"), data[1].clone(), json!(-5), json!([1, 2]), json!("7"), json!("null"), json!({"home": 1})];
    assert_eq!(data, wanted.iter().collect::<Vec<_>>());
    assert_eq!((&messages[6]["key"], &messages[6]["id"]), (&json!("sport"), &json!("goal-1")));

    let shown = printed(&publish(&["--json", "--id", "goal-1", "once more"]).await);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["duplicate"], &shown["offset"]), (&json!(true), &json!(7)));
    assert!(shown["cursor"].is_string() && shown["topic"] == "news", "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_does_not_hold_is_refused() {
    let server = in_memory(|_| {});
    let publish = async |offset: &str| run(server.addr, &["pub", "news", "1", "--expected-offset", offset]).await;
    printed(&publish("0").await);
    let refusal = refused(&publish("0").await, 1);
    assert!(refusal.contains("argument 1: ") && refusal.contains("(CONFLICT)"), "{refusal}");
    printed(&publish("1").await);
    let of_key = async |offset: &str| {
        run(server.addr, &["pub", "news", "1", "--key", "k", "--expected-key-offset", offset]).await
    };
    printed(&of_key("0").await);
    assert!(refused(&of_key("0").await, 1).contains("(CONFLICT)"));
    printed(&of_key("3").await);
    for wrong in [
        &["pub"][..],
        &["pub", "news", "1", "2", "--expected-offset", "0"],
        &["pub", "news", "1", "2", "--key", "k", "--expected-key-offset", "0"],
        &["pub", "news", "1", "--expected-key-offset", "0"],
        &["pub", "news", "1", "2", "--id", "x"],
        &["pub", "news", "--id", "x"],
        &["pub", "news", "1", "--rate", "0"],
    ] {
        refused(&run(server.addr, wrong).await, 2);
    }
    assert!(refused(&run(server.addr, &["pub", "news", "--file", "/none"]).await, 1).contains("--file: /none: "));
}

/// Lines that cannot be published are told by their numbers, and the others are published.
#[tokio::test(flavor = "multi_thread")]
async fn lines_are_messages() {
    let server = in_memory(|config| config.broker.max_payload_bytes = 100);
    let big = "x".repeat(200);
    let input = format!("1\n{{\"a\":2}}\n\nno json\n\"{big}\"\n6\n");
    let output = run_with(server.addr, &["pub", "news"], &input).await;
    let refusal = refused(&output, 1);
    assert!(refusal.contains("line 4: is not JSON"), "{refusal}");
    assert!(refusal.contains("line 5: ") && refusal.contains("(PAYLOAD_TOO_LARGE)"), "{refusal}");
    assert_eq!(refusal.lines().count(), 2, "{refusal}");
    assert_eq!(history(&server, "news").await, [json!(1), json!({"a": 2}), json!(6)]);

    printed(&run_with(server.addr, &["pub", "text", "--text", "-"], "a \"b\"\n\n7").await);
    assert_eq!(history(&server, "text").await, [json!("a \"b\""), json!(""), json!("7")]);

    let objects =
        "{\"topic\":\"x\",\"data\":1,\"key\":\"k\",\"id\":\"i\",\"new\":0}\n{\"data\":null}\n{\"topic\":\"x\"}\n";
    let output = run_with(server.addr, &["pub", "y", "--json", "--file", "-"], objects).await;
    assert!(refused(&output, 1).contains("line 3: has no `data`"));
    let shown: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (shown.len(), &shown[0]["topic"], &shown[0]["id"], &shown[1]["topic"]),
        (2, &json!("x"), &json!("i"), &json!("y"))
    );
    let stored = server.get("/topics/x/messages").await.expect(200)["messages"][0].clone();
    assert_eq!((&stored["id"], &stored["key"], &stored["data"]), (&json!("i"), &json!("k"), &json!(1)));
}

/// A server that is killed in the middle has each line once, and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_stores_each_line_once() {
    let mut server = Restartable::durable();
    let mut publisher = start(server.addr(), &["pub", "numbers", "--json"]);
    let lines = |numbers: std::ops::RangeInclusive<u64>| -> String {
        numbers.map(|number| format!("{{\"data\":{number}}}\n")).collect()
    };
    publisher.write(&lines(1..=300));
    publisher.json().await;
    // It goes on to publish, and does not know what the server has stored.
    publisher.write(&lines(301..=2_000));
    server.kill().await;
    publisher.write(&lines(2_001..=2_100));
    server.start_again();
    let (code, rest) = publisher.ended().await;
    assert_eq!((code, rest.len()), (Some(0), 2_099), "{:?}", publisher.notes());
    let numbers: Vec<u64> =
        history(server.client(), "numbers").await.iter().map(|data| data.as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=2_100).collect::<Vec<_>>());
}

/// A publish rate makes it wait, and keeps the order; so does one that it cannot know beforehand.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_rate_is_kept() {
    let lines: String = (1..=130).map(|number| format!("{number}\n")).collect();
    let wanted: Vec<Value> = (1..=130).map(Value::from).collect();
    for (of_topic, of_client) in [(100, 0), (0, 100), (40, 60)] {
        let server = in_memory(|config| {
            config.broker.max_publish_rate = of_topic;
            config.broker.max_publish_rate_per_client = of_client;
        });
        let output = run_with(server.addr, &["pub", "news"], &lines).await;
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        printed(&output);
        let stored = history(&server, "news").await;
        if said.is_empty() {
            assert_eq!(stored, wanted);
        } else {
            // It did not know the client's own rate, and says what that has led to.
            assert!(of_client > 0 && said.contains("was stored before"), "{said}");
            assert_eq!(stored.len(), wanted.len());
        }
    }
    let server = in_memory(|_| {});
    printed(&run_with(server.addr, &["pub", "paced", "--rate", "500"], &lines).await);
    assert_eq!(history(&server, "paced").await, wanted);
}

/// A server with smaller bounds than others gets smaller requests.
#[tokio::test(flavor = "multi_thread")]
async fn small_servers_get_small_requests() {
    let server = in_memory(|config| config.broker.max_batch = 7);
    let lines: String = (1..=1_000).map(|number| format!("{number}\n")).collect();
    printed(&run_with(server.addr, &["pub", "news"], &lines).await);
    assert_eq!(server.get("/topics/news").await.expect(200)["last_offset"], 1_000);
}

/// What `sub --json` prints, `pub --json` publishes again: a copy, with its keys and ids.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_can_be_copied() {
    let (from, to) = (in_memory(|_| {}), in_memory(|_| {}));
    for number in 1..=3 {
        from.post("/publish", &json!({"topic": "news", "data": number, "key": "k", "id": format!("i{number}")})).await;
    }
    let printed_all = printed(&run(from.addr, &["sub", "news", "--last", "3", "--count", "3", "--json"]).await);
    for _ in 0..2 {
        printed(&run_with(to.addr, &["pub", "--json"], &printed_all).await);
    }
    let page = to.get("/topics/news/messages").await.expect(200);
    let ids: Vec<_> =
        page["messages"].as_array().unwrap().iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["i1", "i2", "i3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named() {
    let nobody = crate::nats::free_port();
    let output = run(([127, 0, 0, 1], nobody).into(), &["pub", "news", "1"]).await;
    let wanted = format!("pub-sub: connection refused: is the server running at http://127.0.0.1:{nobody}?\n");
    assert_eq!(refused(&output, 1), wanted);
}

/// A message that is kept for a short time only, as the flag or its line says.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_has_a_time_of_its_own() {
    let server = in_memory(|_| {});
    printed(&run(server.addr, &["pub", "news", "1", "2", "--ttl", "30ms"]).await);
    let lines = "{\"data\":3,\"ttl\":\"1h\"}\n{\"data\":4}\n";
    printed(&run_with(server.addr, &["pub", "news", "--json", "--ttl", "20ms"], lines).await);
    let kept = async || {
        let page = server.get("/topics/news/messages").await.expect(200);
        (page["messages"].as_array().unwrap().len() == 1).then(|| page["messages"][0]["data"].clone())
    };
    assert_eq!(crate::harness::eventually("the others are too old", kept).await, 3);
    assert!(refused(&run(server.addr, &["pub", "news", "1", "--ttl", "soon"]).await, 1).contains("ttl: "));
}

/// A key is removed by a flag, or by a line that says so, also by one that `sub --json` has printed.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_removed() {
    let server = in_memory(|_| {});
    printed(&run(server.addr, &["pub", "stock", "3", "--key", "apples"]).await);
    let shown =
        printed(&run(server.addr, &["pub", "stock", "--remove", "--key", "apples", "--id", "r", "--json"]).await);
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["offset"], 2);
    printed(&run_with(server.addr, &["pub", "stock", "--json"], "{\"key\":\"pears\",\"remove\":true}\n").await);
    let sub = ["sub", "stock", "--last", "3", "--count", "3"];
    let output = run(server.addr, &sub).await;
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(said.contains("the key \"apples\" of the topic \"stock\" was removed"), "{said}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "3\nnull\nnull\n");
    let lines = printed(&run(server.addr, &[&sub[..], &["--json"]].concat()).await);
    let copy = in_memory(|_| {});
    printed(&run_with(copy.addr, &["pub", "--json"], &lines).await);
    let page = copy.get("/topics/stock/messages").await.expect(200);
    let removed: Vec<_> = page["messages"].as_array().unwrap().iter().map(|it| it["removed"] == true).collect();
    assert_eq!(removed, [false, true, true], "{page}");
    for wrong in [&["--remove"][..], &["--remove", "--key", "a", "1"], &["--remove", "--key", "a", "--ttl", "5s"]] {
        refused(&run(server.addr, &[&["pub", "stock"], wrong].concat()).await, 2);
    }
}
