//! The broker against a model: whatever happens in whatever order, every subscriber's stream is the topic's log, in order,
//! each message once, with every hole announced exactly.

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
    NewMessage {
        data: Payload::parse(&data.to_string(), 1_000).unwrap(),
        id: None,
        key: None,
        expected_offset: None,
        origin: None,
        ttl: None,
        expected_key_offset: None,
    }
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
            Event::Deleted { .. } => (0, 0),
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

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Subscribe(usize, Begin),
    Read(usize, usize),
    Unsubscribe(usize),
    Shrink(usize),
    Recreate,
    /// The named consumer subscribes (again); one that is live is taken over.
    Attach,
    /// It reads.
    Consume(usize),
    /// It acknowledges this share of what it has read.
    Acknowledge(u8),
    /// Its connection breaks.
    Detach,
}

#[derive(Clone, Copy, Debug)]
enum Begin {
    Live,
    Last(u32),
    After(u64),
    Oldest,
}

fn step() -> impl Strategy<Value = Step> {
    let begin = prop_oneof![
        Just(Begin::Live),
        (0..30_u32).prop_map(Begin::Last),
        (0..60_u64).prop_map(Begin::After),
        Just(Begin::Oldest)
    ];
    prop_oneof![
        6 => (1..12_u8).prop_map(Step::Publish),
        2 => (0..4_usize, begin).prop_map(|(slot, begin)| Step::Subscribe(slot, begin)),
        4 => (0..4_usize, 1..9_usize).prop_map(|(slot, max)| Step::Read(slot, max)),
        1 => (0..4_usize).prop_map(Step::Unsubscribe),
        1 => (1..12_usize).prop_map(Step::Shrink),
        1 => Just(Step::Recreate),
        2 => Just(Step::Attach),
        3 => (1..9_usize).prop_map(Step::Consume),
        2 => (0..=4_u8).prop_map(Step::Acknowledge),
        1 => Just(Step::Detach),
    ]
}

