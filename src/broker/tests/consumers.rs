//! Named consumers: from where they go on.

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
