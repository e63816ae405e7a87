//! `pub-sub sub --consumer`: positions that the server keeps.

use super::{Restartable, in_memory, printed, run, start};

/// What was printed was acknowledged, whatever ended the command, and nothing else was.
#[tokio::test(flavor = "multi_thread")]
async fn each_run_goes_on_where_the_last_one_ended() {
    let server = in_memory(|_| {});
    server.publish_numbers("news", 1..=1_000).await;
    for ack in ["auto", "explicit"] {
        let arguments = |count| ["sub", "news", "--last", "1000", "--consumer", ack, "--ack", ack, "--count", count];
        let mut expected = 1;
        for count in ["1", "5", "300", "7"] {
            let lines = printed(&run(server.addr, &arguments(count)).await);
            let numbers: Vec<u64> = lines.lines().map(|line| line.parse().unwrap()).collect();
            let next = expected + count.parse::<u64>().unwrap();
            assert_eq!(numbers, (expected..next).collect::<Vec<_>>(), "{ack}");
            expected = next;
        }
    }
}

/// A signal ends it in good order, in both ways to acknowledge.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_acknowledges_what_was_printed() {
    let server = in_memory(|_| {});
    server.publish_numbers("news", 1..=3).await;
    for (ack, signal) in [("auto", "INT"), ("explicit", "TERM")] {
        let arguments = ["sub", "news", "--last", "3", "--consumer", ack, "--ack", ack];
        let mut sub = start(server.addr, &arguments);
        assert_eq!(sub.numbers(3).await, [1, 2, 3]);
        sub.signal(signal);
        assert_eq!(sub.ended().await, (Some(0), Vec::new()), "{:?}", sub.notes());
        let consumers = server.get("/topics/news/consumers").await.expect(200);
        let consumers = consumers["consumers"].as_array().unwrap();
        let consumer = consumers.iter().find(|consumer| consumer["name"] == ack).unwrap();
        assert_eq!(consumer["positions"][0]["offset"], 3, "{consumer}");
    }
}

/// Through a crash of the server, a consumer gets everything, and prints each message once.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_repeats_nothing() {
    let mut server = Restartable::durable();
    for ack in ["auto", "explicit"] {
        let topic = format!("news-{ack}");
        let mut sub = start(server.addr(), &["sub", &topic, "--consumer", "c", "--ack", ack]);
        server.client().wait_for_subscribers(&topic, 1).await;
        server.client().publish_numbers(&topic, 1..=100).await;
        assert_eq!(sub.numbers(100).await, (1..=100).collect::<Vec<_>>());
        server.kill().await;
        sub.noted("trying again").await;
        server.start_again();
        server.client().publish_numbers(&topic, 101..=200).await;
        assert_eq!(sub.numbers(100).await, (101..=200).collect::<Vec<_>>(), "{ack}");
        sub.signal("INT");
        assert_eq!(sub.ended().await, (Some(0), Vec::new()), "{ack}: {:?}", sub.notes());
        assert!(sub.notes().iter().all(|note| !note.contains("missed")), "{:?}", sub.notes());
    }
}

/// A server without a durable engine has forgotten the consumer: it is told what it had read, and says what is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_a_consumer_is_told() {
    let mut server = Restartable::forgetful();
    let mut sub = start(server.addr(), &["sub", "news", "--consumer", "c", "--ack", "explicit"]);
    server.client().wait_for_subscribers("news", 1).await;
    server.client().publish_numbers("news", 1..=3).await;
    assert_eq!(sub.numbers(3).await, [1, 2, 3]);
    server.kill().await;
    sub.noted("trying again").await;
    server.start_again();
    server.client().publish_numbers("news", 4..=5).await;
    assert_eq!(sub.numbers(2).await, [4, 5]);
    sub.noted("(NEW_EPOCH)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_run_takes_over() {
    let server = in_memory(|_| {});
    let mut older = start(server.addr, &["sub", "news", "--consumer", "c"]);
    server.wait_for_subscribers("news", 1).await;
    let mut newer = start(server.addr, &["sub", "news", "--consumer", "c"]);
    let (code, _) = older.ended().await;
    assert_eq!(code, Some(1));
    older.noted("(CONSUMER_TAKEN_OVER)").await;
    server.publish("news", 1.into()).await;
    assert_eq!(newer.line().await, "1");
}

/// A consumer of a pattern acknowledges each topic.
#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_is_acknowledged_in_every_topic() {
    let server = in_memory(|_| {});
    for topic in ["orders.a", "orders.b", "orders.c"] {
        server.publish_numbers(topic, 1..=2).await;
    }
    let arguments = ["sub", "orders.*", "--last", "2", "--consumer", "c", "--ack", "explicit"];
    let first = printed(&run(server.addr, &[&arguments[..], &["--count", "6"]].concat()).await);
    assert_eq!(first.lines().count(), 6);
    server.publish("orders.b", 3.into()).await;
    let second = printed(&run(server.addr, &[&arguments[..], &["--timeout", "3s"]].concat()).await);
    assert_eq!(second, "3\n");
}
