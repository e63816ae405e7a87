//! What the project wants to reach, beside what was measured.

use std::fmt::Write as _;

use super::Run;
use crate::figures::digits;

/// What a figure is compared with.
enum Against {
    /// The other contender of the same scenario: the figure is a ratio.
    Contender(&'static str),
    /// The cheapest of these that was measured.
    Best(&'static [&'static str]),
    /// Nothing: the figure stands for itself.
    Nothing,
}

struct Goal {
    what: &'static str,
    scenario: &'static str,
    contender: &'static str,
    against: Against,
    most: f64,
}

const GRAPHQL_PEERS: &[&str] = &["Mercurius", "Apollo Server + graphql-ws", "GraphQL Yoga + graphql-ws"];
const BROKERS: &[&str] = &["Redis pub/sub (TCP)", "nats-server (TCP)"];
const RAW: &str = "pub-sub, raw";
const GRAPHQL: &str = "pub-sub, GraphQL";
const EVENTS: &str = "pub-sub, event stream";
const TOKIO: &str = "bare tokio";
const EPOLL: &str = "bare epoll, coalesced";
const ORDINARY: &str = "ordinary Rust";

const fn ratio(
    what: &'static str,
    scenario: &'static str,
    contender: &'static str,
    other: &'static str,
    most: f64,
) -> Goal {
    Goal { what, scenario, contender, against: Against::Contender(other), most }
}

const fn best(
    what: &'static str,
    scenario: &'static str,
    contender: &'static str,
    others: &'static [&'static str],
    most: f64,
) -> Goal {
    Goal { what, scenario, contender, against: Against::Best(others), most }
}

const fn alone(what: &'static str, scenario: &'static str, contender: &'static str, most: f64) -> Goal {
    Goal { what, scenario, contender, against: Against::Nothing, most }
}

