//! The CPU time of a delivery: one topic, many subscribers, a message at a time or up to 32 in flight.

use std::{io, thread, time::Duration};

use super::{Contender, Scenario};
use crate::{
    figures::Sample,
    load::fleet::Fleet,
    peers::{self, Peer},
    plan::Plan,
    process::Server,
    targets::{Interface, Target},
};

/// Messages in flight, and the name of it.
const WINDOWS: [(&str, usize); 2] = [("w1", 1), ("w32", 32)];

/// How long a server has for what it does after the last message.
const QUIET: Duration = Duration::from_millis(20);

/// Servers of others are measured with up to so many subscribers: some take minutes for more.
const MOST_OF_PEERS: usize = 1_000;

/// How long servers of others run before they are measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// A name, a title, and the contenders.
type Group = (&'static str, &'static str, Vec<(Target, Interface)>);

/// What is measured with each number of subscribers and each window.
fn groups() -> Vec<Group> {
    use Interface::{EventStream, GraphQl, Raw};
    use Target::{BareEpoll, BareTokio, Ordinary, PubSub};
    vec![
        (
            "raw",
            "Delivery over raw WebSockets",
            vec![(BareTokio, Raw), (BareEpoll, Raw), (PubSub, Raw), (Ordinary, Raw)],
        ),
        ("graphql", "Delivery over GraphQL", vec![(PubSub, Raw), (PubSub, GraphQl), (Ordinary, GraphQl)]),
        ("sse", "Delivery over event streams", vec![(PubSub, Raw), (PubSub, EventStream), (Ordinary, EventStream)]),
        (
            "delivery",
            "Delivery",
            vec![
                (BareTokio, Raw),
                (BareEpoll, Raw),
                (PubSub, Raw),
                (PubSub, GraphQl),
                (PubSub, EventStream),
                (Ordinary, Raw),
                (Ordinary, GraphQl),
                (Ordinary, EventStream),
            ],
        ),
    ]
}

/// The other build behind the server.
fn with_base(contender: (Target, Interface)) -> Vec<(Target, Interface)> {
    match contender {
        (Target::PubSub, interface) => vec![contender, (Target::Base, interface)],
        _ => vec![contender],
    }
}

fn of_peer(peer: Peer) -> (Target, Interface) {
    (Target::Peer(peer), if peer.is_graphql() { Interface::GraphQl } else { Interface::Raw })
}

/// The name of a contender.
pub fn name(target: Target, interface: Interface) -> String {
    let interface = match interface {
        Interface::Raw => "raw",
        Interface::GraphQl => "GraphQL",
        Interface::EventStream => "event stream",
    };
    match target {
        Target::BareTokio | Target::BareEpoll | Target::Peer(_) => target.name().to_owned(),
        Target::PubSub | Target::Base | Target::Ordinary => format!("{}, {interface}", target.name()),
    }
}

pub fn scenarios(plan: &Plan) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (group, title, mut contenders) in groups() {
        if plan.against.is_some() {
            contenders = contenders.into_iter().flat_map(with_base).collect();
        }
        for (window_name, window) in WINDOWS {
            for &subscribers in &plan.subscribers {
                let with_peers = plan.peers && group == "delivery" && subscribers <= MOST_OF_PEERS;
                let peers = peers::ALL.into_iter().filter(|peer| with_peers && peer.is_installed()).map(of_peer);
                let measured = contenders.iter().copied().chain(peers).map(|(target, interface)| Contender {
                    name: name(target, interface),
                    measure: Box::new(move |plan| measure(plan, target, interface, subscribers, window)),
                });
                let flight = if window == 1 { "one message at a time" } else { "up to 32 in flight" };
                scenarios.push(Scenario {
                    name: format!("{group}-{window_name}-{subscribers}"),
                    title: format!("{title}, {subscribers} subscribers, {flight}"),
                    unit: "CPU µs",
                    is_long: false,
                    contenders: measured.collect(),
                });
            }
        }
    }
    scenarios
}

/// Starts the server, connects, publishes for the time, and ends it.
fn measure(plan: &Plan, target: Target, interface: Interface, subscribers: usize, window: usize) -> io::Result<Sample> {
    let server = target.start(plan, &[])?;
    let mut fleet = connect(&server, target, interface, subscribers)?;
    if let Target::Peer(_) = target {
        // Some compile their code as they run.
        fleet.prime()?;
        fleet.run(window, WARM_UP)?;
    }
    measured(plan, &server, &mut fleet, window)
}

/// Subscribers of one topic, and a publisher.
pub fn connect(server: &Server, target: Target, interface: Interface, subscribers: usize) -> io::Result<Fleet> {
    let mut fleet = Fleet::new(1, subscribers)?;
    for _ in 0..subscribers {
        let (stream, wire) = target.subscribe(server.address, interface, &[0])?;
        fleet.add(stream, wire, 0, 1)?;
    }
    let (stream, wire, mark, publish) = target.publisher(server.address)?;
    fleet.publish_over(stream, wire, mark, publish)?;
    Ok(fleet)
}

/// The CPU time of a delivery, after a first part of the time that does not count.
pub fn measured(plan: &Plan, server: &Server, fleet: &mut Fleet, window: usize) -> io::Result<Sample> {
    fleet.prime()?;
    fleet.run(window, plan.time / 5)?;
    thread::sleep(QUIET);
    let before = server.cpu()?;
    let outcome = fleet.run(window, plan.time)?;
    thread::sleep(QUIET);
    let cpu = server.cpu()? - before;
    Ok(Sample::of_cpu(cpu, outcome.delivered, &outcome, fleet.faults()))
}
