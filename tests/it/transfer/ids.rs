//! Ids that publishers gave go along with a move, also those whose messages are gone.

use std::time::Duration;

use super::*;

/// An export of one topic that keeps three messages, of which none is left but these ids are known: each with the seconds
/// since its message was published.
fn export_of(ids: &[(&str, u64)]) -> String {
    let mut export = r#"{"format":"pub-sub","version":3,"exportedAt":"2026-11-26T15:00:00.000Z","engine":"disk"}
{"topic":{"name":"news","epoch":"96f7d2ac6ce15aca","createdAt":"2026-11-26T14:00:00.000Z","implicit":false,"maxMessages":3,"floor":9,"last":9}}
"#
    .to_owned();
    for (id, age) in ids {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(*age as i64);
        export += &format!("{{\"knownId\":{{\"id\":{},\"publishedAt\":\"{at:.3}\"}}}}\n", json!(id));
    }
    export + &format!("{{\"end\":{{\"topics\":1,\"messages\":0,\"knownIds\":{},\"consumers\":0}}}}\n", ids.len())
}

/// What publishing with an id says at a door: offset, cursor and whether it was a duplicate.
type Said = (u64, String, bool);

fn said_in(response: &Value) -> Said {
    let cursor = response["cursor"].as_str().unwrap_or_else(|| panic!("{response}")).to_owned();
    let duplicate = response.get("duplicate").is_some_and(|duplicate| *duplicate == true);
    (response["offset"].as_u64().unwrap_or_else(|| panic!("{response}")), cursor, duplicate)
}

/// Publishes with one id at every door.
async fn at_every_door(client: &Client, id: &str) -> Vec<Said> {
    let item = json!({"topic": "short", "data": 0, "id": id});
    let mut said = vec![said_in(&client.post("/publish", &item).await.expect(200))];
    let batch = client.post("/publish", &json!([item, item])).await.expect(200);
    said.extend(batch["results"].as_array().unwrap_or_else(|| panic!("{batch}")).iter().map(said_in));
    let mut socket = RawWs::open(client).await;
    let mut frame = item.clone();
    frame["type"] = "publish".into();
    let ack = socket.ask(frame).await;
    assert_eq!(ack["type"], "ack", "{ack}");
    said.push(said_in(&ack));
    socket.close().await;
    let publish =
        "mutation($id: ID) { publish(topic: \"short\", data: 0, messageId: $id) { offset cursor duplicate } }";
    said.push(said_in(&client.graphql(publish, json!({"id": id})).await["publish"]));
    said
}

/// All ids that were published are known on a server, each stored once: those of the kept messages with their positions, the
/// others before the first message.
async fn all_are_known(client: &Client, ids: &[String]) {
    let kept = |page: &Value| page["messages"].as_array().unwrap().clone();
    let before = kept(&client.get("/topics/short/messages?last=10").await.expect(200));
    assert_eq!(before.len(), 3);
    let epoch = before[0]["cursor"].as_str().unwrap().split('-').next().unwrap().to_owned();
    let first = (0, format!("{epoch}-00"), true);
    for (index, id) in ids.iter().enumerate() {
        let wanted = match index.checked_sub(ids.len() - 3) {
            None => first.clone(),
            Some(kept) => {
                let message = &before[kept];
                assert_eq!(message["id"], id.as_str());
                (message["offset"].as_u64().unwrap(), message["cursor"].as_str().unwrap().to_owned(), true)
            }
        };
        assert_eq!(at_every_door(client, id).await, vec![wanted; 5], "{id}");
    }
    assert_eq!(kept(&client.get("/topics/short/messages?last=10").await.expect(200)), before);
    // One can read on from the position: everything is behind it.
    let all = client.get(&format!("/topics/short/messages?after={}", first.1)).await.expect(200);
    assert_eq!(kept(&all).len(), 3, "{all}");
}

/// Disk to disk, and over NATS and back: a publish that is repeated after the move is a duplicate and is not stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_without_messages_go_along() {
    let servers = nats::Nats::single().await;
    let directories = [directory(), directory(), directory()];
    let [first, second, third] = directories.each_ref().map(|directory| Store::disk(directory.path()));
    let between = Store::nats(&servers, "ids");
    let ids: Vec<_> = (1..=12).map(|number| format!("id {number} ü.\"=/\\💥")).collect();
    let server = first.serve();
    server.client.post("/topics", &json!({"name": "short", "max_messages": 3})).await.expect(201);
    for (number, id) in ids.iter().enumerate() {
        publish(&server.client, "short", &number.to_string(), Some(id.clone()), None).await;
        publish(&server.client, "short too", "0", Some(id.clone()), None).await;
    }
    stop(server).await;
    let export = first.export();
    let known = &read(&export).topics["short"].known_ids;
    assert!(known.iter().map(|known| known["id"].as_str().unwrap()).eq(&ids[..9]), "{known:?}");

    second.import(&export);
    let mut server = second.serve();
    all_are_known(&server.client, &ids).await;
    server.signal("KILL");
    server.ended().await;
    same(&export, &second.export());
    let server = second.serve();
    all_are_known(&server.client, &ids).await;
    stop(server).await;

    let output = between.run(&["import"], Some(second.export().as_bytes()));
    assert!(said(&output).contains("15 messages, 9 ids without a message and 0 consumers"), "{}", said(&output));
    // On every instance, also on one that starts later, and in an export beside them.
    let [one, other] = [between.serve(), between.serve()];
    all_are_known(&one.client, &ids).await;
    all_are_known(&other.client, &ids).await;
    same(&export, &between.export());
    stop(one).await;
    stop(other).await;
    let late = between.serve();
    all_are_known(&late.client, &ids).await;
    stop(late).await;

    third.import(&between.export());
    let server = third.serve();
    all_are_known(&server.client, &ids).await;
    stop(server).await;
    same(&export, &third.export());
}

