//! What a principal may read, while its rights change.

use proptest::collection::vec;

use super::*;

const TOPICS: [&str; 4] = ["a.x", "a.y", "b.x", "b.y"];
/// Sets of patterns: some overlap, some match nothing.
const RIGHTS: [&[&str]; 7] =
    [&[">"], &["a.*"], &["*.x"], &["a.*", "*.x"], &["a.x", "a.>", "b.y"], &["c.>"], &["b.y", "b.x", "a.x", "a.y"]];

fn rights(patterns: &[&str]) -> Rights {
    let subscribe = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    Rights { subscribe, ..Rights::default() }
}

fn principal(name: &str, patterns: &[&str]) -> Principal {
    Principal::new(Identity::new(name, Kind::Named, 0, 0), Grant::Rights(rights(patterns)))
}

fn client(broker: &Broker, principal: &Principal) -> Client {
    broker.client(principal.clone(), ClientInfo { door: "test", address: None })
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Read,
    /// Other rights, by their number.
    Change(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..TOPICS.len()).prop_map(Step::Publish),
        2 => Just(Step::Read),
        1 => (0..RIGHTS.len()).prop_map(Step::Change),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A subscriber of a pattern gets what it may read at the moment, each message once and in order, and nothing else. A
    /// message of a topic that it might read from then on until it read is not lost.
    #[test]
    fn a_pattern_delivers_what_may_be_read(first in 0..RIGHTS.len(), steps in vec(step(), 1..60)) {
        let broker = broker(1_000);
        let principal = principal("one", RIGHTS[first]);
        let opened = now(client(&broker, &principal).subscribe(to(">"), &Inbox::default(), 0));
        let Ok(mut subscription) = opened else {
            // Unless it shares a topic with the rights. Topics that are not there count, too.
            return Err(TestCaseError::fail("every set of rights shares a topic with >"));
        };
        let mut allowed = rights(RIGHTS[first]);
        // What is published and unread, by topic: its number, and whether it could be read all the time since.
        let mut unread: Vec<(usize, u64, bool)> = Vec::new();
        let (mut next, mut last_read) = (0, None);
        let may = |rights: &Rights, topic: usize| rights.allow(Right::Subscribe, &name(TOPICS[topic]));
        for step in steps.into_iter().chain([Step::Read]) {
            match step {
                Step::Publish(topic) => {
                    now(broker.publish(&name(TOPICS[topic]), new_message(next))).unwrap();
                    unread.push((topic, next, may(&allowed, topic)));
                    next += 1;
                }
                Step::Change(number) => {
                    allowed = rights(RIGHTS[number]);
                    principal.set_grant(Grant::Rights(allowed.clone()));
                    // The subscription looks at its rights when it is read.
                    for (topic, _, always) in &mut unread {
                        *always &= may(&allowed, *topic);
                    }
                }
                Step::Read => {
                    let (events, progress) = drain(&mut subscription);
                    prop_assert_eq!(progress, Progress::CaughtUp);
                    let mut read = Vec::new();
                    for event in events {
                        let Event::Message(message, Some(_)) = event else { panic!("{event:?}") };
                        let number: u64 = message.data.as_str().parse().unwrap();
                        prop_assert!(last_read < Some(number), "{} after {:?}", number, last_read);
                        last_read = Some(number);
                        prop_assert!(allowed.allow(Right::Subscribe, &message.topic), "{} may not be read", message.topic);
                        read.push(number);
                    }
                    for (topic, number, always) in unread.drain(..) {
                        prop_assert!(!always || read.contains(&number), "{} of {} is lost", number, TOPICS[topic]);
                    }
                }
            }
        }
        principal.withdraw();
        prop_assert!(matches!(drain(&mut subscription).1, Progress::Ended(Error::Unauthenticated(_))));
        let again = now(client(&broker, &principal).subscribe(to(">"), &Inbox::default(), 0)).map(drop);
        prop_assert!(matches!(again, Err(Error::Unauthenticated(_))));
    }
}

#[test]
fn a_subscriber_by_several_patterns_counts_once() {
    let broker = broker(10);
    now(broker.create_topic(&name("a.x"), TopicConfig::default())).unwrap();
    let some = principal("some", &["a.*", "*.x"]);
    let _one = now(client(&broker, &some).subscribe(to(">"), &Inbox::default(), 0)).unwrap();
    let _two = now(broker.subscribe(to("a.*"), &Inbox::default(), 0)).unwrap();
    assert_eq!(now(broker.topic(&name("a.x"))).unwrap().subscribers, 2);
}

