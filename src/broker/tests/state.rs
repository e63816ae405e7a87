//! Subscriptions that begin with the state.

mod random;

use super::*;

fn state_of(broker: &Broker, source: &str) -> Subscription {
    now(broker.subscribe(Subscribe { start: Some(Start::State), ..to(source) }, &Inbox::default(), 0)).unwrap()
}

/// What events say, in short: offsets of messages, gaps and the marker.
fn shown(events: &[Event]) -> Vec<String> {
    let show = |event: &Event| match event {
        Event::Message(message, _) => format!("{} {}", message.topic, message.cursor.offset),
        Event::Gap(gap) => format!("gap {:?} {}..={}", gap.missed, gap.from_offset, gap.to_offset),
        Event::Deleted { topic, .. } => format!("deleted {topic}"),
        Event::StateComplete(AnyCursor::Topic(cursor)) => format!("complete at {}", cursor.offset),
        Event::StateComplete(AnyCursor::Pattern(cursor)) => format!("complete at {}", cursor.logs[0].sequence),
    };
    events.iter().map(show).collect()
}

fn put(broker: &Broker, topic: &str, key: &str) {
    now(broker.publish(&name(topic), keyed(1, key))).unwrap();
}

fn remove(broker: &Broker, topic: &str, key: &str) {
    let removal = NewMessage { is_removal: true, ..keyed(0, key) };
    now(broker.publish(&name(topic), removal)).unwrap();
}

#[test]
fn the_newest_of_each_key_then_live() {
    let broker = broker(100);
    let mut empty = state_of(&broker, "t");
    assert_eq!(shown(&drain(&mut empty).0), ["complete at 0"]);
    for key in ["a", "b", "a", "c"] {
        put(&broker, "t", key);
    }
    now(broker.publish(&name("t"), new_message(0))).unwrap();
    remove(&broker, "t", "c");
    let mut state = state_of(&broker, "t");
    // It is not given what it does not have, and what it may hold is taken away.
    let mut events = Vec::new();
    assert_eq!(state.read(BatchLimit::messages(1), &mut events), Progress::More);
    remove(&broker, "t", "b");
    put(&broker, "t", "a");
    events.extend(drain(&mut state).0);
    assert_eq!(shown(&events), ["t 2", "t 7", "t 8", "complete at 8"]);
    put(&broker, "t", "a");
    put(&broker, "t", "a");
    assert_eq!(shown(&drain(&mut state).0), ["t 9", "t 10"]);
    let live: Vec<_> = (1..=10).map(|offset| format!("t {offset}")).collect();
    assert_eq!(shown(&drain(&mut empty).0), live);
}

#[test]
fn what_left_the_history_is_told_where_the_client_may_hold_something_older() {
    let broker = broker(4);
    for key in ["a", "b", "c", "d"] {
        put(&broker, "t", key);
    }
    let [mut early, mut late] = [0, 1].map(|_| state_of(&broker, "t"));
    let mut events = Vec::new();
    early.read(BatchLimit::messages(1), &mut events);
    // The first two leave the history: they are no longer in the state.
    put(&broker, "t", "e");
    put(&broker, "t", "f");
    assert_eq!(shown(&drain(&mut late).0), ["t 3", "t 4", "t 5", "t 6", "complete at 6"]);
    // A newer value of `a` goes with the rest: whoever has the older one has to know.
    put(&broker, "t", "a");
    for key in ["g", "h", "i", "j"] {
        put(&broker, "t", key);
    }
    events.extend(drain(&mut early).0);
    assert_eq!(shown(&events), ["t 1", "gap Some(3) 5..=7", "t 8", "t 9", "t 10", "t 11", "complete at 11"]);
}

/// An older value is the newest again where a newer one was kept for its own time only.
#[test]
fn a_value_that_ends_while_the_state_is_read_is_told() {
    let broker = broker(100);
    let short = |key| NewMessage { ttl: Some(Age::from_millis(1_000)), ..keyed(2, key) };
    for key in ["x", "a", "b"] {
        put(&broker, "t", key);
    }
    now(broker.publish(&name("t"), short("b"))).unwrap();
    now(broker.publish(&name("t"), short("a"))).unwrap();
    put(&broker, "t", "y");
    let mut state = state_of(&broker, "t");
    let mut events = Vec::new();
    // It looks at no more than it takes, so `a` and `b` are not examined yet when the second one has been left out.
    state.read(BatchLimit::messages(2), &mut events);
    assert_eq!(shown(&events), ["t 1", "t 4"]);
    broker.0.registry.clock().pass(2_000);
    events.extend(drain(&mut state).0);
    assert_eq!(shown(&events), ["t 1", "t 4", "gap Some(1) 5..=5", "t 6", "complete at 6"]);
    // One that begins now gets the older ones.
    assert_eq!(shown(&drain(&mut state_of(&broker, "t")).0), ["t 1", "t 2", "t 3", "t 6", "complete at 6"]);
    let offsets = |page: &StatePage| page.messages.iter().map(|message| message.cursor.offset).collect::<Vec<_>>();
    let page = now(broker.state(&name("t"), "", None, BatchLimit::messages(10))).unwrap();
    assert_eq!((offsets(&page), page.next), (vec![1, 2, 3, 6], None));
}

