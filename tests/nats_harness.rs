//! The harness of the clustered engine's tests, proven: NATS servers that are hurt heal within their deadlines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by failing there, its helpers too")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "deadlines here are of the real clock, and tasks end with the test"
)]
#![allow(clippy::pedantic, reason = "tests are written to be read, not to be used")]
#![allow(dead_code, reason = "other tests use more of it")]

#[path = "support/nats.rs"]
mod nats;

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use async_nats::jetstream::{self, stream};
use nats::{Auth, DEADLINE, Nats, OLDEST, Options, TOO_OLD, Tls};

async fn create(jetstream: &jetstream::Context, replicas: usize) -> stream::Stream {
    let config =
        stream::Config { name: "S".into(), subjects: vec!["s.>".into()], num_replicas: replicas, ..Default::default() };
    jetstream.create_stream(config).await.unwrap()
}

/// Publishes until it is acknowledged, and returns the sequence. What was not acknowledged may have been stored, too.
async fn publish(jetstream: &jetstream::Context) -> u64 {
    let tried = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Ok(ack) = jetstream.publish("s.a", "x".into()).await
                && let Ok(ack) = ack.await
            {
                return ack.sequence;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tried.await.unwrap()
}

async fn context(nats: &Nats) -> jetstream::Context {
    let mut jetstream = jetstream::new(nats.connect().await);
    jetstream.set_timeout(Duration::from_secs(1));
    jetstream
}

#[tokio::test]
async fn one_server_keeps_its_store_over_kill_pause_and_stop() {
    let nats = Nats::single().await;
    let jetstream = context(&nats).await;
    let stream = create(&jetstream, 1).await;
    assert_eq!(publish(&jetstream).await, 1);
    assert_eq!(nats.leader("S").await, 0);

    nats.nodes[0].kill();
    nats.nodes[0].start().await;
    nats.ready().await;
    assert!(publish(&jetstream).await >= 2);

    nats.nodes[0].pause().await;
    let waiting = jetstream.publish("s.a", "x".into()).await.unwrap();
    assert!(waiting.await.is_err());
    nats.nodes[0].resume();
    nats.healthy().await;
    // What could not be acknowledged was stored all the same.
    assert!(publish(&jetstream).await >= 4);

    nats.nodes[0].stop().await;
    nats.nodes[0].start().await;
    nats.ready().await;
    let last = publish(&jetstream).await;
    assert!(last >= 5);
    assert_eq!(stream.get_info().await.unwrap().state.messages, last);
    assert!(nats.nodes[0].log().contains("Server is ready"));
}

#[tokio::test]
async fn a_cluster_outlives_its_leader() {
    outlives_its_leader(Nats::cluster().await).await;
}

#[tokio::test]
async fn an_old_cluster_outlives_its_leader() {
    outlives_its_leader(Nats::start(Options { version: OLDEST, nodes: 3, ..Options::default() }).await).await;
}

async fn outlives_its_leader(nats: Nats) {
    let jetstream = context(&nats).await;
    let stream = create(&jetstream, 3).await;
    publish(&jetstream).await;
    let first = nats.leader("S").await;
    nats.nodes[first].kill();
    let sequence = publish(&jetstream).await;
    let second = nats.leader("S").await;
    assert_ne!(first, second);

    nats.nodes[first].start().await;
    nats.ready().await;
    assert!(publish(&jetstream).await > sequence);
    nats.healthy().await;
    let info = stream.get_info().await.unwrap();
    let replicas = info.cluster.unwrap().replicas;
    assert_eq!((replicas.len(), replicas.iter().all(|replica| replica.current)), (2, true), "{replicas:?}");
}

#[tokio::test]
async fn clients_are_let_in_as_configured() {
    for (auth, tls) in
        [(Auth::User, Tls::Off), (Auth::Token, Tls::Server), (Auth::Nkey, Tls::First), (Auth::Credentials, Tls::Mutual)]
    {
        let nats = Nats::start(Options { auth, tls, ..Options::default() }).await;
        create(&context(&nats).await, 1).await;
        assert!(async_nats::connect(nats.urls()).await.is_err());
    }
}

#[tokio::test]
async fn every_version_starts() {
    for version in [TOO_OLD, OLDEST, "2.11.11"] {
        let nats = Nats::start(Options { version, ..Options::default() }).await;
        assert_eq!(nats.connect().await.server_info().version, version);
    }
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let nats = Nats::single().await;
    let process = process(nats.nodes[0].pid().unwrap());
    assert!(process.exists());
    drop(nats);
    assert!(!process.exists());
}

/// The other half of the next test.
#[tokio::test]
#[ignore = "it is the next test's to start and to kill"]
async fn to_be_killed() {
    let nats = Nats::single().await;
    println!("server={}", nats.nodes[0].pid().unwrap());
    tokio::time::sleep(DEADLINE).await;
}

#[tokio::test]
async fn nothing_is_left_behind_by_a_killed_process() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "to_be_killed", "--ignored", "--nocapture"]).stdout(Stdio::piped());
    let mut killed = command.spawn().unwrap();
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines().map_while(Result::ok);
    let server = lines.find_map(|line| line.split_once("server=")?.1.parse().ok()).unwrap();
    assert!(process(server).exists());
    killed.kill().unwrap();
    killed.wait().unwrap();
    let ended = tokio::time::timeout(DEADLINE, async {
        while process(server).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    ended.await.unwrap();
}

fn process(id: u32) -> PathBuf {
    format!("/proc/{id}").into()
}
