//! The broker against a model: whatever happens in whatever order, every subscriber's stream is the topic's log, in order,
//! each message once, with every hole announced exactly.

use super::*;

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
