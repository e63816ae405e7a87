//! Several instances on one NATS: what users see of it, and what they see when it is gone.

mod access;
mod cut_off;
mod rivals;
mod upheaval;
mod wandering;

use std::time::Duration;

use pub_sub::{config::Config, engine::nats::Settings};
use serde_json::json;

use crate::{
    doors::{Door, Event, GraphqlSse, GraphqlWs, Options, RawWs, RestPages, Sse, Start, numbers},
    harness::{Client, TestServer, alone, encode, eventually},
    nats::{self, Auth, Login, Nats, Tls},
    process::{Process, command},
};

/// How long publishers wait for a cluster that lost its leader, and how soon the health check says so, at most.
const OUTAGE_DEADLINE: Duration = Duration::from_secs(40);

/// An instance in this process.
fn instance(nats: &Nats) -> TestServer {
    with(nats, |_| {})
}

fn with(nats: &Nats, edit: impl FnOnce(&mut Config)) -> TestServer {
    let url = nats.urls().join(",");
    TestServer::with(|config| {
        config.engine.engine = "nats".to_owned();
        config.engine.nats = Settings { url, ..Settings::default() };
        edit(config);
    })
}

/// Waits for a state that takes elections to come about.
async fn in_the_end<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let seen = tokio::time::timeout(OUTAGE_DEADLINE, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    seen.await.unwrap_or_else(|_| panic!("no {what} within {OUTAGE_DEADLINE:?}"))
}

async fn becomes_ready(client: &Client) {
    in_the_end("ready instance", || async { (client.get("/health/ready").await.status == 200).then_some(()) }).await;
}

/// For at least so long without a break: an instance that loses its connection finds another node first, and then that
/// this one is of no use.
async fn becomes_unready(client: &Client, at_least: Duration) {
    let since = std::cell::Cell::new(None);
    in_the_end("instance that is not ready", || async {
        let begun = since.get().unwrap_or_else(tokio::time::Instant::now);
        let response = client.get("/health/ready").await;
        since.set((response.status != 200).then_some(begun));
        if response.status == 200 {
            return None;
        }
        response.expect_error(503, "UNAVAILABLE");
        (begun.elapsed() >= at_least).then_some(())
    })
    .await;
}

async fn publish(client: &Client, topic: &str, number: u64) -> crate::harness::Response {
    // With an id, so that repeating it is safe.
    let request = client.request(reqwest::Method::POST, "/publish").timeout(OUTAGE_DEADLINE);
    client.send(request.json(&json!({"topic": topic, "data": number, "id": format!("n{number}")}))).await
}

/// Publishes until it is stored.
async fn publish_in_the_end(client: &Client, topic: &str, number: u64) {
    in_the_end("publication", || async {
        let response = publish(client, topic, number).await;
        assert!(matches!(response.status, 200 | 503 | 504), "{response:?}");
        (response.status == 200).then_some(())
    })
    .await;
}

async fn history(client: &Client, topic: &str) -> Vec<u64> {
    let page = client.get(&format!("/topics/{}/messages?limit=1000", encode(topic))).await.expect(200);
    page["messages"].as_array().unwrap().iter().map(|message| message["data"].as_u64().unwrap()).collect()
}

/// A scenario on two instances, through each of these doors.
macro_rules! across_instances {
    ($scenario:ident: $($door:ident $name:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $scenario::<$door>().await;
        }
    )*};
}

across_instances! {
    everything_is_shared:
    GraphqlWs shared_through_graphql_ws,
    GraphqlSse shared_through_graphql_sse,
    RawWs shared_through_raw_ws,
    Sse shared_through_sse,
    RestPages shared_through_rest_pages,
}

across_instances! {
    a_consumer_moves:
    GraphqlWs consumers_move_through_graphql_ws,
    GraphqlSse consumers_move_through_graphql_sse,
    RawWs consumers_move_through_raw_ws,
    Sse consumers_move_through_sse,
}

