//! Many topics: one subscriber each, idle ones, and what a publish costs among them.

use std::{io, thread, time::Duration};

use super::{Contender, Scenario, delivery, settled_memory};
use crate::{
    figures::Sample,
    load::{
        fleet::{Faults, Fleet},
        requests::{Requesters, Responses},
    },
    plan::Plan,
    targets::{Interface, Publishing, Target},
};

/// Messages in flight in all topics together.
const WINDOW: usize = 32;

/// Topics that exist before the memory of more is measured.
const WARM: usize = 1_000;

pub fn scenarios(plan: &Plan) -> Vec<Scenario> {
    vec![one_subscriber_each(), idle_topics(plan), publish_among(plan)]
}

fn one_subscriber_each() -> Scenario {
    use Interface::{GraphQl, Raw};
    let contenders =
        [(Target::Ordinary, GraphQl), (Target::PubSub, GraphQl), (Target::Ordinary, Raw), (Target::PubSub, Raw)];
    Scenario {
        name: "topics-1000".to_owned(),
        title: "1,000 topics with one subscriber each".to_owned(),
        unit: "CPU µs",
        is_long: false,
        contenders: contenders
            .map(|(target, interface)| Contender {
                name: delivery::name(target, interface),
                measure: Box::new(move |plan| deliver_to_each(plan, target, interface, 1_000)),
            })
            .into(),
    }
}

fn deliver_to_each(plan: &Plan, target: Target, interface: Interface, topics: usize) -> io::Result<Sample> {
    let server = target.start(plan, &[])?;
    let mut fleet = Fleet::new(topics, 1)?;
    for topic in 0..topics {
        let (stream, wire) = target.subscribe(server.address, interface, &[topic])?;
        fleet.add(stream, wire, topic, 1)?;
    }
    let (stream, wire, mark, publish) = target.publisher(server.address)?;
    fleet.publish_over(stream, wire, mark, publish)?;
    delivery::measured(plan, &server, &mut fleet, WINDOW)
}

fn idle_topics(plan: &Plan) -> Scenario {
    let topics = plan.topics;
    Scenario {
        name: format!("idle-topics-{topics}"),
        title: format!("Memory of an idle topic with one message, of {topics}"),
        unit: "KiB",
        is_long: false,
        contenders: [Target::Ordinary, Target::PubSub]
            .map(|target| Contender {
                name: target.name().to_owned(),
                measure: Box::new(move |plan: &Plan| memory_of_topics(plan, target, topics)),
            })
            .into(),
    }
}

/// Publishes one message to each topic, in the order of the numbers.
fn memory_of_topics(plan: &Plan, target: Target, topics: usize) -> io::Result<Sample> {
    let server = target.start(plan, &[])?;
    let request = Publishing::Raw.request(WARM + topics);
    let mut requesters = Requesters::new(Responses::WebSocket, br#""offset":"#, request)?;
    requesters.add(target.open_publishing(server.address, Publishing::Raw)?)?;
    requesters.run_count(64, WARM)?;
    let before = settled_memory(&server)?;
    requesters.run_count(64, topics)?;
    let grown = settled_memory(&server)?.saturating_sub(before);
    Ok(Sample::of_value(grown as f64 / 1024.0 / topics as f64))
}

fn publish_among(plan: &Plan) -> Scenario {
    let most = plan.topics;
    let contenders = [Target::PubSub, Target::Ordinary].into_iter().flat_map(|target| {
        [1, 1_000, most].map(|topics| Contender {
            name: format!("{}, {topics} topics", target.name()),
            measure: Box::new(move |plan: &Plan| publish_to(plan, target, topics)),
        })
    });
    Scenario {
        name: "publish-topics".to_owned(),
        title: "Publish over a raw WebSocket among many topics".to_owned(),
        unit: "CPU µs",
        is_long: false,
        contenders: contenders.collect(),
    }
}

fn publish_to(plan: &Plan, target: Target, topics: usize) -> io::Result<Sample> {
    let server = target.start(plan, &[])?;
    let mut requesters = Requesters::new(Responses::WebSocket, br#""offset":"#, Publishing::Raw.request(topics))?;
    requesters.add(target.open_publishing(server.address, Publishing::Raw)?)?;
    // Creates the topics.
    requesters.run_count(64, topics.max(10_000))?;
    thread::sleep(Duration::from_millis(20));
    let before = server.cpu()?;
    let outcome = requesters.run(64, plan.time)?;
    thread::sleep(Duration::from_millis(20));
    Ok(Sample::of_cpu(server.cpu()? - before, outcome.published, &outcome, Faults::default()))
}
