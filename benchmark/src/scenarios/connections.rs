//! Connections: what opening one costs, how much memory an idle one takes, and many subscriptions on one.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use super::{Contender, Scenario, delivery, settled_memory};
use crate::{
    figures::Sample,
    load::fleet::{Faults, Fleet, Outcome},
    plan::Plan,
    process,
    targets::{Interface, Target},
};

/// Connections that are opened before those that are measured: what the server needs once is not theirs.
const WARM: usize = 100;

const INTERFACES: [Interface; 3] = [Interface::Raw, Interface::GraphQl, Interface::EventStream];

pub fn scenarios(plan: &Plan) -> Vec<Scenario> {
    let idle = plan.idle;
    let both = [Target::Ordinary, Target::PubSub];
    let each = |measure: fn(&Plan, Target, Interface) -> io::Result<Sample>| {
        INTERFACES.into_iter().flat_map(move |interface| {
            both.map(|target| Contender {
                name: delivery::name(target, interface),
                measure: Box::new(move |plan: &Plan| measure(plan, target, interface)),
            })
        })
    };
    vec![
        Scenario {
            name: "open".to_owned(),
            title: "Opening a connection and subscribing".to_owned(),
            unit: "CPU µs",
            is_long: false,
            contenders: each(open).collect(),
        },
        Scenario {
            name: format!("memory-{idle}"),
            title: format!("Memory of an idle connection with one subscription, of {idle}"),
            unit: "KiB",
            is_long: false,
            contenders: each(memory).collect(),
        },
        multiplex(),
        Scenario {
            name: "start".to_owned(),
            title: "From the start of the process to the first response".to_owned(),
            unit: "ms",
            is_long: false,
            contenders: both
                .map(|target| Contender {
                    name: target.name().to_owned(),
                    measure: Box::new(move |plan: &Plan| start(plan, target)),
                })
                .into(),
        },
    ]
}

/// Opens `count` subscribers of the one topic.
fn open_many(
    fleet: &mut Fleet,
    target: Target,
    address: std::net::SocketAddr,
    interface: Interface,
    count: usize,
) -> io::Result<()> {
    for _ in 0..count {
        let (stream, wire) = target.subscribe(address, interface, &[0])?;
        fleet.add(stream, wire, 0, 1)?;
    }
    Ok(())
}

fn open(plan: &Plan, target: Target, interface: Interface) -> io::Result<Sample> {
    const COUNT: usize = 1_000;
    let server = target.start(plan, &[])?;
    let mut fleet = Fleet::new(1, WARM + COUNT)?;
    open_many(&mut fleet, target, server.address, interface, WARM)?;
    thread::sleep(Duration::from_millis(50));
    let (begun, client, before) = (Instant::now(), process::own_cpu(), server.cpu()?);
    open_many(&mut fleet, target, server.address, interface, COUNT)?;
    let (elapsed, client) = (begun.elapsed(), process::own_cpu() - client);
    // Not every protocol says when a subscription has begun.
    thread::sleep(Duration::from_millis(50));
    let cpu = server.cpu()? - before;
    check(&mut fleet, target, server.address)?;
    let outcome = Outcome { elapsed, client, ..Outcome::default() };
    Ok(Sample::of_cpu(cpu, COUNT as u64, &outcome, Faults::default()))
}

fn memory(plan: &Plan, target: Target, interface: Interface) -> io::Result<Sample> {
    let server = target.start(plan, &[])?;
    let mut fleet = Fleet::new(1, WARM + plan.idle)?;
    open_many(&mut fleet, target, server.address, interface, WARM)?;
    let before = settled_memory(&server)?;
    open_many(&mut fleet, target, server.address, interface, plan.idle)?;
    let grown = settled_memory(&server)?.saturating_sub(before);
    check(&mut fleet, target, server.address)?;
    Ok(Sample::of_value(grown as f64 / 1024.0 / plan.idle as f64))
}

/// Checks that every subscription gets messages.
fn check(fleet: &mut Fleet, target: Target, address: std::net::SocketAddr) -> io::Result<()> {
    let (stream, wire, mark, publish) = target.publisher(address)?;
    fleet.publish_over(stream, wire, mark, publish)?;
    fleet.prime()
}

fn multiplex() -> Scenario {
    // The ordinary server polls every subscription for each message, so 2,000 would take it too long.
    let measured = [
        (Target::PubSub, 100),
        (Target::PubSub, 500),
        (Target::PubSub, 2_000),
        (Target::Ordinary, 100),
        (Target::Ordinary, 500),
    ];
    let contenders = measured.into_iter().map(|(target, subscriptions)| Contender {
        name: format!("{}, {subscriptions}", target.name()),
        measure: Box::new(move |plan: &Plan| on_one_socket(plan, target, subscriptions)),
    });
    Scenario {
        name: "multiplex".to_owned(),
        title: "Delivery to many GraphQL subscriptions on one WebSocket, one topic each".to_owned(),
        unit: "CPU µs",
        is_long: false,
        contenders: contenders.collect(),
    }
}

fn on_one_socket(plan: &Plan, target: Target, subscriptions: usize) -> io::Result<Sample> {
    let server = target.start(plan, &[])?;
    let mut fleet = Fleet::new(subscriptions, 1)?;
    let topics: Vec<usize> = (0..subscriptions).collect();
    let (stream, wire) = target.subscribe(server.address, Interface::GraphQl, &topics)?;
    fleet.add(stream, wire, 0, subscriptions)?;
    let (stream, wire, mark, publish) = target.publisher(server.address)?;
    fleet.publish_over(stream, wire, mark, publish)?;
    delivery::measured(plan, &server, &mut fleet, 1)
}

fn start(plan: &Plan, target: Target) -> io::Result<Sample> {
    let begun = Instant::now();
    let server = target.start(plan, &[])?;
    let mut opening = crate::load::connection::Opening::connect(server.address)?;
    opening.request(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200)?;
    Ok(Sample::of_value(begun.elapsed().as_secs_f64() * 1e3))
}