async fn everything_is_shared<D: Door>() {
    let nats = Nats::single().await;
    let (a, b) = (instance(&nats), instance(&nats));
    // A topic made here is there, at once.
    a.create("news").await;
    let mut there = D::with(&b, "news", Start::Live, &Options::default()).await;
    a.post("/topics", &json!({"name": "news"})).await.expect_error(409, "TOPIC_EXISTS");
    b.post("/topics", &json!({"name": "news"})).await.expect_error(409, "TOPIC_EXISTS");
    // Both publish into one order.
    let mut cursors = Vec::new();
    for number in 1..=20 {
        let told = if number % 2 == 0 { &a } else { &b }.publish("news", number.into()).await;
        cursors.push(told["cursor"].as_str().unwrap().to_owned());
    }
    assert_eq!(numbers(&there.messages(20).await), (1..=20).collect::<Vec<_>>());
    assert_eq!((history(&a, "news").await, history(&b, "news").await), ((1..=20).collect(), (1..=20).collect()));
    there.close().await;
    // A position that one gives out is good at the other: whatever was acknowledged there is known here.
    for round in 0..10 {
        let (from, to) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let number = 21 + round;
        let told = from.publish("news", number.into()).await;
        let mut door = D::with(to, "news", Start::After(cursors.last().unwrap().clone()), &Options::default()).await;
        assert_eq!(numbers(&door.messages(1).await), [number]);
        door.close().await;
        cursors.push(told["cursor"].as_str().unwrap().to_owned());
    }
    // An id is known wherever it is repeated.
    let first = a.post("/publish", &json!({"topic": "news", "data": 31, "id": "once"})).await.expect(200);
    let again = b.post("/publish", &json!({"topic": "news", "data": 31, "id": "once"})).await.expect(200);
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)), "{first} {again}");
    assert_eq!(first["cursor"], again["cursor"]);
    // What is deleted here is gone there, and who reads there is told.
    let mut there = D::with(&b, "news", Start::Live, &Options::default()).await;
    a.delete("/topics/news").await.expect(200);
    assert_eq!(there.event().await, Event::Deleted("news".to_owned()));
    b.get("/topics/news").await.expect_error(404, "TOPIC_NOT_FOUND");
    // The next of this name is another one, on both.
    b.create("news").await;
    a.publish("news", 1.into()).await;
    let mut door = D::with(&a, "news", Start::After(cursors[5].clone()), &Options::default()).await;
    assert_eq!(door.event().await.gap().reason, "NEW_EPOCH");
    assert_eq!(numbers(&door.messages(1).await), [1]);
}

