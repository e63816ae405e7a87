//! Incarnations that are about to end: their names are free, and messages of them may still come.

use super::*;

/// The numbers that come, and 0 for the notice that a topic was deleted.
fn numbers(subscription: &mut Subscription) -> Vec<u64> {
    let (events, _) = drain(subscription);
    let number = |event: &Event| match event {
        Event::Message(message, _) => message.data.as_str().parse().unwrap(),
        Event::Deleted { .. } => 0,
        other => panic!("{other:?}"),
    };
    events.iter().map(number).collect()
}

fn consumer() -> Subscribe {
    let name = ConsumerName::parse("worker").unwrap();
    Subscribe { consumer: Some((name, Ack::Explicit)), ..to("a.*") }
}

#[test]
fn what_comes_before_an_end_is_read_before_it_is_told() {
    let broker = broker(10);
    let inbox = Inbox::default();
    let topic = name("a.1");
    let mut before = now(broker.subscribe(to("a.*"), &inbox, 1)).unwrap();
    let mut kept = now(broker.subscribe(consumer(), &inbox, 2)).unwrap();
    let first = now(broker.publish(&topic, new_message(1))).unwrap();
    assert_eq!(numbers(&mut kept), [1]);
    let worker = ConsumerName::parse("worker").unwrap();
    now(broker.acknowledge(&Source::parse("a.*").unwrap(), &worker, first.cursor)).unwrap();
    drop(kept);
    let (events, _) = drain(&mut before);
    let [Event::Message(_, Some(position))] = &events[..] else { panic!("{events:?}") };
    now(broker.publish(&topic, new_message(2))).unwrap();

    // An engine has learned that the topic was deleted, and not yet where its log ends.
    let ending = broker.0.registry.find(&topic).unwrap();
    broker.0.registry.take_out(&ending, 0);
    now(broker.publish(&topic, new_message(10))).unwrap();
    let resumed = Subscribe { resume: Some(Start::AfterPattern(position.clone())), ..to("a.*") };
    let mut resumed = now(broker.subscribe(resumed, &inbox, 3)).unwrap();
    let mut kept = now(broker.subscribe(consumer(), &inbox, 4)).unwrap();
    let mut live = now(broker.subscribe(to("a.*"), &inbox, 5)).unwrap();
    for reader in [&mut resumed, &mut kept] {
        assert_eq!(numbers(reader), [2, 10]);
    }
    ending.append(new_message(3)).unwrap();
    assert!(broker.0.registry.remove(&ending) && !broker.0.registry.remove(&ending));
    for reader in [&mut resumed, &mut kept, &mut live] {
        assert_eq!(numbers(reader), [3, 0]);
    }
    // Whoever comes now is told of what went with the topic.
    let late = Subscribe { resume: Some(Start::AfterPattern(position.clone())), ..to("a.*") };
    let (events, _) = drain(&mut now(broker.subscribe(late, &inbox, 6)).unwrap());
    let [Event::Gap(gap), Event::Message(message, _)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((gap.reason, message.data.as_str()), (GapReason::NewEpoch, "10"));
}
