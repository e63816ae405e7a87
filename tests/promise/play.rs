//! One round from its first topic to the verdict.

use std::{sync::Mutex, time::Duration};

use futures_util::future::{join, join_all, join3};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    admin, chain,
    engine::Site,
    ledger,
    leg::{Door, End, Leg},
    model::Model,
    net::call,
    pages,
    publisher::Publisher,
    random::Random,
    reader::Reader,
    report::Counts,
    round::{Engine, Phase, Round},
};

/// How long readers may take to come to the end.
const SETTLE: Duration = Duration::from_secs(20);

/// The same when an engine has to find its leaders again first.
const SETTLE_CLUSTER: Duration = Duration::from_secs(90);

/// How many microseconds before a subscription and after its newest event a finding tells of.
const BEFORE: u64 = 300_000;
const AFTER: u64 = 100_000;

/// Plays a round.
///
/// # Errors
/// The finding, as text.
pub async fn play(site: &Site, seed: u64, number: u64) -> Result<Counts, String> {
    let mut random = Random::new(seed, number * 1000);
    let stops = site.engine != Engine::Nats && random.chance(12);
    let hurts = !stops && site.engine != Engine::Memory && random.chance(60);
    let deletes = random.chance(35);
    let topics = (0..random.between(1, 4)).map(|index| match index {
        0 => format!("r{number}.a"),
        1 => format!("r{number}.b.x"),
        2 => format!("r{number}.c"),
        _ => format!("r{number}.d.e.x"),
    });
    let readers = random.between(2, 7) as usize;
    let (tell, phase) = watch::channel(Phase::Busy);
    let round = Round {
        engine: site.engine,
        seed,
        number,
        servers: &site.servers,
        dialect: site.dialect.clone(),
        model: Mutex::new(Model {
            dense: site.engine != Engine::Nats,
            deletes,
            hurt: stops || hurts,
            ..Model::default()
        }),
        topics: topics.collect(),
        phase,
        chains: (0..readers).map(|_| Mutex::default()).collect(),
        deletes,
    };
    round.note("server", format!("round {number}: deletes {deletes}, stops {stops}, hurts {hurts}"));
    admin::create_all(&round).await;
    let conduct = async {
        let publishers = (0..random.between(1, 3)).map(|index| Publisher::new(&round, index).run());
        let busy = Duration::from_millis(random.between(500, 2500));
        let others = join3(admin::run(&round), pages::run(&round), Publisher::new(&round, 90).mix());
        let work = join(join_all(publishers.collect::<Vec<_>>()), others);
        let trouble = async {
            let ended = Instant::now() + busy;
            if hurts {
                site.hurt(&round, &mut random, busy).await;
            }
            while Instant::now() < ended && round.model.lock().unwrap().violations.is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
            if stops {
                site.stop(&round).await;
            }
            let _ = tell.send(Phase::Quiet);
        };
        join(work, trouble).await;
        if !stops {
            let _ = tell.send(Phase::Settle);
            settle(&round).await;
        }
        ledger::check(&mut round.model.lock().unwrap());
        if !stops && round.model.lock().unwrap().violations.is_empty() {
            pages::settled(&round).await;
        }
        let _ = tell.send(Phase::Over);
    };
    let readers = (0..readers).map(|index| Reader::new(&round, index).run());
    join(join_all(readers.collect::<Vec<_>>()), conduct).await;
    judge_all(&round);
    for fault in site.servers.iter().filter_map(crate::server::Server::fault) {
        round.model.lock().unwrap().violation(&["server"], fault);
    }
    if stops {
        site.start().await?;
    }
    for topic in &round.topics {
        call(site.servers[0].addr(), "DELETE", &format!("/topics/{topic}"), None).await;
    }
    let mut model = round.model.into_inner().unwrap();
    model.counts.rounds = 1;
    match model.violations.first() {
        None => Ok(model.counts),
        Some(first) => {
            let more = model.violations.len() - 1;
            Err(format!(
                "round {number}, {:?}, deletes {deletes}, stops {stops}, hurts {hurts}; {more} more\n{first}",
                site.engine
            ))
        }
    }
}

/// Waits until every reader has been told everything.
async fn settle(round: &Round<'_>) {
    let begun = Instant::now();
    let patience = if round.engine == Engine::Nats { SETTLE_CLUSTER } else { SETTLE };
    while judge_all(round) {
        let missing = missing(round);
        let Some((index, leg, why)) = missing else { return };
        if begun.elapsed() > patience {
            return fail(round, index, leg, &format!("within {patience:?}: {why}"));
        }
        sleep(Duration::from_millis(30)).await;
    }
}

/// What some reader still has to be told.
fn missing(round: &Round<'_>) -> Option<(usize, usize, String)> {
    let model = round.model.lock().unwrap();
    let says = |leg: &Leg| leg.door != Door::GraphqlSocket || round.dialect.resumes;
    for (index, chain) in round.chains.iter().enumerate() {
        let legs = chain.lock().unwrap();
        match legs.last() {
            Some(leg) if leg.last && leg.end == End::Open && (leg.stood.is_some() || !says(leg)) => {}
            _ => return Some((index, legs.len().saturating_sub(1), "no subscription stands".to_owned())),
        }
        if let Err((leg, why)) = chain::judge(&model, &legs, true) {
            return Some((index, leg, why));
        }
    }
    None
}

/// Holds what every reader saw against the model; false when something does not fit.
fn judge_all(round: &Round<'_>) -> bool {
    for (index, chain) in round.chains.iter().enumerate() {
        let judged = {
            let model = round.model.lock().unwrap();
            let legs = chain.lock().unwrap();
            chain::judge(&model, &legs, false)
        };
        if let Err((leg, why)) = judged {
            fail(round, index, leg, &why);
            return false;
        }
    }
    round.model.lock().unwrap().violations.is_empty()
}

fn fail(round: &Round<'_>, index: usize, leg: usize, why: &str) {
    let name = format!("reader{index}");
    let legs = round.chains[index].lock().unwrap();
    let mut text = format!("{name}, subscription {leg}: {why}");
    for (number, one) in legs.iter().enumerate().take(leg + 1) {
        let events = if number + 2 < leg { 3 } else { 60 };
        text += &format!("\n  {number}: {}", one.summary_with(events));
    }
    let topics: Vec<_> = legs.get(leg).map_or_else(Vec::new, |leg| {
        round.topics.iter().filter(|topic| leg.ask.target.covers(topic)).map(String::as_str).collect()
    });
    let subjects = [&[name.as_str()][..], &topics].concat();
    let time = legs.get(leg).map_or(0..u64::MAX, |leg| {
        let newest = leg.events.last().map_or(leg.sent, |(at, _)| *at);
        leg.sent.saturating_sub(BEFORE)..newest.max(leg.sent) + AFTER
    });
    round.model.lock().unwrap().violation_between(&subjects, text, time);
}
