//! The NATS engine: two instances through the one suite, on a single server and on a cluster.

use std::{sync::Arc, time::Duration};

use pub_sub::{
    channel::{Channel, MessageId, NewMessage, Payload, Publication, TopicConfig, TopicName},
    engine::{
        Nats,
        conformance::{Instance, restarts, suite},
        nats::Settings,
    },
};

use crate::{harness::eventually, nats};

fn settings(servers: &nats::Nats) -> Settings {
    Settings { url: servers.urls().join(","), ..Settings::default() }
}

async fn instance(settings: &Settings) -> Result<Instance, String> {
    Instance::open(Arc::new(Nats::new(settings.clone()))).await
}

async fn two_instances(servers: nats::Nats) {
    let settings = settings(&servers);
    let (a, b) = (instance(&settings).await.unwrap(), instance(&settings).await.unwrap());
    if let Err(failure) = suite(&a, &b).await {
        panic!("{failure}");
    }
    b.engine.close().await;
    a.engine.close().await;
    if let Err(failure) = restarts(|| instance(&settings)).await {
        panic!("{failure}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_on_one_server() {
    two_instances(nats::Nats::single().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_on_the_oldest_server() {
    two_instances(nats::Nats::start(nats::Options { version: nats::OLDEST, ..nats::Options::default() }).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_on_a_cluster() {
    two_instances(nats::Nats::cluster().await).await;
}

/// A topic that keeps two messages, as each of the instances has it.
async fn short_topic<const N: usize>(instances: [&Instance; N]) -> [Arc<Channel>; N] {
    let name = TopicName::parse("short").unwrap();
    instances[0].engine.create(&name, TopicConfig::keeping(2), false).await.unwrap();
    found(&name, instances).await
}

async fn found<const N: usize>(name: &TopicName, instances: [&Instance; N]) -> [Arc<Channel>; N] {
    let mut channels = Vec::new();
    for instance in instances {
        channels.push(eventually("topic", || async { instance.registry.find(name) }).await);
    }
    channels.try_into().unwrap_or_else(|_| panic!("a channel for each"))
}

async fn append(instance: &Instance, channel: &Arc<Channel>, id: Option<&str>) -> Publication {
    let id = id.map(|id| MessageId::parse(id).unwrap());
    let data = Payload::parse("1", 10).unwrap();
    let new_message =
        NewMessage { data, id, key: None, expected_offset: None, origin: None, ttl: None, expected_key_offset: None };
    instance.engine.append(channel, new_message).await.unwrap()
}

#[track_caller]
fn assert_same(again: &Publication, first: &Publication) {
    assert!(again.duplicate && !first.duplicate, "{again:?} after {first:?}");
    assert_eq!((&again.id, again.cursor), (&first.id, first.cursor));
}

/// An id is known for its time, however short the history is, on instances that have never seen its message, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_outlives_its_message() {
    let servers = nats::Nats::single().await;
    let settings = settings(&servers);
    let (a, b) = (instance(&settings).await.unwrap(), instance(&settings).await.unwrap());
    let [here, there] = short_topic([&a, &b]).await;
    let first = append(&a, &here, Some("once")).await;
    for _ in 0..5 {
        append(&b, &there, None).await;
    }
    // It has left the history, but the stream has it.
    for (instance, channel) in [(&a, &here), (&b, &there)] {
        let again = append(instance, channel, Some("once")).await;
        assert_same(&again, &first);
        assert_eq!(again.published_at, first.published_at);
    }
    // And then it has left the stream, too.
    for _ in 0..12 {
        let mut begun = Vec::new();
        for _ in 0..100 {
            let data = Payload::parse("1", 10).unwrap();
            let new_message = NewMessage {
                data,
                id: None,
                key: None,
                expected_offset: None,
                origin: None,
                ttl: None,
                expected_key_offset: None,
            };
            begun.push(a.engine.append(&here, new_message));
        }
        for append in begun {
            append.await.unwrap();
        }
    }
    let c = instance(&settings).await.unwrap();
    let [fresh] = found(here.name(), [&c]).await;
    for (instance, channel) in [(&a, &here), (&b, &there), (&c, &fresh)] {
        let again = append(instance, channel, Some("once")).await;
        assert_same(&again, &first);
        let later = again.published_at.0 - first.published_at.0;
        assert!((0..10_000).contains(&later), "published {later} ms later");
    }
}

/// Who was told that a message is perhaps stored repeats it with the id that was told, whoever has made that up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_was_made_up_is_known_when_it_comes_back() {
    let servers = nats::Nats::single().await;
    let settings = settings(&servers);
    let (a, b) = (instance(&settings).await.unwrap(), instance(&settings).await.unwrap());
    let [here, there] = short_topic([&a, &b]).await;
    let first = append(&a, &here, None).await;
    for (instance, channel) in [(&b, &there), (&a, &here)] {
        assert_same(&append(instance, channel, Some(first.id.as_str())).await, &first);
    }
    assert_eq!(here.last(), first.cursor.offset);
}

/// The setting is the streams'; one that is there already gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_know_ids_for_as_long_as_is_set() {
    let servers = nats::Nats::single().await;
    let jetstream = async_nats::jetstream::new(servers.connect().await);
    let window = async || {
        let stream = jetstream.get_stream("pubsub_1000").await.unwrap();
        stream.cached_info().config.duplicate_window
    };
    let first = instance(&settings(&servers)).await.unwrap();
    assert_eq!(window().await, Duration::from_mins(5));
    let [channel] = short_topic([&first]).await;
    let told = append(&first, &channel, Some("once")).await;
    first.engine.close().await;
    let second = Nats::new(Settings { dedup_window: Duration::from_mins(7), ..settings(&servers) });
    let second = Instance::open(Arc::new(second)).await.unwrap();
    assert_eq!(window().await, Duration::from_mins(7));
    let [channel] = found(channel.name(), [&second]).await;
    assert_same(&append(&second, &channel, Some("once")).await, &told);
    second.engine.close().await;
    // What is shorter than publishes are tried for would store them twice.
    let third = Nats::new(Settings { dedup_window: Duration::ZERO, ..settings(&servers) });
    let third = Instance::open(Arc::new(third)).await.unwrap();
    assert_eq!(window().await, Duration::from_mins(1));
    third.engine.close().await;
}

/// When its time is over an id is known as long as its message is kept, on every instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_message_keeps_its_id() {
    let servers = nats::Nats::single().await;
    let settings = settings(&servers);
    let (a, b) = (instance(&settings).await.unwrap(), instance(&settings).await.unwrap());
    let jetstream = async_nats::jetstream::new(servers.connect().await);
    let mut config = jetstream.get_stream("pubsub_1000").await.unwrap().cached_info().config.clone();
    config.duplicate_window = Duration::from_millis(100);
    jetstream.update_stream(config).await.unwrap();
    let [here, there] = short_topic([&a, &b]).await;
    let first = append(&a, &here, Some("once")).await;
    // Until NATS has forgotten a later one.
    let probe = async || {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "probe");
        let sent = jetstream.publish_with_headers("pubsub.t.1000.probe", headers, "0".into()).await.unwrap();
        sent.await.unwrap().duplicate
    };
    assert!(!probe().await);
    eventually("a forgotten id", || async { (!probe().await).then_some(()) }).await;
    let c = instance(&settings).await.unwrap();
    let [fresh] = found(here.name(), [&c]).await;
    for (instance, channel) in [(&a, &here), (&b, &there), (&c, &fresh)] {
        let again = append(instance, channel, Some("once")).await;
        assert_same(&again, &first);
        assert_eq!(again.published_at, first.published_at);
    }
    append(&a, &here, None).await;
    let last = append(&a, &here, None).await.cursor.offset;
    eventually("the other's messages", || async { (there.last() >= last).then_some(()) }).await;
    // The message is gone, and the cluster has forgotten its id; this instance still remembers it for the whole window.
    let late = append(&b, &there, Some("once")).await;
    assert_same(&late, &first);
}
