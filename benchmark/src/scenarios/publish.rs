//! The CPU time of a publish that is acknowledged, to a topic without subscribers.

use std::{io, thread, time::Duration};

use super::{Contender, Scenario};
use crate::{
    figures::Sample,
    load::requests::Requesters,
    plan::Plan,
    targets::{Publishing, Target},
};

/// Publishes under way on the one raw connection.
const WINDOW: usize = 64;

/// Connections that publish by HTTP, each with one request at a time.
const CONNECTIONS: usize = 16;

pub fn scenarios(plan: &Plan) -> Vec<Scenario> {
    let mut targets = vec![Target::Ordinary, Target::PubSub];
    targets.extend(plan.against.as_ref().map(|_| Target::Base));
    let of = |name: &str, title: &str, publishing| {
        let contenders = targets.iter().map(|&target| Contender {
            name: target.name().to_owned(),
            measure: Box::new(move |plan: &Plan| measure(plan, target, publishing)),
        });
        Scenario {
            name: name.to_owned(),
            title: title.to_owned(),
            unit: "CPU µs",
            is_long: false,
            contenders: contenders.collect(),
        }
    };
    vec![
        of("publish-raw", "Publish over a raw WebSocket, each acknowledged, 64 under way", Publishing::Raw),
        of("publish-post", "Publish by POST /publish over 16 connections", Publishing::Post),
        of("publish-mutation", "Publish by GraphQL mutation over 16 connections", Publishing::Mutation),
    ]
}

fn measure(plan: &Plan, target: Target, publishing: Publishing) -> io::Result<Sample> {
    let server = target.start(plan, &[])?;
    let mut requesters = Requesters::new(publishing.responses(), br#""offset":"#, publishing.request(1))?;
    let (connections, window) = if publishing == Publishing::Raw { (1, WINDOW) } else { (CONNECTIONS, 1) };
    for _ in 0..connections {
        requesters.add(target.open_publishing(server.address, publishing)?)?;
    }
    requesters.run(window, plan.time / 5)?;
    thread::sleep(Duration::from_millis(20));
    let before = server.cpu()?;
    let outcome = requesters.run(window, plan.time)?;
    thread::sleep(Duration::from_millis(20));
    let cpu = server.cpu()? - before;
    Ok(Sample::of_cpu(cpu, outcome.published, &outcome, crate::load::fleet::Faults::default()))
}