/// A plain reader: where it stands, and what its stream has said.
struct Model {
    subscription: Subscription,
    first: u64,
    seen: Vec<Event>,
    ended: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn every_stream_is_the_log(steps in prop::collection::vec(step(), 1..80)) {
        let broker = broker(10);
        let topic = name("t");
        now(broker.create_topic(&topic, TopicConfig::default())).unwrap();
        let mut log: Vec<u64> = Vec::new();
        let mut kept = 10_usize;
        // The newest offset that is gone: a larger bound set later does not bring it back.
        let mut floor = 0_usize;
        let mut published = 0_u64;
        let mut readers: [Option<Model>; 4] = Default::default();
        // The named consumer: its live stream, and up to where it has acknowledged.
        let (source, consumer) = (Source::parse("t").unwrap(), ConsumerName::parse("c").unwrap());
        let mut named: Option<Model> = None;
        let mut acknowledged: Option<u64> = None;
        for step in steps {
            match step {
                Step::Publish(count) => for _ in 0..count {
                    published += 1;
                    log.push(published);
                    let done = now(broker.publish(&topic, new_message(published))).unwrap();
                    prop_assert_eq!(done.cursor.offset, log.len() as u64);
                },
                Step::Subscribe(slot, begin) => {
                    let last = log.len() as u64;
                    let oldest = floor as u64;
                    let epoch = now(broker.topic(&topic)).unwrap().epoch;
                    let (start, first) = match begin {
                        Begin::Live => (Start::Live, last + 1),
                        Begin::Oldest => (Start::Oldest, oldest + 1),
                        Begin::Last(count) => (Start::Last(count), last - u64::from(count).min(last - oldest) + 1),
                        Begin::After(offset) => {
                            let offset = offset.min(last);
                            (Start::After(Cursor { epoch, offset }), offset + 1)
                        }
                    };
                    let request = Subscribe { start: Some(start), ..to("t") };
                    let subscription = now(broker.subscribe(request, &Inbox::default(), 0)).unwrap();
                    readers[slot] = Some(Model { subscription, first, seen: Vec::new(), ended: false });
                }
                Step::Read(slot, max) => if let Some(reader) = &mut readers[slot] {
                    let before = reader.seen.len();
                    let progress = reader.subscription.read(BatchLimit::messages(max), &mut reader.seen);
                    let messages = reader.seen[before..].iter().filter(|event| matches!(event, Event::Message(_, _)));
                    prop_assert!(messages.count() <= max);
                    reader.ended |= matches!(progress, Progress::Ended(_));
                },
                Step::Unsubscribe(slot) => readers[slot] = None,
                Step::Shrink(max) => {
                    kept = max;
                    let settings = TopicConfig { max_messages: Some(max), ..TopicConfig::default() };
                    now(broker.update_topic(&topic, settings)).unwrap();
                }
                Step::Recreate => {
                    now(broker.delete_topic(&topic)).unwrap();
                    for reader in readers.iter_mut().filter_map(Option::take) {
                        let mut reader = reader;
                        let (events, progress) = drain(&mut reader.subscription);
                        prop_assert_eq!(progress, Progress::Ended(Error::TopicDeleted(topic.clone())));
                        reader.seen.extend(events);
                        assert_tiles(&reader.seen, reader.first, log.len() as u64);
                    }
                    if let Some(mut reader) = named.take() {
                        let (events, progress) = drain(&mut reader.subscription);
                        prop_assert_eq!(progress, Progress::Ended(Error::TopicDeleted(topic.clone())));
                        reader.seen.extend(events);
                        assert_tiles(&reader.seen, reader.first, log.len() as u64);
                    }
                    now(broker.create_topic(&topic, TopicConfig::default())).unwrap();
                    log.clear();
                    (kept, floor) = (10, 0);
                    acknowledged = None;
                }
                Step::Attach => {
                    let request = Subscribe { consumer: Some((consumer.clone(), Ack::Explicit)), ..to("t") };
                    let subscription = now(broker.subscribe(request, &Inbox::default(), 0)).unwrap();
                    prop_assert_eq!(subscription.consumer().unwrap().resumed, acknowledged.is_some());
                    if let Some(mut older) = named.take() {
                        let taken = Progress::Ended(Error::ConsumerTakenOver("c".to_owned()));
                        prop_assert_eq!(older.subscription.read(BatchLimit::messages(1), &mut Vec::new()), taken);
                    }
                    // First use begins live; from then on behind what was acknowledged.
                    let place = *acknowledged.get_or_insert(log.len() as u64);
                    named = Some(Model { subscription, first: place + 1, seen: Vec::new(), ended: false });
                }
                Step::Consume(max) => if let Some(reader) = &mut named {
                    reader.subscription.read(BatchLimit::messages(max), &mut reader.seen);
                },
                Step::Acknowledge(quarters) => if let Some(reader) = &named {
                    let messages: Vec<_> = reader.seen.iter().filter_map(|event| match event {
                        Event::Message(message, _) => Some(message.cursor),
                        _ => None,
                    }).collect();
                    let chosen = messages.len() * usize::from(quarters) / 4;
                    if let Some(cursor) = chosen.checked_sub(1).and_then(|index| messages.get(index)) {
                        now(broker.acknowledge(&source, &consumer, *cursor)).unwrap();
                        acknowledged = acknowledged.max(Some(cursor.offset));
                    }
                },
                Step::Detach => named = None,
            }
            floor = floor.max(log.len().saturating_sub(kept));
        }
        for reader in readers.iter_mut().flatten().chain(named.as_mut()) {
            let (events, progress) = drain(&mut reader.subscription);
            prop_assert_eq!(progress, Progress::CaughtUp);
            reader.seen.extend(events);
            assert_tiles(&reader.seen, reader.first, log.len() as u64);
            // The data is what was published at that offset.
            for event in &reader.seen {
                if let Event::Message(message, _) = event {
                    let wanted = log[usize::try_from(message.cursor.offset).unwrap() - 1].to_string();
                    prop_assert_eq!(message.data.as_str(), wanted);
                }
            }
        }
    }
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
mod resume;

mod consumers {
    use super::*;

    fn request(source: &str, ack: Ack) -> Subscribe {
        Subscribe { consumer: Some((ConsumerName::parse("c").unwrap(), ack)), ..to(source) }
    }

    fn open(broker: &Broker, source: &str, ack: Ack) -> Subscription {
        now(broker.subscribe(request(source, ack), &Inbox::default(), 0)).unwrap()
    }

    #[test]
    fn auto_goes_on_behind_what_was_confirmed() {
        let broker = broker(100);
        let mut subscription = open(&broker, "t", Ack::Auto);
        assert!(!subscription.consumer().unwrap().resumed);
        for number in 1..=5 {
            now(broker.publish(&name("t"), new_message(number))).unwrap();
        }
        drain(&mut subscription);
        assert!(subscription.mark_in_flight());
        subscription.acknowledge_in_flight();
        now(broker.publish(&name("t"), new_message(6))).unwrap();
        drain(&mut subscription);
        // Read, but never confirmed.
        drop(subscription);
        now(broker.publish(&name("t"), new_message(7))).unwrap();
        let mut subscription = open(&broker, "t", Ack::Auto);
        assert!(subscription.consumer().unwrap().resumed);
        assert_tiles(&drain(&mut subscription).0, 6, 7);
    }

    #[test]
    fn explicit_repeats_what_was_not_acknowledged() {
        let broker = broker(100);
        let mut subscription = open(&broker, "t", Ack::Explicit);
        let places: Vec<_> =
            (1..=5).map(|number| now(broker.publish(&name("t"), new_message(number))).unwrap().cursor).collect();
        drain(&mut subscription);
        let (source, consumer) = (Source::parse("t").unwrap(), ConsumerName::parse("c").unwrap());
        now(broker.acknowledge(&source, &consumer, places[2])).unwrap();
        // Behind the position already: nothing moves.
        now(broker.acknowledge(&source, &consumer, places[0])).unwrap();
        assert!(!subscription.mark_in_flight());
        drop(subscription);
        assert_tiles(&drain(&mut open(&broker, "t", Ack::Explicit)).0, 4, 5);
        let foreign = Cursor { epoch: Epoch::random(), offset: 1 };
        assert!(matches!(now(broker.acknowledge(&source, &consumer, foreign)), Err(Error::BadRequest { .. })));
    }