#[test]
fn a_pattern_has_one_marker_and_new_topics_are_whole() {
    let broker = broker(100);
    for (topic, key) in [("p.1", "a"), ("p.2", "a"), ("p.1", "a"), ("p.2", "b"), ("other", "a")] {
        put(&broker, topic, key);
    }
    let mut state = state_of(&broker, "p.*");
    let mut events = Vec::new();
    assert_eq!(state.read(BatchLimit::messages(1), &mut events), Progress::More);
    put(&broker, "p.3", "a");
    put(&broker, "p.3", "a");
    events.extend(drain(&mut state).0);
    let [complete, rest] = ["complete at 4", "p.3 2"];
    assert_eq!(shown(&events), ["p.2 1", "p.1 2", "p.2 2", complete, "p.3 1", rest]);
    let mut nothing = state_of(&broker, "none.*");
    assert_eq!(shown(&drain(&mut nothing).0), ["complete at 7"]);
}

/// Nobody is slow before the state is complete, and everybody may be from then on.
#[test]
fn an_overflow_choice_counts_from_the_marker_on() {
    for (overflow, source) in [
        (Overflow::Latest, "p.0"),
        (Overflow::Latest, "p.*"),
        (Overflow::Disconnect, "p.0"),
        (Overflow::Disconnect, "p.*"),
    ] {
        let broker = broker(100);
        for number in 0..90 {
            put(&broker, "p.0", &format!("k{number}"));
        }
        let request = Subscribe { start: Some(Start::State), overflow, ..to(source) };
        let mut state = now(broker.subscribe(request, &Inbox::default(), 0)).unwrap();
        let mut events = Vec::new();
        state.read(BatchLimit::messages(1), &mut events);
        for number in 0..60 {
            put(&broker, "p.0", &format!("n{number}"));
        }
        let (rest, progress) = drain(&mut state);
        assert_eq!(progress, Progress::CaughtUp, "{overflow:?}");
        assert!(matches!(rest.last(), Some(Event::StateComplete(_))), "{overflow:?}");
        assert_eq!(rest.len(), 101, "those that are kept, and the marker: {overflow:?}");
        for number in 0..150 {
            put(&broker, "p.0", &format!("m{number}"));
        }
        let (rest, progress) = drain(&mut state);
        match overflow {
            Overflow::Latest => assert_eq!(rest.len(), 2, "{rest:?}"),
            _ => assert_eq!(progress, Progress::Ended(Error::SlowConsumer)),
        }
    }
}

#[test]
fn a_known_consumer_goes_on_and_a_new_one_begins_with_the_state() {
    let broker = broker(100);
    for key in ["a", "b", "a"] {
        put(&broker, "t", key);
    }
    let subscribe = || {
        let consumer = Some((ConsumerName::parse("c").unwrap(), Ack::Auto));
        let request = Subscribe { start: Some(Start::State), consumer, ..to("t") };
        now(broker.subscribe(request, &Inbox::default(), 0)).unwrap()
    };
    let mut first = subscribe();
    assert_eq!(shown(&drain(&mut first).0), ["t 2", "t 3", "complete at 3"]);
    assert!(first.mark_in_flight());
    first.acknowledge_in_flight();
    put(&broker, "t", "b");
    put(&broker, "t", "b");
    drop(first);
    let mut again = subscribe();
    assert!(again.consumer().unwrap().resumed);
    assert_eq!(shown(&drain(&mut again).0), ["t 4", "t 5"]);
}

/// A long history of which little counts is looked through in steps, and each batch holds no more than was asked for.
#[test]
fn a_large_state_comes_in_bounded_batches() {
    const KEYS: usize = 100_000;
    let settings = Settings {
        max_messages_per_topic: 2 * KEYS,
        max_messages_limit: 2 * KEYS,
        max_bytes_per_topic: 1 << 30,
        max_history_bytes: 1 << 30,
        max_publish_rate: 0,
        ..Settings::default()
    };
    let broker = Broker::in_memory(settings);
    for round in 0..2 {
        for key in 0..KEYS {
            now(broker.publish(&name("t"), keyed(round, &format!("k{key}")))).unwrap();
        }
    }
    let mut state = state_of(&broker, "t");
    let (mut events, mut read, mut empty) = (Vec::new(), 0, 0);
    loop {
        let progress = state.read(BatchLimit { messages: 64, bytes: 64 << 10 }, &mut events);
        assert!(events.len() <= 65, "{} events at once", events.len());
        empty += usize::from(events.is_empty());
        read += events.iter().filter(|event| matches!(event, Event::Message(..))).count();
        let is_complete = matches!(events.last(), Some(Event::StateComplete(_)));
        events.clear();
        if is_complete {
            assert_eq!(progress, Progress::CaughtUp);
            break;
        }
    }
    assert_eq!(read, KEYS);
    assert!(empty >= KEYS / 1_000, "superseded messages were passed in {empty} steps");
}