const GOALS: [Goal; 37] = [
    ratio("raw, 100 subscribers, one at a time, against bare tokio", "delivery-w1-100", RAW, TOKIO, 1.15),
    ratio("raw, 1,000, one at a time, against bare tokio", "delivery-w1-1000", RAW, TOKIO, 1.15),
    ratio("raw, 100, 32 in flight, against bare epoll", "delivery-w32-100", RAW, EPOLL, 1.5),
    ratio("raw, 1,000, 32 in flight, against bare epoll", "delivery-w32-1000", RAW, EPOLL, 1.5),
    ratio("GraphQL against raw, 100, one at a time", "delivery-w1-100", GRAPHQL, RAW, 1.1),
    ratio("GraphQL against raw, 1,000, one at a time", "delivery-w1-1000", GRAPHQL, RAW, 1.1),
    ratio("GraphQL against raw, 100, 32 in flight", "delivery-w32-100", GRAPHQL, RAW, 1.3),
    ratio("GraphQL against raw, 1,000, 32 in flight", "delivery-w32-1000", GRAPHQL, RAW, 1.3),
    ratio("event stream against raw, 100, one at a time", "delivery-w1-100", EVENTS, RAW, 1.3),
    ratio("event stream against raw, 1,000, one at a time", "delivery-w1-1000", EVENTS, RAW, 1.3),
    ratio("event stream against raw, 100, 32 in flight", "delivery-w32-100", EVENTS, RAW, 1.3),
    ratio("event stream against raw, 1,000, 32 in flight", "delivery-w32-1000", EVENTS, RAW, 1.3),
    best(
        "GraphQL against the cheapest Node.js GraphQL server, 100, one at a time",
        "delivery-w1-100",
        GRAPHQL,
        GRAPHQL_PEERS,
        0.2,
    ),
    best(
        "GraphQL against the cheapest Node.js GraphQL server, 1,000, one at a time",
        "delivery-w1-1000",
        GRAPHQL,
        GRAPHQL_PEERS,
        0.2,
    ),
    best(
        "GraphQL against the cheapest Node.js GraphQL server, 100, 32 in flight",
        "delivery-w32-100",
        GRAPHQL,
        GRAPHQL_PEERS,
        1.0 / 80.0,
    ),
    best(
        "GraphQL against the cheapest Node.js GraphQL server, 1,000, 32 in flight",
        "delivery-w32-1000",
        GRAPHQL,
        GRAPHQL_PEERS,
        1.0 / 80.0,
    ),
    best("raw against the cheaper of Redis and NATS, 100, one at a time", "delivery-w1-100", RAW, BROKERS, 1.0),
    best("raw against the cheaper of Redis and NATS, 1,000, one at a time", "delivery-w1-1000", RAW, BROKERS, 1.0),
    best("raw against the cheaper of Redis and NATS, 100, 32 in flight", "delivery-w32-100", RAW, BROKERS, 1.0),
    best("raw against the cheaper of Redis and NATS, 1,000, 32 in flight", "delivery-w32-1000", RAW, BROKERS, 1.0),
    ratio("publish by raw socket, acknowledged, against ordinary Rust", "publish-raw", "pub-sub", ORDINARY, 0.35),
    ratio("publish by POST against ordinary Rust", "publish-post", "pub-sub", ORDINARY, 0.7),
    ratio("publish by GraphQL mutation against ordinary Rust", "publish-mutation", "pub-sub", ORDINARY, 0.45),
    ratio(
        "1,000 topics with one GraphQL subscriber each, against ordinary Rust",
        "topics-1000",
        GRAPHQL,
        "ordinary Rust, GraphQL",
        0.3,
    ),
    ratio(
        "opening a GraphQL connection and subscription, against ordinary Rust",
        "open",
        GRAPHQL,
        "ordinary Rust, GraphQL",
        100.0 / 450.0,
    ),
    alone("memory of an idle connection, raw, KiB", "memory", RAW, 5.0),
    alone("memory of an idle connection, GraphQL, KiB", "memory", GRAPHQL, 6.0),
    alone("memory of an idle connection, event stream, KiB", "memory", EVENTS, 5.0),
    alone("memory of an idle topic with one message, KiB", "idle-topics", "pub-sub", 1.0),
    ratio("latency (99 %) against bare tokio, raw, 100 subscribers, 50 a second", "latency-100", RAW, TOKIO, 1.0),
    ratio(
        "latency (99 %) against bare tokio, GraphQL, 100 subscribers, 50 a second",
        "latency-100",
        GRAPHQL,
        TOKIO,
        1.0,
    ),
    ratio("latency (99 %) against bare tokio, raw, 1,000 subscribers, 5 a second", "latency-1000", RAW, TOKIO, 1.0),
    ratio(
        "latency (99 %) against bare tokio, GraphQL, 1,000 subscribers, 5 a second",
        "latency-1000",
        GRAPHQL,
        TOKIO,
        1.0,
    ),
    ratio(
        "publish among 1,000 topics against one topic",
        "publish-topics",
        "pub-sub, 1000 topics",
        "pub-sub, 1 topics",
        1.1,
    ),
    ratio(
        "publish among 100,000 topics against one topic",
        "publish-topics",
        "pub-sub, 100000 topics",
        "pub-sub, 1 topics",
        1.5,
    ),
    ratio(
        "delivery to 2,000 subscriptions of one WebSocket against 100",
        "multiplex",
        "pub-sub, 2000",
        "pub-sub, 100",
        1.1,
    ),
    alone("start to the first response, ms", "start", "pub-sub", 50.0),
];

/// The table of goals.
pub fn section(run: &Run) -> String {
    let mut text = "## Goals\n\nRatios of CPU time unless the row says otherwise.\n\n| | measured | spread | goal | reached |\n|---|---:|---:|---:|---|\n".to_owned();
    for goal in &GOALS {
        let Some((value, least, greatest)) = measured(run, goal) else { continue };
        let _ = writeln!(
            text,
            "| {} | {} | {} to {} | {} | {} |",
            goal.what,
            digits(value),
            digits(least),
            digits(greatest),
            digits(goal.most),
            if value <= goal.most { "yes" } else { "no" }
        );
    }
    text.push('\n');
    text
}

fn measured(run: &Run, goal: &Goal) -> Option<(f64, f64, f64)> {
    // A scenario's name may end with how much of it was asked for.
    let is_meant = |name: &str| {
        let rest = name.strip_prefix(goal.scenario);
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('-').is_some_and(|rest| rest.parse::<u64>().is_ok())
        })
    };
    let table = run.table(goal.scenario).or_else(|| run.tables.iter().find(|table| is_meant(&table.scenario)))?;
    match goal.against {
        Against::Contender(other) => table.ratio(goal.contender, other),
        Against::Best(others) => {
            let cheapest = others
                .iter()
                .filter_map(|other| table.row(other))
                .min_by(|one, other| one.median().total_cmp(&other.median()))?;
            table.ratio(goal.contender, &cheapest.contender)
        }
        Against::Nothing => table.row(goal.contender).map(|row| (row.median(), row.least(), row.greatest())),
    }
}