    #[test]
    fn a_newer_connection_takes_over() {
        let broker = broker(100);
        let inbox = Inbox::default();
        let mut older = now(broker.subscribe(request("t", Ack::Auto), &inbox, 3)).unwrap();
        drain(&mut older);
        while inbox.try_next().is_some() {}
        let _newer = open(&broker, "t", Ack::Auto);
        assert_eq!(inbox.try_next(), Some(3), "the older one is woken to learn it");
        assert_eq!(drain(&mut older).1, Progress::Ended(Error::ConsumerTakenOver("c".to_owned())));
        // What the older one confirms now counts no more.
        older.acknowledge_in_flight();
        drop(older);
        assert!(now(broker.consumers(&Source::parse("t").unwrap())).unwrap()[0].connected);
    }

    #[test]
    fn patterns_resume_each_topic_and_find_new_ones() {
        let broker = broker(100);
        now(broker.publish(&name("a.1"), new_message(1))).unwrap();
        let mut subscription = open(&broker, "a.*", Ack::Auto);
        now(broker.publish(&name("a.1"), new_message(2))).unwrap();
        drain(&mut subscription);
        subscription.mark_in_flight();
        subscription.acknowledge_in_flight();
        drop(subscription);
        now(broker.publish(&name("a.1"), new_message(3))).unwrap();
        now(broker.publish(&name("a.2"), new_message(1))).unwrap();
        now(broker.publish(&name("b.1"), new_message(1))).unwrap();
        let (events, _) = drain(&mut open(&broker, "a.*", Ack::Auto));
        let mut seen: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Message(message, _) => (message.topic.to_string(), message.cursor.offset),
                other => panic!("{other:?}"),
            })
            .collect();
        seen.sort();
        assert_eq!(seen, [("a.1".to_owned(), 3), ("a.2".to_owned(), 1)]);
    }

    #[test]
    fn the_topics_new_incarnation_is_told() {
        let broker = broker(100);
        now(broker.publish(&name("a.1"), new_message(1))).unwrap();
        drop(open(&broker, "a.*", Ack::Auto));
        now(broker.delete_topic(&name("a.1"))).unwrap();
        now(broker.publish(&name("a.1"), new_message(1))).unwrap();
        let (events, _) = drain(&mut open(&broker, "a.*", Ack::Auto));
        assert!(matches!(&events[..], [Event::Gap(gap), Event::Message(_, _)] if gap.reason == GapReason::NewEpoch));
    }

    #[tokio::test(start_paused = true)]
    async fn unused_ones_expire() {
        let broker = broker(100);
        let live = open(&broker, "t", Ack::Auto);
        tokio::time::advance(Duration::from_secs(48 * 3600)).await;
        broker.sweep();
        assert_eq!(now(broker.consumers(&Source::parse("t").unwrap())).unwrap().len(), 1, "in use");
        drop(live);
        tokio::time::advance(Duration::from_secs(25 * 3600)).await;
        assert!(!open(&broker, "t", Ack::Auto).consumer().unwrap().resumed);
        tokio::time::advance(Duration::from_secs(25 * 3600)).await;
        broker.sweep();
        assert!(now(broker.topic(&name("t"))).is_err(), "nothing uses the implicit topic any more");
    }

    #[test]
    fn there_is_a_bound_on_them() {
        let settings = Settings { max_consumers_per_topic: 2, max_consumers: 3, ..Settings::default() };
        let broker = Broker::in_memory(settings);
        let open = |source: &str, consumer: &str| {
            let consumer = Some((ConsumerName::parse(consumer).unwrap(), Ack::Auto));
            now(broker.subscribe(Subscribe { consumer, ..to(source) }, &Inbox::default(), 0)).map(drop)
        };
        open("t", "1").unwrap();
        open("t", "2").unwrap();
        assert!(matches!(open("t", "3"), Err(Error::LimitReached { limit: 2, own: true, .. })));
        open("u", "1").unwrap();
        assert!(matches!(open("u", "2"), Err(Error::LimitReached { limit: 3, own: false, .. })));
        let consumer = ConsumerName::parse("1").unwrap();
        now(broker.delete_consumer(&Source::parse("t").unwrap(), &consumer)).unwrap();
        open("u", "2").unwrap();
    }
}

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
    let mut all = broker.subscribe_events(&Principal::anyone(), None, &Inbox::default(), 0).unwrap();
    let about = Some(Pattern::parse("a.*").unwrap());
    let mut some = broker.subscribe_events(&Principal::anyone(), about, &Inbox::default(), 0).unwrap();
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
