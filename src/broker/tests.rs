//! What the broker does: publishing, subscribing, patterns, limits.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::prelude::*;
use tokio_util::task::TaskTracker;

use super::{
    TopicEventKind::{Created, Deleted, Updated},
    *,
};

fn broker(max_messages: usize) -> Broker {
    Broker::in_memory(Settings { max_messages_per_topic: max_messages, max_publish_rate: 0, ..Settings::default() })
}

/// The answer of an engine that has it at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("memory has its answers at once"),
    }
}

fn name(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

fn new_message(data: impl std::fmt::Display) -> NewMessage {
    NewMessage::of(Payload::parse(&data.to_string(), 1_000).unwrap())
}

fn keyed(data: u64, key: &str) -> NewMessage {
    NewMessage { key: Some(Key::parse(key).unwrap()), ..new_message(data) }
}

fn to(source: &str) -> Subscribe {
    Subscribe::to(Source::parse(source).unwrap())
}

fn drain(subscription: &mut Subscription) -> (Vec<Event>, Progress) {
    let mut events = Vec::new();
    loop {
        let progress = subscription.read(BatchLimit::messages(7), &mut events);
        if progress != Progress::More {
            return (events, progress);
        }
    }
}

/// What a stream says, with offsets only: messages, and gaps.
fn offsets(events: &[Event]) -> Vec<(u64, u64)> {
    events
        .iter()
        .map(|event| match event {
            Event::Message(message, _) => (message.cursor.offset, message.cursor.offset),
            Event::Gap(gap) => {
                assert_eq!(gap.missed, Some(gap.to_offset + 1 - gap.from_offset));
                (gap.from_offset, gap.to_offset)
            }
            Event::Deleted { .. } | Event::StateComplete(_) => (0, 0),
        })
        .collect()
}

/// Messages and announced gaps cover the offsets from the first on without overlap.
fn assert_tiles(events: &[Event], first: u64, last: u64) {
    let mut next = first;
    for (from, to) in offsets(events) {
        assert_eq!(from, next, "{events:?}");
        next = to + 1;
    }
    assert_eq!(next, last + 1, "{events:?}");
}

/// Several publishers and readers over a small ring: nothing stalls, vanishes or doubles.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once() {
    const PUBLISHERS: u64 = 4;
    const EACH: u64 = 5_000;
    let broker = broker(50);
    now(broker.create_topic(&name("busy.one"), TopicConfig::default())).unwrap();
    let tasks = TaskTracker::new();
    for source in ["busy.one", "busy.one", "busy.*", ">"] {
        let broker = broker.clone();
        let inbox = Inbox::default();
        let mut subscription = now(broker.subscribe(to(source), &inbox, 9)).unwrap();
        tasks.spawn(async move {
            let mut events = Vec::new();
            loop {
                assert_eq!(inbox.next().await, 9);
                subscription.read(BatchLimit::messages(13), &mut events);
                if events.last().is_some_and(
                    |event| matches!(event, Event::Message(message, _) if message.cursor.offset == PUBLISHERS * EACH),
                ) {
                    break;
                }
            }
            assert_tiles(&events, 1, PUBLISHERS * EACH);
        });
    }
    for publisher in 0..PUBLISHERS {
        let broker = broker.clone();
        tasks.spawn(async move {
            for number in 0..EACH {
                now(broker.publish(&name("busy.one"), new_message(publisher * EACH + number))).unwrap();
                if number % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    tasks.close();
    tokio::time::timeout(Duration::from_secs(60), tasks.wait()).await.expect("a reader stalled");
    assert_eq!(broker.totals().subscriptions, 0);
}

#[test]
fn starts_in_the_past_say_what_is_gone() {
    let broker = broker(10);
    let topic = name("t");
    let first = now(broker.publish(&topic, new_message(1))).unwrap();
    for number in 2..=30 {
        now(broker.publish(&topic, new_message(number))).unwrap();
    }
    let read = |start| {
        let request = Subscribe { start: Some(start), ..to("t") };
        drain(&mut now(broker.subscribe(request, &Inbox::default(), 0)).unwrap()).0
    };
    let events = read(Start::After(first.cursor));
    assert_tiles(&events, 2, 30);
    assert!(matches!(&events[0], Event::Gap(gap) if gap.missed == Some(19) && gap.reason == GapReason::Expired));
    let events = read(Start::Since(Timestamp(0)));
    assert_tiles(&events, 1, 30);
    assert!(read(Start::Since(Timestamp(i64::MAX))).is_empty());
    let events = read(Start::After(Cursor { epoch: Epoch::random(), offset: 7 }));
    assert!(matches!(&events[0], Event::Gap(gap) if gap.missed == Some(20) && gap.reason == GapReason::NewEpoch));
    assert_tiles(&events, 1, 30);
}

#[test]
fn a_new_epoch_without_loss_is_told_too() {
    let broker = broker(10);
    let before = now(broker.publish(&name("t"), new_message(1))).unwrap().cursor;
    now(broker.delete_topic(&name("t"))).unwrap();
    let request = Subscribe { start: Some(Start::After(before)), ..to("t") };
    let mut subscription = now(broker.subscribe(request, &Inbox::default(), 0)).unwrap();
    let (events, _) = drain(&mut subscription);
    let [Event::Gap(gap)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((gap.missed, gap.from_offset, gap.to_offset), (Some(0), 1, 0));
}

#[test]
fn ids_and_conditions() {
    let broker = broker(3);
    let topic = name("t");
    let with_id = |id: &str| NewMessage { id: Some(MessageId::parse(id).unwrap()), ..new_message(1) };
    let first = now(broker.publish(&topic, with_id("a"))).unwrap();
    let again = now(broker.publish(&topic, with_id("a"))).unwrap();
    assert!(again.duplicate && again.cursor == first.cursor && !first.duplicate);
    let expecting = |offset| NewMessage { expected_offset: Some(offset), ..new_message(2) };
    assert_eq!(now(broker.publish(&topic, expecting(0))).unwrap_err(), Error::Conflict { current: 1 });
    assert_eq!(now(broker.publish(&topic, expecting(1))).unwrap().cursor.offset, 2);
    now(broker.publish(&topic, new_message(3))).unwrap();
    now(broker.publish(&topic, new_message(4))).unwrap();
    // The message has left the history; its id is remembered for the window, with the first one's position.
    let late = now(broker.publish(&topic, with_id("a"))).unwrap();
    assert!(late.duplicate && late.cursor == first.cursor && late.published_at == first.published_at);
    assert_eq!(now(broker.topic(&topic)).unwrap().last_offset, 4);
    // Ids belong to one incarnation of a topic.
    now(broker.delete_topic(&topic)).unwrap();
    assert!(!now(broker.publish(&topic, with_id("a"))).unwrap().duplicate);
}

#[test]
fn without_a_window_an_id_goes_with_its_message() {
    let settings = Settings { dedup_window: Duration::ZERO, max_messages_per_topic: 2, ..Settings::default() };
    let broker = Broker::in_memory(settings);
    let topic = name("t");
    let with_id = |id: &str| NewMessage { id: Some(MessageId::parse(id).unwrap()), ..new_message(1) };
    now(broker.publish(&topic, with_id("a"))).unwrap();
    now(broker.publish(&topic, with_id("b"))).unwrap();
    assert!(now(broker.publish(&topic, with_id("a"))).unwrap().duplicate);
    now(broker.publish(&topic, with_id("c"))).unwrap();
    assert!(!now(broker.publish(&topic, with_id("a"))).unwrap().duplicate);
}

#[test]
fn implicit_topics_come_and_go() {
    let broker = broker(10);
    let subscription = now(broker.subscribe(to("t"), &Inbox::default(), 0)).unwrap();
    assert!(now(broker.topic(&name("t"))).unwrap().implicit);
    drop(subscription);
    assert_eq!(now(broker.topic(&name("t"))).unwrap_err(), Error::TopicNotFound("t".to_owned()));
    now(broker.publish(&name("t"), new_message(1))).unwrap();
    now(broker.create_topic(&name("t"), TopicConfig::default())).unwrap();
    assert_eq!(
        now(broker.create_topic(&name("t"), TopicConfig::default())).unwrap_err(),
        Error::TopicExists(name("t"))
    );
    assert!(!now(broker.topic(&name("t"))).unwrap().implicit);
}

#[test]
fn bounds_refuse_or_evict() {
    let settings = Settings {
        max_topics: 3,
        max_publish_rate: 0,
        max_bytes_per_topic: 4_000,
        max_history_bytes: 6_000,
        ..Settings::default()
    };
    let broker = Broker::in_memory(settings);
    let big = || new_message(format!("\"{}\"", "x".repeat(900)));
    for _ in 0..20 {
        now(broker.publish(&name("a"), big())).unwrap();
    }
    assert!(now(broker.topic(&name("a"))).unwrap().messages < 4, "the topic's own bytes");
    for _ in 0..20 {
        now(broker.publish(&name("b"), big())).unwrap();
    }
    assert!(broker.totals().history_bytes <= 6_000, "all bytes");
    now(broker.create_topic(&name("c"), TopicConfig::default())).unwrap();
    let refused = now(broker.create_topic(&name("d"), TopicConfig::default())).unwrap_err();
    assert!(matches!(refused, Error::LimitReached { limit: 3, .. }), "{refused}");
    now(broker.delete_topic(&name("a"))).unwrap();
    now(broker.create_topic(&name("d"), TopicConfig::default())).unwrap();
}

#[test]
fn patterns_read_all_topics_in_one_order() {
    let broker = broker(100);
    now(broker.publish(&name("orders.eu"), new_message(0))).unwrap();
    let mut subscription = now(broker.subscribe(to("orders.*"), &Inbox::default(), 0)).unwrap();
    for number in 0..90 {
        now(broker.publish(&name("orders.eu"), new_message(number))).unwrap();
    }
    now(broker.publish(&name("orders.us"), new_message(7))).unwrap();
    now(broker.publish(&name("orders.us.ny"), new_message(8))).unwrap();
    let mut events = Vec::new();
    assert_eq!(subscription.read(BatchLimit::messages(32), &mut events), Progress::More);
    events.extend(drain(&mut subscription).0);
    // The order in which they were published, over all topics: so one number says how far all of them were read.
    let sequences: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Message(message, Some(position)) => {
                assert_eq!(position.logs[0].sequence, message.sequence);
                message.sequence
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(sequences.is_sorted() && sequences.len() == 91);
    let eu: Vec<_> = events
        .iter()
        .filter(|event| matches!(event, Event::Message(message, _) if message.topic == name("orders.eu")))
        .cloned()
        .collect();
    assert_tiles(&eu, 2, 91);
    assert_eq!(events.len(), 91);
    now(broker.delete_topic(&name("orders.us"))).unwrap();
    let (events, progress) = drain(&mut subscription);
    assert!(matches!(&events[..], [Event::Deleted { topic, .. }] if *topic == name("orders.us")));
    assert_eq!(progress, Progress::CaughtUp);
}

/// An event costs a connection one turn, however many subscriptions it has.
#[test]
fn turns_do_not_grow_with_subscriptions() {
    let broker = broker(10);
    let inbox = Inbox::default();
    let mut subscriptions: Vec<_> =
        (0..1_000).map(|key| now(broker.subscribe(to(&format!("t{key}")), &inbox, key)).unwrap()).collect();
    while let Some(key) = inbox.try_next() {
        drain(&mut subscriptions[usize::try_from(key).unwrap()]);
    }
    for key in [7, 999, 7] {
        now(broker.publish(&name(&format!("t{key}")), new_message(key))).unwrap();
        assert_eq!((inbox.try_next(), inbox.try_next()), (Some(key), None));
        assert_eq!(drain(&mut subscriptions[usize::try_from(key).unwrap()]).0.len(), 1);
    }
}

/// Publishing does no matching, however many topics and patterns there are.
#[test]
fn matching_does_not_grow() {
    let broker = Broker::in_memory(Settings { max_publish_rate: 0, ..Settings::default() });
    let inbox = Inbox::default();
    let patterns: Vec<_> = (0..10_000)
        .map(|number| now(broker.subscribe(to(&format!("a{number}.*.x")), &inbox, number)).unwrap())
        .collect();
    for number in 0..100_000 {
        now(broker.create_topic(&name(&format!("a{}.{number}.x", number % 10_000)), TopicConfig::default())).unwrap();
    }
    let steps = |publishes: u64| {
        let before = broker.0.registry.pattern_steps();
        for number in 0..publishes {
            now(broker.publish(&name("a7.7.x"), new_message(number))).unwrap();
        }
        broker.0.registry.pattern_steps() - before
    };
    assert!(steps(1) <= 8, "one walk along the name's segments");
    assert_eq!(steps(1_000), 0, "then none");
    drop(patterns);
    assert_eq!(broker.0.registry.pattern_count(), 0);
}

#[test]
fn overflow_is_the_subscribers_choice() {
    let broker = broker(100);
    let choose = |overflow| {
        let request = Subscribe { overflow, ..to("t") };
        let mut subscription = now(broker.subscribe(request, &Inbox::default(), 0)).unwrap();
        drain(&mut subscription);
        subscription
    };
    let mut latest = choose(Overflow::Latest);
    let mut per_key = choose(Overflow::LatestPerKey);
    let mut disconnect = choose(Overflow::Disconnect);
    for number in 1..=99 {
        now(broker.publish(&name("t"), keyed(number, if number % 2 == 0 { "even" } else { "odd" }))).unwrap();
    }
    let (events, _) = drain(&mut latest);
    assert_eq!(offsets(&events), [(1, 98), (99, 99)]);
    let (events, _) = drain(&mut per_key);
    assert_eq!(offsets(&events), [(1, 97), (98, 98), (99, 99)]);
    now(broker.publish(&name("t"), new_message(100))).unwrap();
    now(broker.publish(&name("t"), new_message(101))).unwrap();
    let (events, progress) = drain(&mut disconnect);
    assert!(events.is_empty());
    assert_eq!(progress, Progress::Ended(Error::SlowConsumer));
}

#[test]
fn filters_pass_and_do_not_count_as_missed() {
    let broker = broker(10);
    let filter = Filter::parse(r#"{"field":"n","gte":5}"#, &FilterLimits::default()).unwrap();
    let request = Subscribe { filter: Some(filter), ..to("t") };
    let mut subscription = now(broker.subscribe(request, &Inbox::default(), 0)).unwrap();
    for number in 1..=8 {
        now(broker.publish(&name("t"), new_message(format!("{{\"n\":{number}}}")))).unwrap();
    }
    let (events, _) = drain(&mut subscription);
    assert_eq!(offsets(&events), [(5, 5), (6, 6), (7, 7), (8, 8)]);
}

mod access;
mod consumers;
mod ending;
mod random;
mod resume;
mod state;

#[test]
fn renderings_and_verdicts_are_made_once() {
    let broker = broker(100);
    let inbox = Inbox::default();
    let filter = Filter::parse(r#"{"field":"$key","eq":"k"}"#, &FilterLimits::default()).unwrap();
    let mut subscriptions: Vec<_> = (0..50)
        .map(|key| {
            let request = Subscribe { filter: Some(filter.clone()), ..to("t") };
            now(broker.subscribe(request, &inbox, key)).unwrap()
        })
        .collect();
    now(broker.publish(&name("t"), keyed(1, "k"))).unwrap();
    let mut made = 0;
    for subscription in &mut subscriptions {
        let (events, _) = drain(subscription);
        let [Event::Message(message, _)] = &events[..] else { panic!("{events:?}") };
        message.rendering(ShapeId(1), |_| {
            made += 1;
            bytes::Bytes::from_static(b"x")
        });
    }
    assert_eq!(made, 1);
}

#[test]
fn events_of_topics_are_a_stream() {
    let broker = broker(10);
    let mut all =
        broker.subscribe_events(&Principal::anyone(), ClientInfo::NONE, None, (&Inbox::default(), 0)).unwrap();
    let about = Some(Pattern::parse("a.*").unwrap());
    let mut some =
        broker.subscribe_events(&Principal::anyone(), ClientInfo::NONE, about, (&Inbox::default(), 0)).unwrap();
    now(broker.create_topic(&name("a.1"), TopicConfig::default())).unwrap();
    now(broker.publish(&name("b"), new_message(1))).unwrap();
    now(broker.update_topic(&name("a.1"), TopicConfig { max_messages: Some(5), ..TopicConfig::default() })).unwrap();
    now(broker.delete_topic(&name("a.1"))).unwrap();
    let kinds = |subscription: &mut Subscription| -> VecDeque<(String, TopicEventKind)> {
        let of = |message: &Arc<Message>| {
            (message.key.as_ref().unwrap().as_str().to_owned(), TopicEventKind::of(message).unwrap())
        };
        let (events, _) = drain(subscription);
        events
            .iter()
            .filter_map(|event| if let Event::Message(message, _) = event { Some(of(message)) } else { None })
            .collect()
    };
    let a = |kind| ("a.1".to_owned(), kind);
    assert_eq!(kinds(&mut all), [a(Created), ("b".to_owned(), Created), a(Updated), a(Deleted)]);
    assert_eq!(kinds(&mut some), [a(Created), a(Updated), a(Deleted)]);
}

#[test]
fn going_refuses_new_work_only() {
    let broker = broker(10);
    let mut subscription = now(broker.subscribe(to("t"), &Inbox::default(), 0)).unwrap();
    now(broker.publish(&name("t"), new_message(1))).unwrap();
    broker.drain();
    assert!(matches!(now(broker.publish(&name("t"), new_message(2))), Err(Error::Unavailable(_))));
    assert!(matches!(now(broker.subscribe(to("t"), &Inbox::default(), 0)), Err(Error::Unavailable(_))));
    assert_eq!(drain(&mut subscription).0.len(), 1);
}
