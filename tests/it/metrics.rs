//! What `/metrics` serves is what docs/operations.md names, in both forms by the letter; every metric moves with what it counts;
//! dashboard and alert rules use no other.

mod exposition;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    doors::{Door, GraphqlSse, GraphqlWs, Options, RawWs, Sse, Start},
    harness::{Client, TestServer, eventually},
    nats::Nats,
};
use exposition::{Exposition, Form};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A line of the table: name, labels, kind.
struct Row {
    name: String,
    labels: BTreeSet<String>,
    kind: String,
}

fn table() -> Vec<Row> {
    let page = read("docs/operations.md");
    let (_, table) = page.split_once("<!-- metrics -->").unwrap();
    let (table, _) = table.split_once("<!-- /metrics -->").unwrap();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = table.trim().lines().skip(2).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, labels, kind, meaning] = cells[..] else { panic!("{line}") };
        assert!(!meaning.is_empty(), "{line}");
        Row { name: quoted(name).remove(0), labels: quoted(labels).into_iter().collect(), kind: kind.to_owned() }
    });
    rows.collect()
}

async fn scrape(client: &Client) -> Exposition {
    let response = client.get("/metrics").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Exposition::parse(&response.text, Form::Prometheus)
}

async fn scrape_openmetrics(client: &Client) -> Exposition {
    let request = client.request(reqwest::Method::GET, "/metrics");
    let accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4";
    let response = client.send(request.header("accept", accept)).await;
    assert_eq!(response.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    Exposition::parse(&response.text, Form::OpenMetrics)
}

fn on_engine(engine: &str, edit: impl FnOnce(&mut pub_sub::config::Config)) -> (TestServer, Option<tempfile::TempDir>) {
    let directory = (engine == "disk").then(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let server = TestServer::with(|config| {
        config.engine.engine = engine.to_owned();
        if let Some(directory) = &directory {
            config.engine.data_dir = directory.path().to_str().unwrap().to_owned();
        }
        config.broker.metrics_topics = 2;
        edit(config);
    });
    (server, directory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_names_what_is_served() {
    let nats = Nats::single().await;
    let url = nats.urls().join(",");
    let mut served: Vec<exposition::Family> = Vec::new();
    for engine in ["memory", "disk", "nats"] {
        let (server, _directory) = on_engine(engine, |config| config.engine.nats.url.clone_from(&url));
        // Of a topic that exists, there are series.
        server.publish("news", 1.into()).await;
        let (plain, open) = (scrape(&server).await, scrape_openmetrics(&server).await);
        let names = |of: &Exposition| of.families.iter().map(|family| family.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&plain), names(&open), "{engine}");
        for family in plain.families {
            if !served.iter().any(|known| known.name == family.name) {
                served.push(family);
            }
        }
    }
    let table = table();
    let named: BTreeSet<_> = table.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(named.len(), table.len(), "a metric has two lines");
    assert_eq!(named, served.iter().map(|family| family.name.as_str()).collect());
    for row in &table {
        let family = served.iter().find(|family| family.name == row.name).unwrap();
        assert_eq!(family.kind, row.kind, "{}", row.name);
        for sample in &family.samples {
            let labels = sample.labels.keys().filter(|label| *label != "le").cloned().collect::<BTreeSet<_>>();
            assert_eq!(labels, row.labels, "{}", row.name);
        }
    }
}

/// What stands still in the test below, and why.
const ELSEWHERE: [(&str, &str); 11] = [
    ("pubsub_silent_topics", "tests/it/contract/silence.rs looks at it"),
    ("pubsub_engine_writable", "it is 0 only while the engine is broken"),
    ("pubsub_auth_refused_total", "tests/it/attacks counts it"),
    ("pubsub_access_reload_failures_total", "tests/it/attacks counts it"),
    ("pubsub_topic_lag_messages_max", "tests/it/contract/lag.rs looks at it while somebody is behind"),
    ("pubsub_graphql_document_cache_bytes", "the first scrape comes after the first document, perhaps"),
    ("process_max_fds", "the system sets it"),
    ("process_virtual_memory_bytes", "it may be enough from the start"),
    ("process_resident_memory_bytes", "it may be enough from the start"),
    ("process_threads", "they are there from the start"),
    ("process_cpu_seconds_total", "it has a coarse clock"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_moves() {
    let (server, _directory) = on_engine("memory", |config| {
        config.broker.max_messages_per_topic = 50;
        config.broker.dedup_bytes = 20_000;
        config.broker.max_publish_rate = 0;
        config.server.drain_delay = Duration::from_millis(1_500);
    });
    let before = scrape(&server).await;

    // Live subscribers through every interface, of the topic and of a pattern, two of them alike.
    let mut ws = RawWs::with(&server, "news", Start::Live, &Options::consumer("one", "AUTO")).await;
    let mut ws_too = RawWs::to(&server, "news", Start::Live).await;
    let mut graphql = GraphqlWs::to(&server, "news", Start::Live).await;
    let mut graphql_too = GraphqlWs::to(&server, "news", Start::Live).await;
    let mut stream = Sse::to(&server, "*", Start::Live).await;
    let mut graphql_stream = GraphqlSse::to(&server, "news", Start::Live).await;
    server.publish("news", 1.into()).await;
    server.graphql("mutation { publish(topic: \"news\", data: 2) { offset } }", Value::Null).await;
    assert_eq!(ws.ask(json!({"type": "publish", "topic": "news", "data": 3})).await["status"], "ok");
    for door in [&mut ws, &mut ws_too] {
        door.messages(3).await;
    }
    for door in [&mut graphql, &mut graphql_too] {
        door.messages(3).await;
    }
    stream.messages(3).await;
    graphql_stream.messages(3).await;
    // A consumer that is away and falls behind, and one that comes back too late.
    let mut late = RawWs::with(&server, "late", Start::Live, &Options::consumer("late", "EXPLICIT")).await;
    let cursor = server.publish("late", 0.into()).await["cursor"].as_str().unwrap().to_owned();
    late.messages(1).await;
    server.post("/topics/late/consumers/late/ack", &json!({"cursor": cursor})).await.expect(200);
    late.close().await;
    server.publish_numbers("late", 1..=100).await;
    let mut late = RawWs::with(&server, "late", Start::Live, &Options::consumer("late", "EXPLICIT")).await;
    assert_eq!(late.event().await.gap().missed, Some(50));
    // Ids whose messages are gone, and more than there is room for.
    let ids: Vec<_> = (0..500).map(|id| json!({"topic": "ids", "data": 1, "id": format!("id-{id}")})).collect();
    server.post("/publish", &Value::from(ids)).await.expect(200);
    // A refusal.
    let refused = json!({"topic": "news", "data": 1, "expected_offset": 1_000});
    server.post("/publish", &refused).await.expect_error(409, "CONFLICT");
    // A position that moves with a pong, which the client sends when it reads on.
    ws.assert_open().await;
    eventually("a confirmation", || async {
        let now = scrape(&server).await;
        (now.number("pubsub_confirmation_latency_seconds_count", &[]) >= 2.0).then_some(())
    })
    .await;

    let after = scrape(&server).await;
    for (name, labels, least) in [
        ("pubsub_messages_in_total", &[("door", "graphql")][..], 1.0),
        ("pubsub_messages_in_total", &[("door", "ws")], 1.0),
        ("pubsub_messages_in_total", &[("door", "rest")], 602.0),
        ("pubsub_messages_out_total", &[("door", "graphql")], 9.0),
        ("pubsub_messages_out_total", &[("door", "ws")], 7.0),
        ("pubsub_messages_out_total", &[("door", "rest")], 3.0),
        ("pubsub_bytes_out_total", &[("door", "graphql")], 9.0),
        ("pubsub_client_connections", &[("door", "graphql"), ("protocol", "websocket")], 2.0),
        ("pubsub_client_connections", &[("door", "graphql"), ("protocol", "event-stream")], 1.0),
        ("pubsub_client_connections", &[("door", "rest"), ("protocol", "event-stream")], 1.0),
        ("pubsub_client_connections", &[("door", "ws"), ("protocol", "websocket")], 3.0),
        ("pubsub_publish_refused_total", &[("reason", "conflict")], 1.0),
        ("pubsub_errors_total", &[("code", "CONFLICT")], 1.0),
        ("pubsub_gaps_total", &[("reason", "EXPIRED")], 1.0),
        ("pubsub_missed_messages_total", &[("reason", "EXPIRED")], 50.0),
        ("pubsub_delivery_latency_seconds_count", &[], 18.0),
        ("pubsub_publish_duration_seconds_count", &[], 604.0),
        ("pubsub_consumer_lag_messages_max", &[], 50.0),
        ("pubsub_topic_messages_total", &[("topic", "ids")], 500.0),
    ] {
        let grown = after.number(name, labels) - before.try_number(name, labels).unwrap_or(0.0);
        assert!(grown >= least, "{name} {labels:?} has grown by {grown}, not by {least}");
    }
    // No more topics than the setting says.
    let topics: BTreeSet<_> =
        after.family("pubsub_topic_messages_total").samples.iter().map(|sample| &sample.labels["topic"]).collect();
    assert_eq!(topics, ["ids", "late"].map(str::to_owned).iter().collect());

    drop((ws, ws_too, graphql, graphql_too, stream, graphql_stream, late));
    server.ask_to_stop();
    eventually("a server that is not ready", || async {
        (scrape(&server).await.number("pubsub_ready", &[]) == 0.0).then_some(())
    })
    .await;
    for row in
        table().into_iter().filter(|row| !row.name.starts_with("pubsub_log_") && !row.name.starts_with("pubsub_nats_"))
    {
        let stays = ELSEWHERE.iter().any(|(name, _)| *name == row.name) || row.name == "pubsub_ready";
        let values = |of: &Exposition| {
            let found = of.families.iter().find(|family| family.name == row.name);
            found.map(|family| family.samples.iter().map(|sample| sample.value).sum::<f64>())
        };
        let (then, now) = (values(&before), values(&after));
        assert!(stays || then != now, "{} has not moved from {then:?}", row.name);
        if row.kind != "gauge" {
            assert!(then.unwrap_or(0.0) <= now.unwrap_or(0.0), "{} has gone back", row.name);
        }
    }
}

/// Names of topics may be anything.
#[tokio::test]
async fn labels_are_escaped() {
    let (server, _directory) = on_engine("memory", |_| {});
    let name = "a \"b\" \\ c}";
    server.publish(name, 1.into()).await;
    for exposition in [scrape(&server).await, scrape_openmetrics(&server).await] {
        assert_eq!(exposition.number("pubsub_topic_messages_total", &[("topic", name)]), 1.0);
    }
    let off = TestServer::start();
    off.publish(name, 1.into()).await;
    assert!(off.get("/metrics").await.text.find("pubsub_topic_").is_none());
}

/// The names of metrics in a piece of PromQL.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pubsub_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_use_what_there_is() {
    let table = table();
    let known = |name: &str| {
        table.iter().any(|row| match row.kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].iter().any(|part| name.strip_suffix(part) == Some(&row.name)),
            _ => row.name == name,
        })
    };
    let dashboard: Value = serde_json::from_str(&read("operations/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 20, "the panels were not found");
    let mut used = BTreeSet::new();
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let found = metrics_in(target["expr"].as_str().unwrap());
            assert!(!found.is_empty(), "{panel}");
            used.extend(found);
        }
    }
    let alerts = read("operations/alerts.yml");
    let rules = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect::<Vec<_>>();
    assert!(rules.len() > 10, "the rules were not found");
    for rule in rules {
        let found = metrics_in(rule);
        assert!(!found.is_empty(), "{rule}");
        used.extend(found);
    }
    let unknown: Vec<_> = used.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are in no line of docs/operations.md");
}
