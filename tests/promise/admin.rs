//! What is done to topics: made, made smaller and larger, deleted and made again.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    model::{Bound, now},
    net::{call, encode},
    random::Random,
    round::Round,
};

/// `MAX_MESSAGES_PER_TOPIC` of the servers: what topics keep that are made by use.
pub const DEFAULT_BOUND: u64 = 300;

const BOUNDS: [u64; 7] = [1, 2, 5, 20, 60, 300, 1000];

/// Makes the round's topics.
pub async fn create_all(round: &Round<'_>) {
    let mut random = round.random(1);
    for topic in &round.topics {
        if round.deletes {
            // Whoever uses it while it is gone makes it again, with the default.
            let bound = Bound { max_messages: DEFAULT_BOUND, sent: 0, answered: Some(0) };
            round.model.lock().unwrap().bound(topic, bound);
        }
        create(round, &mut random, topic).await;
    }
}

async fn create(round: &Round<'_>, random: &mut Random, topic: &str) {
    let (_, addr) = round.instance(random);
    let max_messages = *random.pick(&BOUNDS);
    let index = sent(round, topic, max_messages);
    let body = json!({"name": topic, "max_messages": max_messages});
    let answer = call(addr, "POST", "/topics", Some(&body)).await;
    let status = answer.as_ref().map_or(0, |answer| answer.status);
    let mut model = round.model.lock().unwrap();
    model.note(topic, format!("created with {max_messages}: {status}"));
    match status {
        201 | 409 => {}
        0 | 503 | 504 if model.hurt => {}
        _ => model.violation(&[topic], format!("creating {topic} is answered by {answer:?}")),
    }
    if status == 201 && !round.deletes {
        answered(&mut model, topic, index);
    }
}

/// Notes that a bound was asked for.
fn sent(round: &Round<'_>, topic: &str, max_messages: u64) -> usize {
    let mut model = round.model.lock().unwrap();
    model.bound(topic, Bound { max_messages, sent: now(), answered: None });
    model.bounds[topic].len() - 1
}

fn answered(model: &mut crate::model::Model, topic: &str, index: usize) {
    if let Some(bound) = model.bounds.get_mut(topic).and_then(|bounds| bounds.get_mut(index)) {
        bound.answered = Some(now());
    }
    for epoch in model.topics.get(topic).cloned().unwrap_or_default() {
        model.settle_floor(&epoch);
    }
}

/// Does things to topics while the round is busy.
pub async fn run(round: &Round<'_>) {
    let mut random = round.random(2);
    while round.is_busy() {
        sleep(Duration::from_millis(random.between(30, 300))).await;
        let topic = random.pick(&round.topics).clone();
        match random.below(10) {
            0..=2 => resize(round, &mut random, &topic).await,
            3..=5 if round.deletes => {
                delete(round, &mut random, &topic).await;
                if random.chance(60) {
                    create(round, &mut random, &topic).await;
                }
            }
            6 => look(round, &mut random, &topic).await,
            _ => {}
        }
    }
}

async fn resize(round: &Round<'_>, random: &mut Random, topic: &str) {
    let (_, addr) = round.instance(random);
    let max_messages = *random.pick(&BOUNDS);
    let index = sent(round, topic, max_messages);
    let answer = if random.chance(50) {
        call(addr, "PATCH", &format!("/topics/{}", encode(topic)), Some(&json!({"max_messages": max_messages}))).await
    } else {
        let query = "mutation($n: String!, $m: Int) { updateTopic(name: $n, maxMessages: $m) { name } }";
        let body = json!({"query": query, "variables": {"n": topic, "m": max_messages}});
        call(addr, "POST", "/graphql", Some(&body)).await
    };
    let code = answer.as_ref().and_then(|answer| {
        answer.code().or(answer.body["errors"][0]["extensions"]["code"].as_str()).map(ToOwned::to_owned)
    });
    let mut model = round.model.lock().unwrap();
    model.note(topic, format!("resized to {max_messages}: {code:?}"));
    match (&answer, code.as_deref()) {
        (Some(_), None) => answered(&mut model, topic, index),
        (Some(_), Some("TOPIC_NOT_FOUND")) if round.deletes => {}
        (Some(_), Some("UNAVAILABLE" | "UNKNOWN")) | (None, _) if model.hurt => {}
        _ => model.violation(&[topic], format!("resizing {topic} is answered by {answer:?}")),
    }
}

/// Deletes a topic, and learns which of its incarnations that ended.
async fn delete(round: &Round<'_>, random: &mut Random, topic: &str) {
    let (_, addr) = round.instance(random);
    let sent = now();
    {
        let mut model = round.model.lock().unwrap();
        model.deletions.push((topic.to_owned(), sent));
        model.deleting.push((topic.to_owned(), sent));
        model.counts.deletions += 1;
        model.note(topic, "deletion is asked for");
    }
    let query = "mutation($n: String!) { deleteTopic(name: $n) { epoch } }";
    let body = json!({"query": query, "variables": {"n": topic}});
    let answer = call(addr, "POST", "/graphql", Some(&body)).await;
    let body = answer.map_or(Value::Null, |answer| answer.body);
    let mut model = round.model.lock().unwrap();
    model.deleting.retain(|(name, at)| (name.as_str(), *at) != (topic, sent));
    let code = body["errors"][0]["extensions"]["code"].as_str();
    if let Some(epoch) = body["data"]["deleteTopic"]["epoch"].as_str() {
        model.note(topic, format!("deleted: {}", crate::model::short(epoch)));
        model.deleted(topic, epoch, sent);
    } else if code == Some("TOPIC_NOT_FOUND") {
    } else {
        // Nobody knows which incarnation it was, if any.
        model.note(topic, format!("deletion came to {body}"));
        for epoch in model.topics.get(topic).cloned().unwrap_or_default() {
            if let Some(incarnation) = model.incarnations.get_mut(&epoch) {
                incarnation.deleted.get_or_insert((sent, None));
            }
        }
        if !model.hurt {
            model.violation(&[topic], format!("deleting {topic} is answered by {body}"));
        }
    }
}

/// Looks at lists in passing: they are answered.
async fn look(round: &Round<'_>, random: &mut Random, topic: &str) {
    let (_, addr) = round.instance(random);
    for path in
        [format!("/topics/{}/consumers", encode(topic)), format!("/topics/{}", encode(topic)), "/stats".to_owned()]
    {
        let answer = call(addr, "GET", &path, None).await;
        let mut model = round.model.lock().unwrap();
        match answer.as_ref().map(|answer| answer.status) {
            Some(200) => {}
            Some(404) if round.deletes => {}
            None | Some(503) if model.hurt => {}
            _ => model.violation(&[topic], format!("GET {path} is answered by {answer:?}")),
        }
    }
}