/// An id is known for its window after its message was published, wherever that was; then it is stored again.
#[tokio::test]
async fn the_window_runs_on() {
    let directory = directory();
    let store = Store::disk(directory.path());
    let output = store.run(&["import"], Some(export_of(&[("over", 301), ("soon", 282), ("young", 5)]).as_bytes()));
    assert!(said(&output).contains("imported 1 topic, 0 messages, 2 ids without a message"), "{}", said(&output));
    // An export with a shorter window has fewer.
    let known = |store: &Store| read(&store.export()).topics["news"].known_ids.len();
    assert_eq!((known(&store), known(&store.with("DEDUP_WINDOW", "100s"))), (2, 1));
    let server = store.serve();
    let again = async |id: &str| publish(&server.client, "news", "1", Some(id.to_owned()), None).await;
    assert_eq!(again("over").await["duplicate"], false);
    assert_eq!(again("young").await["duplicate"], true);
    // Some fifteen seconds, and longer on a machine that is busy.
    let over = async {
        loop {
            let response = again("soon").await;
            if response["duplicate"] == false {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let stored = tokio::time::timeout(Duration::from_secs(60), over).await.expect("the other's window is over");
    assert_eq!(stored["offset"], 2, "{stored}");
    assert_eq!(again("soon").await["offset"], 2);
    assert_eq!(again("young").await["duplicate"], true);
}

/// An export of the first version, which had no such ids; and a message that has an id of those keeps its position.
#[tokio::test]
async fn messages_come_before_ids() {
    let directory = directory();
    let store = Store::disk(directory.path());
    let now = jiff::Timestamp::now();
    let message = format!(
        "{{\"message\":{{\"offset\":9,\"id\":\"a\",\"given\":true,\"publishedAt\":\"{now:.3}\",\"data\":1}}}}\n{{\"knownId\":"
    );
    let export = export_of(&[("a", 1), ("b", 1)]);
    let export = export.replacen("{\"knownId\":", &message, 1).replace("\"floor\":9", "\"floor\":8");
    store.import(&export.replace("\"messages\":0", "\"messages\":1"));
    let old = export_of(&[]).replace("\"version\":3", "\"version\":1").replace(",\"knownIds\":0", "");
    store.import(&old.replace("news", "old"));
    for _ in 0..2 {
        let server = store.serve();
        let response = publish(&server.client, "news", "2", Some("a".to_owned()), None).await;
        assert_eq!((&response["duplicate"], &response["offset"]), (&true.into(), &1.into()), "{response}");
        let response = publish(&server.client, "news", "2", Some("b".to_owned()), None).await;
        assert_eq!((&response["duplicate"], &response["offset"]), (&true.into(), &0.into()), "{response}");
        assert_eq!(server.client.get("/topics/old").await.expect(200)["messages"], 0);
        stop(server).await;
    }
}

/// An import that fails behind many ids takes them back with the topic: NATS has none of them any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_taken_back() {
    let config = "max_payload: 64KB".to_owned();
    let servers = nats::Nats::start(nats::Options { config, ..nats::Options::default() }).await;
    let store = Store::nats(&servers, "back");
    let ids: Vec<_> = (0..20_500).map(|number| format!("id-{number}")).collect();
    let good = export_of(&ids.iter().map(|id| (&**id, 1)).collect::<Vec<_>>());
    let topic = good.lines().nth(1).unwrap().replace("news", "more").replace("\"floor\":9", "\"floor\":8");
    let message = format!(
        r#"{{"message":{{"offset":9,"id":"x","given":true,"publishedAt":"2026-11-26T14:00:02.000Z","data":"{}"}}}}"#,
        "x".repeat(100_000)
    );
    let end = "{\"end\":{\"topics\":2,\"messages\":1,\"knownIds\":20500,\"consumers\":0}}";
    let bad = good[..good.find("{\"end\"").unwrap()].to_owned() + &[&topic, &message, end].join("\n");
    let messages = async || {
        let jetstream = async_nats::jetstream::new(servers.connect().await);
        jetstream.get_stream("back_1000").await.unwrap().get_info().await.unwrap().state.messages
    };
    let why = store.refuses(&["import"], &bad);
    assert!(why.starts_with("line 20504: data: the payload") && why.ends_with("; nothing was imported"), "{why}");
    assert_eq!(read(&store.export()), Content::default());
    // The ends of two topics.
    assert_eq!(messages().await, 2);
    store.import(&good);
    assert_eq!(messages().await, 2 + 20_500);
    assert_eq!(read(&store.export()).topics["news"].known_ids.len(), 20_500);
}