async fn a_consumer_moves<D: Door>() {
    let nats = Nats::single().await;
    let (a, b) = (instance(&nats), instance(&nats));
    a.create("news").await;
    let options = Options::consumer("worker", "EXPLICIT");
    let mut here = D::with(&a, "news", Start::Live, &options).await;
    a.publish_numbers("news", 1..=10).await;
    let seen = here.messages(10).await;
    // The same consumer at the other instance takes over, and the first one is told.
    let mut there = D::with(&b, "news", Start::Live, &options).await;
    assert_eq!(here.event().await, Event::Error("CONSUMER_TAKEN_OVER".to_owned()));
    assert_eq!(there.messages(10).await, seen);
    // Moved at the one, while the other one delivers: it goes on from there.
    a.post("/topics/news/consumers/worker/seek", &json!({"last": 4})).await.expect(200);
    assert_eq!(there.messages(4).await, seen[6..]);
    b.post("/topics/news/consumers/worker/seek", &json!({"after": seen[0].cursor})).await.expect(200);
    assert_eq!(there.messages(9).await, seen[1..]);
    for client in [&a, &b] {
        let listed = client.get("/topics/news/consumers").await.expect(200);
        assert_eq!(listed["consumers"][0]["positions"][0]["cursor"], seen[0].cursor.as_str());
    }
    // Acknowledged at the one, while the other one delivers.
    a.post("/topics/news/consumers/worker/ack", &json!({"cursor": seen[3].cursor})).await.expect(200);
    there.close().await;
    for client in [&b, &a] {
        let mut door = D::with(client, "news", Start::Live, &options).await;
        assert_eq!(door.messages(6).await, seen[4..]);
        door.close().await;
    }
    // Forgotten here is forgotten there.
    a.delete("/topics/news/consumers/worker").await.expect(200);
    b.delete("/topics/news/consumers/worker").await.expect_error(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_holds_for_all_instances_together() {
    let _alone = alone().await;
    let nats = Nats::single().await;
    let (a, b) = (instance(&nats), instance(&nats));
    a.post("/topics", &json!({"name": "slow", "max_publish_rate": 1})).await.expect(201);
    a.publish("slow", 1.into()).await;
    eventually("the other's message at this instance", || async {
        (!history(&b, "slow").await.is_empty()).then_some(())
    })
    .await;
    // A message a second: two may have passed in a slow machine's time, but never one from each at will.
    let mut passed = 0;
    let begun = tokio::time::Instant::now();
    for number in 0..20 {
        let response = publish(if number % 2 == 0 { &b } else { &a }, "slow", number).await;
        match response.status {
            200 => passed += 1,
            _ => response.expect_error(429, "RATE_LIMITED"),
        }
    }
    assert!(passed <= 2 + 2 * begun.elapsed().as_secs(), "{passed} passed in {:?}", begun.elapsed());
}

/// Everything that is promised while the cluster is away, and afterwards.
async fn an_outage(nats: &Nats, settled: Duration, stop: impl AsyncFnOnce(&Nats), start: impl AsyncFnOnce(&Nats)) {
    let (a, b) = (instance(nats), instance(nats));
    becomes_ready(&a).await;
    becomes_ready(&b).await;
    a.create("news").await;
    for number in 1..=5 {
        publish_in_the_end(&a, "news", number).await;
    }
    let mut first = GraphqlWs::with(&a, "news", Start::Last(5), &Options::default()).await;
    let mut second = Sse::with(&b, "news", Start::Last(5), &Options::default()).await;
    let cursor = first.messages(5).await[2].cursor.clone();
    assert_eq!(numbers(&second.messages(5).await), [1, 2, 3, 4, 5]);
    let mut third = RawWs::with(&b, "news", Start::Live, &Options::consumer("tab", "EXPLICIT")).await;
    stop(nats).await;
    for client in [&a, &b] {
        becomes_unready(client, settled).await;
        // It is alive, history stays readable, from anywhere, and new subscribers are welcome.
        client.get("/health/live").await.expect(200);
        assert_eq!(history(client, "news").await, [1, 2, 3, 4, 5]);
        let mut door = Sse::with(client, "news", Start::After(cursor.clone()), &Options::default()).await;
        assert_eq!(numbers(&door.messages(2).await), [4, 5]);
        // What another instance may have told a client meanwhile is not called wrong.
        let path = format!("/topics/news/messages?after={}", crate::doors::cursor_at(&cursor, 999_999_999));
        client.get(&path).await.expect_error(503, "UNAVAILABLE");
        client.get("/topics/unheard/messages").await.expect_error(503, "UNAVAILABLE");
        // Nothing is stored, and that is said.
        publish(client, "news", 100).await.expect_error(503, "UNAVAILABLE");
        client.post("/topics", &json!({"name": "other"})).await.expect_error(503, "UNAVAILABLE");
        client.delete("/topics/news").await.expect_error(503, "UNAVAILABLE");
        let error =
            client.graphql_error("mutation { publish(topic: \"news\", data: 100) { offset } }", json!({})).await;
        assert_eq!(error["code"], "UNAVAILABLE");
    }
    start(nats).await;
    becomes_ready(&a).await;
    becomes_ready(&b).await;
    let (epoch, _) = cursor.rsplit_once('-').unwrap();
    a.get(&format!("/topics/news/messages?after={epoch}-999999999")).await.expect_error(400, "BAD_REQUEST");
    b.get("/topics/unheard/messages").await.expect_error(404, "TOPIC_NOT_FOUND");
    for number in 6..=10 {
        publish_in_the_end(if number % 2 == 0 { &a } else { &b }, "news", number).await;
    }
    // Whoever was there before goes on, without loss and without a word.
    assert_eq!(numbers(&first.messages(5).await), [6, 7, 8, 9, 10]);
    assert_eq!(numbers(&second.messages(5).await), [6, 7, 8, 9, 10]);
    let seen = third.messages(5).await;
    assert_eq!(numbers(&seen), [6, 7, 8, 9, 10]);
    b.post("/topics/news/consumers/tab/ack", &json!({"cursor": seen[4].cursor})).await.expect(200);
    assert_eq!((history(&a, "news").await, history(&b, "news").await), ((1..=10).collect(), (1..=10).collect()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_and_comes_back() {
    let nats = Nats::single().await;
    an_outage(&nats, Duration::ZERO, async |nats| nats.nodes[0].kill(), async |nats| nats.nodes[0].start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_and_goes_on() {
    let nats = Nats::single().await;
    an_outage(&nats, Duration::ZERO, async |nats| nats.nodes[0].pause().await, async |nats| nats.nodes[0].resume())
        .await;
}

/// Two of three are gone: the third still responds, but may store nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_its_majority() {
    let nats = Nats::cluster().await;
    let stop = async |nats: &Nats| {
        nats.nodes[0].kill();
        nats.nodes[2].kill();
    };
    let start = async |nats: &Nats| {
        nats.nodes[0].start().await;
        nats.nodes[2].start().await;
        nats.healthy().await;
    };
    an_outage(&nats, Duration::from_secs(3), stop, start).await;
}

/// An instance that starts while NATS is away listens, says that it is not ready, and becomes it by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_started_first() {
    let nats = Nats::single().await;
    let other = instance(&nats);
    other.create("news").await;
    other.publish("news", 1.into()).await;
    nats.nodes[0].kill();
    let early = instance(&nats);
    becomes_unready(&early, Duration::ZERO).await;
    early.get("/health/live").await.expect(200);
    publish(&early, "news", 2).await.expect_error(503, "UNAVAILABLE");
    // What it does not know yet, it does not call missing.
    early.get("/topics/news/messages").await.expect_error(503, "UNAVAILABLE");
    nats.nodes[0].start().await;
    becomes_ready(&early).await;
    assert_eq!(history(&early, "news").await, [1]);
    publish_in_the_end(&early, "news", 2).await;
}

/// What the operator is told, in one line, when a start makes no sense.
async fn refused(environment: &[(&str, &str)]) -> String {
    let mut command = command(&[("HOST", "127.0.0.1"), ("PORT", "0"), ("ENGINE", "nats")]);
    let mut child = command.envs(environment.iter().copied()).spawn().unwrap();
    let deadline = tokio::time::Instant::now() + OUTAGE_DEADLINE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if tokio::time::Instant::now() > deadline => {
                let _ = child.kill();
                break None;
            }
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let text = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert_eq!(status.expect(&text).code(), Some(1), "{text}");
    let mut said = text.lines().filter_map(|line| line.strip_prefix("pub-sub: "));
    let line = said.next().unwrap_or_default().to_owned();
    assert_eq!(said.next(), None, "{text}");
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_server_is_refused() {
    let nats = Nats::start(nats::Options { version: nats::TOO_OLD, ..nats::Options::default() }).await;
    let line = refused(&[("NATS_URL", &nats.urls().join(","))]).await;
    assert!(line.contains("2.10.25 is too old") && line.contains("2.10.26 or newer"), "{line}");
}

/// Every way in, by settings alone, and the one line that says that it is barred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_login_and_encryption() {
    let cases = [
        (Auth::User, Tls::Off),
        (Auth::Token, Tls::Off),
        (Auth::Nkey, Tls::Off),
        (Auth::Credentials, Tls::Off),
        (Auth::Open, Tls::Server),
        (Auth::Open, Tls::First),
        (Auth::User, Tls::Mutual),
    ];
    for (auth, tls) in cases {
        let nats = Nats::start(nats::Options { auth, tls, ..nats::Options::default() }).await;
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        // Secrets may stand in files.
        let secret = |text: &str| {
            let path = directory.path().join("secret");
            std::fs::write(&path, format!("{text}\n")).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let mut right: Vec<(&str, String)> = vec![("NATS_URL", nats.urls().join(","))];
        match &nats.login {
            Login::Open => {}
            Login::User { user, password } => {
                right.extend([("NATS_USER", user.clone()), ("NATS_PASSWORD_FILE", secret(password))]);
            }
            Login::Token(token) => right.push(("NATS_TOKEN", token.clone())),
            Login::Nkey { seed } => right.push(("NATS_NKEY_FILE", secret(seed))),
            Login::Credentials(path) => right.push(("NATS_CREDENTIALS", path.to_str().unwrap().to_owned())),
        }
        let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        if let Some(files) = &nats.certificates {
            right.push(("NATS_TLS_CA", path(&files.authority)));
            right.push(("NATS_TLS", if tls == Tls::First { "first" } else { "on" }.to_owned()));
            if tls == Tls::Mutual {
                right.push(("NATS_TLS_CERT", path(&files.client)));
                right.push(("NATS_TLS_KEY", path(&files.client_key)));
            }
        }
        let environment: Vec<(&str, &str)> = right.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut process =
            Process::start(&[&[("ENGINE", "nats"), ("MAX_PUBLISH_RATE", "0")][..], &environment].concat());
        becomes_ready(&process.client).await;
        process.client.create("news").await;
        process.client.publish("news", 1.into()).await;
        assert_eq!(history(&process.client, "news").await, [1]);
        process.signal("TERM");
        assert!(process.ended().await.success());
        // Nothing secret was said.
        for (name, value) in &environment {
            let is_secret = matches!(*name, "NATS_TOKEN");
            assert!(!is_secret || !process.log().iter().any(|line| line.contains(value)), "{:?}", process.log());
        }
        // A client that leaves something out is refused. A server that waits for a TLS handshake says nothing before it.
        if tls != Tls::First {
            let line = refused(&environment[..1]).await;
            assert!(line.starts_with("NATS_URL: "), "{line}");
        }
    }
}
