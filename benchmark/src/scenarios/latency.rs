//! How long messages take from when they are due to their arrival, at a fixed rate.

use std::{io, thread, time::Duration};

use super::{Contender, Scenario, delivery};
use crate::{
    figures::Sample,
    plan::Plan,
    targets::{Interface, Target},
};

/// Subscribers and messages a second.
const LOADS: [(usize, u32); 2] = [(100, 50), (1_000, 5)];

pub fn scenarios() -> Vec<Scenario> {
    use Interface::{EventStream, GraphQl, Raw};
    let contenders = [
        (Target::BareTokio, Raw),
        (Target::PubSub, Raw),
        (Target::PubSub, GraphQl),
        (Target::PubSub, EventStream),
        (Target::Ordinary, Raw),
        (Target::Ordinary, GraphQl),
    ];
    let of_load = |(subscribers, rate): (usize, u32)| Scenario {
        name: format!("latency-{subscribers}"),
        title: format!("Latency (99 %) with {subscribers} subscribers and {rate} messages a second"),
        unit: "ms",
        is_long: false,
        contenders: contenders
            .map(|(target, interface)| Contender {
                name: delivery::name(target, interface),
                measure: Box::new(move |plan: &Plan| {
                    measure(plan, target, interface, subscribers, rate, plan.time.max(Duration::from_secs(2)))
                }),
            })
            .into(),
    };
    let mut scenarios: Vec<_> = LOADS.map(of_load).into();
    scenarios.push(many());
    scenarios
}

/// The long run with many subscribers, which checks that every one gets every message.
fn many() -> Scenario {
    Scenario {
        name: "many-10000".to_owned(),
        title: "10,000 GraphQL subscribers and 30 messages a second for a minute: latency (99 %) and losses".to_owned(),
        unit: "ms",
        is_long: true,
        contenders: vec![Contender {
            name: delivery::name(Target::PubSub, Interface::GraphQl),
            measure: Box::new(|plan: &Plan| {
                measure(plan, Target::PubSub, Interface::GraphQl, 10_000, 30, Duration::from_secs(60))
            }),
        }],
    }
}

fn measure(
    plan: &Plan,
    target: Target,
    interface: Interface,
    subscribers: usize,
    rate: u32,
    time: Duration,
) -> io::Result<Sample> {
    let server = target.start(plan, &[])?;
    let mut fleet = delivery::connect(&server, target, interface, subscribers)?;
    fleet.prime()?;
    thread::sleep(Duration::from_millis(50));
    let before = server.cpu()?;
    let mut outcome = fleet.run_open(rate, time)?;
    let mut sample = Sample::of_cpu(server.cpu()? - before, outcome.delivered, &outcome, fleet.faults());
    let percentiles = percentiles(&mut outcome.latencies);
    sample.value = percentiles[1];
    sample.percentiles = Some(percentiles);
    Ok(sample)
}

/// In milliseconds at 50, 99 and 99.9 %.
fn percentiles(latencies: &mut [u32]) -> [f64; 3] {
    latencies.sort_unstable();
    [0.5, 0.99, 0.999].map(|part| {
        let at = ((latencies.len() as f64 * part) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
    })
}