/// A topic of its own ends a subscription, and a pattern that shares nothing with the rights.
#[test]
fn what_is_lost_ends() {
    let broker = broker(10);
    let some = principal("some", &["a.*"]);
    let open = |source: &str| now(client(&broker, &some).subscribe(to(source), &Inbox::default(), 0));
    let (mut topic, mut pattern) = (open("a.x").unwrap(), open("*.x").unwrap());
    assert!(matches!(open("b.x"), Err(Error::Forbidden { .. })) && matches!(open("b.>"), Err(Error::Forbidden { .. })));
    some.set_grant(Grant::Rights(rights(&["b.x"])));
    assert!(matches!(drain(&mut topic).1, Progress::Ended(Error::Forbidden { .. })));
    assert_eq!(drain(&mut pattern).1, Progress::CaughtUp, "b.x is a topic of the pattern");
    some.set_grant(Grant::Rights(rights(&["b.y"])));
    assert!(matches!(drain(&mut pattern).1, Progress::Ended(Error::Forbidden { .. })));
}

#[test]
fn events_and_lists_show_what_may_be_seen() {
    let broker = broker(10);
    let some = principal("some", &["a.*"]);
    let own = client(&broker, &some);
    let mut events = own.subscribe_events(None, &Inbox::default(), 0).unwrap();
    assert!(own.subscribe_events(Some(Pattern::parse("b.*").unwrap()), &Inbox::default(), 0).is_err());
    let create =
        || ["a.x", "b.x", "a.y", "b.y"].map(|topic| now(broker.publish(&name(topic), new_message(1))).unwrap());
    create();
    let names = |subscription: &mut Subscription| -> Vec<String> {
        let name = |event: &Event| match event {
            Event::Message(message, _) => message.key.as_ref().unwrap().as_str().to_owned(),
            other => panic!("{other:?}"),
        };
        drain(subscription).0.iter().map(name).collect()
    };
    assert_eq!(names(&mut events), ["a.x", "a.y"]);
    let (page, more) = own.topics("", None, 1).unwrap();
    assert_eq!((page[0].name.as_str(), more, own.count_topics("").unwrap()), ("a.x", true, 2));
    let (page, more) = own.topics("", Some("a.x"), 1).unwrap();
    assert_eq!((page[0].name.as_str(), more), ("a.y", false));
    assert_eq!(own.count_topics("b").unwrap(), 0);
    // Other rights count from the next event on.
    some.set_grant(Grant::Rights(rights(&["b.x"])));
    for topic in TOPICS {
        now(broker.delete_topic(&name(topic))).unwrap();
    }
    assert_eq!(names(&mut events), ["b.x"]);
    some.withdraw();
    assert!(matches!(drain(&mut events).1, Progress::Ended(Error::Unauthenticated(_))));
}

/// The same name is another consumer for each principal, and whoever manages the topic says whose is meant.
#[test]
fn consumers_belong_to_principals() {
    let broker = broker(10);
    let source = Source::parse("a.x").unwrap();
    let consumer = ConsumerName::parse("worker").unwrap();
    let own = [principal("one", &["a.x"]), principal("two", &["a.x"])];
    let clients = own.each_ref().map(|own| client(&broker, own));
    let request = || Subscribe { consumer: Some((consumer.clone(), Ack::Explicit)), ..to("a.x") };
    let mut live = clients.each_ref().map(|client| now(client.subscribe(request(), &Inbox::default(), 0)).unwrap());
    now(broker.publish(&name("a.x"), new_message(1))).unwrap();
    assert!(live.iter_mut().all(|subscription| drain(subscription).0.len() == 1), "none has taken the other one over");

    let manager = Rights { manage: vec![Pattern::parse("a.*").unwrap()], stats: true, ..rights(&["a.*"]) };
    let manager = Principal::new(Identity::new("manager", Kind::Named, 0, 0), Grant::Rights(manager));
    let manager = client(&broker, &manager);
    let owners = || -> Vec<_> {
        let list = now(manager.consumers(&source)).unwrap();
        list.into_iter().map(|status| status.name.owner().map(str::to_owned)).collect()
    };
    assert_eq!(owners(), [Some("one".to_owned()), Some("two".to_owned())]);
    let delete = |client: &Client, owner| now(client.delete_consumer(&source, &consumer, owner));
    assert!(matches!(delete(&clients[0], Some("two")), Err(Error::Forbidden { .. })));
    assert!(matches!(delete(&manager, None), Err(Error::BadRequest { field: "owner", .. })));
    delete(&clients[0], None).unwrap();
    assert_eq!(owners(), [Some("two".to_owned())]);
    assert!(matches!(delete(&clients[0], None), Err(Error::ConsumerNotFound(_))));
    // The only one of the name.
    delete(&manager, None).unwrap();
    assert!(owners().is_empty());
}
