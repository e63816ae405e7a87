//! Pages of history, held against the model like subscriptions: nothing skipped, nothing twice, and every sign on a page
//! true.

use std::{ops::Range, time::Duration};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    begin::Begin,
    feed::shown,
    judge::Judge,
    leg::{Ask, Door, Gap, Leg, Seen, Start},
    model::{Micros, Place, now},
    net::{call, encode},
    random::Random,
    round::Round,
};

/// One page as it came.
struct Page {
    events: Vec<(Micros, Seen)>,
    places: Vec<(Place, String)>,
    sent: Micros,
    received: Micros,
    instance: usize,
    body: Value,
}

/// Pages through topics while the round is busy.
pub async fn run(round: &Round<'_>) {
    let mut random = round.random(3);
    while round.is_busy() {
        let topic = random.pick(&round.topics).clone();
        let mut start = match random.below(4) {
            0 => Start::Last(random.below(400)),
            1 => {
                let model = round.model.lock().unwrap();
                let known = model.cursors.get(&topic).filter(|known| !known.is_empty());
                known.map_or(Start::Last(u32::MAX.into()), |known| {
                    let (cursor, place) = random.pick(known).clone();
                    Start::After { cursor, place }
                })
            }
            _ => Start::Last(u32::MAX.into()),
        };
        // A walk of a few pages.
        for _ in 0..random.between(1, 8) {
            let limit = *random.pick(&[1, 2, 7, 50, 200]);
            match page(round, &mut random, &topic, &start, limit).await {
                Some((cursor, place)) => start = Start::After { cursor, place },
                None => break,
            }
        }
        sleep(Duration::from_millis(random.below(120))).await;
    }
}

/// Reads a page, holds it against the model, and returns where the next begins.
async fn page(
    round: &Round<'_>,
    random: &mut Random,
    topic: &str,
    start: &Start,
    limit: u64,
) -> Option<(String, Place)> {
    let by_graphql = random.chance(40);
    let start = match start {
        // GraphQL has no page of the last ones that ends before their end.
        Start::Last(count) if by_graphql && *count < u64::from(u32::MAX) => &Start::Last((*count).clamp(1, limit)),
        start => start,
    };
    let page = if by_graphql {
        graphql(round, random, topic, start, limit).await?
    } else {
        rest(round, random, topic, start, limit).await?
    };
    round.model.lock().unwrap().counts.pages += 1;
    let leg = leg(topic, &page, start.clone());
    let mut model = round.model.lock().unwrap();
    // A page that is not full has everything that was there.
    let until = (page.places.len() < limit as usize && round.servers.len() == 1).then_some(page.sent);
    let judge = Judge { model: &model, leg: &leg, begin: &Begin::Asked, until };
    if let Err(why) = judge.walk(&page.events) {
        model.violation(&[topic], format!("a page of {limit}: {why}\n  {}\n  {}", leg.summary(), page.body));
        return None;
    }
    let next = page.body["next"].as_str().or(page.body["pageInfo"]["endCursor"].as_str());
    let place = next.and_then(|next| round.dialect.place(next));
    if let Some((last, _)) = page.places.last()
        && place.as_ref() != Some(last)
    {
        model.violation(&[topic], format!("a page's end is not its last message: {}", page.body));
        return None;
    }
    next.map(ToOwned::to_owned).zip(place)
}

/// The page as if it were a subscription.
fn leg(topic: &str, page: &Page, start: Start) -> Leg {
    let ask = Ask::plain(topic.to_owned(), start);
    let mut leg = Leg::new("pages", Door::Events, ask, page.instance, page.sent);
    leg.stood = Some(page.received);
    leg.events.clone_from(&page.events);
    leg
}

async fn rest(round: &Round<'_>, random: &mut Random, topic: &str, start: &Start, limit: u64) -> Option<Page> {
    let query = match start {
        Start::After { cursor, .. } => format!("limit={limit}&after={}", encode(cursor)),
        Start::Last(count) if *count < u64::from(u32::MAX) => format!("limit={limit}&last={count}"),
        _ => format!("limit={limit}"),
    };
    let (instance, addr) = round.instance(random);
    let sent = now();
    let answer = call(addr, "GET", &format!("/topics/{}/messages?{query}", encode(topic)), None).await;
    let body = fine(round, topic, answer)?;
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    read(round, topic, instance, sent, body, &messages, "id", ["from_offset", "to_offset"])
}

async fn graphql(round: &Round<'_>, random: &mut Random, topic: &str, start: &Start, limit: u64) -> Option<Page> {
    let mut arguments = format!("first: {limit}");
    match start {
        Start::After { cursor, .. } => arguments += &format!(", after: {cursor:?}"),
        Start::Last(count) if *count < u64::from(u32::MAX) => arguments = format!("last: {count}"),
        _ => {}
    }
    ask(round, random, topic, &arguments).await
}

async fn ask(round: &Round<'_>, random: &mut Random, topic: &str, arguments: &str) -> Option<Page> {
    let fields = round.dialect.fields();
    let query = format!(
        "{{ topic(name: {topic:?}) {{ messages({arguments}) {{ edges {{ cursor node {{ {fields} }} }} totalCount \
         pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} gap {{ missed fromOffset toOffset reason }} \
         }} }} }}"
    );
    let (instance, addr) = round.instance(random);
    let sent = now();
    let answer = call(addr, "POST", "/graphql", Some(&json!({"query": query}))).await;
    let body = fine(round, topic, answer)?;
    let page = body["data"]["topic"]["messages"].clone();
    if page.is_null() {
        return None;
    }
    let edges = page["edges"].as_array().cloned().unwrap_or_default();
    let messages: Vec<_> = edges.iter().map(|edge| edge["node"].clone()).collect();
    if let Some(edge) = edges.iter().find(|edge| edge["cursor"] != edge["node"]["cursor"]) {
        round.model.lock().unwrap().violation(&[topic], format!("an edge has another cursor than its node: {edge}"));
    }
    read(round, topic, instance, sent, page, &messages, round.dialect.message_id, ["fromOffset", "toOffset"])
}

/// The body of an answer that the contract has.
fn fine(round: &Round<'_>, topic: &str, answer: Option<crate::net::Answer>) -> Option<Value> {
    let mut model = round.model.lock().unwrap();
    let Some(answer) = answer else {
        if !model.hurt {
            model.violation(&[topic], "a page is not answered");
        }
        return None;
    };
    let code = answer.code().or(answer.body["errors"][0]["extensions"]["code"].as_str()).map(ToOwned::to_owned);
    match code.as_deref() {
        None => return Some(answer.body),
        Some("TOPIC_NOT_FOUND") if round.deletes => {}
        Some("UNAVAILABLE") if model.hurt => {}
        Some(code) => model.violation(&[topic], format!("a page is refused: {code}: {}", answer.body)),
    }
    None
}

#[expect(clippy::too_many_arguments, reason = "the two doors differ in names only")]
fn read(
    round: &Round<'_>,
    topic: &str,
    instance: usize,
    sent: Micros,
    body: Value,
    messages: &[Value],
    id: &str,
    [from, to]: [&str; 2],
) -> Option<Page> {
    let received = now();
    let mut events = Vec::new();
    let mut places = Vec::new();
    if let Some(reason) = body["gap"]["reason"].as_str() {
        events.push((
            received,
            Seen::Gap(Gap {
                topic: topic.to_owned(),
                missed: body["gap"]["missed"].as_u64(),
                from: body["gap"][from].as_u64()?,
                to: body["gap"][to].as_u64()?,
                reason: reason.to_owned(),
            }),
        ));
    }
    for message in messages {
        let Some(shown) = shown(&round.dialect, message, id) else {
            round.model.lock().unwrap().violation(&[topic], format!("no message on a page: {message}"));
            return None;
        };
        let mut model = round.model.lock().unwrap();
        model.counts.deliveries += 1;
        model.seen(&shown, "pages");
        drop(model);
        let cursor = message["cursor"].as_str().unwrap_or_default().to_owned();
        places.push((shown.place.clone(), cursor.clone()));
        let (place, time, topic) = (shown.place, shown.time, shown.topic);
        events.push((received, Seen::Message { topic, place, cursor, pattern_cursor: None, time }));
    }
    Some(Page { events, places, sent, received, instance, body })
}

/// When nothing moves any more, everything that is kept can be paged through, forwards and backwards, and every sign is
/// true.
pub async fn settled(round: &Round<'_>) {
    let mut random = round.random(4);
    for topic in &round.topics {
        let Some(all) = kept(round, &mut random, topic).await else { continue };
        let kept: Vec<u64> = all.places.iter().map(|(place, _)| place.offset).collect();
        let first = random.between(1, 9);
        walk(round, &mut random, topic, &kept, first, true).await;
        walk(round, &mut random, topic, &kept, first, false).await;
        edges(round, &mut random, topic, &all, &kept).await;
        for pair in all.places.windows(2) {
            if pair[0].1 >= pair[1].1 {
                let text = format!("cursors do not sort as text: {:?}", pair);
                round.model.lock().unwrap().violation(&[topic], text);
                break;
            }
        }
    }
}

/// What is kept is the end of the log, as long as the topic's bound. Another instance may come to that a moment later.
async fn kept(round: &Round<'_>, random: &mut Random, topic: &str) -> Option<Page> {
    let mut attempts = if round.servers.len() > 1 { 200 } else { 1 };
    loop {
        attempts -= 1;
        let all = rest(round, random, topic, &Start::Last(u32::MAX.into()), 1000).await?;
        let Err(why) = check_kept(round, topic, &all) else { return Some(all) };
        if attempts == 0 {
            round.model.lock().unwrap().violation(&[topic], why);
            return None;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn check_kept(round: &Round<'_>, topic: &str, all: &Page) -> Result<(), String> {
    let leg = leg(topic, all, Start::Last(u32::MAX.into()));
    let mut model = round.model.lock().unwrap();
    model.counts.pages += 1;
    let judge = Judge { model: &model, leg: &leg, begin: &Begin::Asked, until: Some(Micros::MAX) };
    judge.walk(&all.events).map(drop).map_err(|why| {
        let tail: Vec<_> = all.places.iter().rev().take(3).collect();
        format!("what is kept of {topic}: {why}; it ends with {tail:?}\n  {}", leg.summary())
    })
}

async fn walk(round: &Round<'_>, random: &mut Random, topic: &str, kept: &[u64], size: u64, forwards: bool) {
    let mut at: Option<String> = None;
    let mut index = if forwards { 0 } else { kept.len() };
    for _ in 0..6 {
        let place = at.as_ref().map(|at| format!(", {}: {at:?}", if forwards { "after" } else { "before" }));
        let arguments = format!("{}: {size}{}", if forwards { "first" } else { "last" }, place.unwrap_or_default());
        let range = if forwards {
            index..(index + size as usize).min(kept.len())
        } else {
            index.saturating_sub(size as usize)..index
        };
        let Some(page) = check_signs(round, random, topic, &arguments, kept, range.clone()).await else { return };
        let edge = if forwards { page.places.last() } else { page.places.first() };
        let Some((_, cursor)) = edge else { return };
        at = Some(cursor.clone());
        index = if forwards { range.end } else { range.start };
    }
}

/// Pages at both ends of what is kept, and from a place that is gone.
async fn edges(round: &Round<'_>, random: &mut Random, topic: &str, all: &Page, kept: &[u64]) {
    let (Some((first, begin)), Some((_, end))) = (all.places.first(), all.places.last()) else { return };
    let count = kept.len();
    check_signs(round, random, topic, &format!("first: 3, after: {end:?}"), kept, count..count).await;
    check_signs(round, random, topic, &format!("last: 3, before: {begin:?}"), kept, 0..0).await;
    let gone = {
        let model = round.model.lock().unwrap();
        let known = model.cursors.get(topic).into_iter().flatten();
        let gone = known.filter(|(_, place)| place.epoch == first.epoch && place.offset < first.offset);
        gone.map(|(cursor, _)| cursor.clone()).next()
    };
    if let Some(gone) = gone {
        check_signs(round, random, topic, &format!("first: 3, after: {gone:?}"), kept, 0..count.min(3)).await;
    }
}

/// Reads a page that is known beforehand; nothing if it is another.
async fn check_signs(
    round: &Round<'_>,
    random: &mut Random,
    topic: &str,
    arguments: &str,
    kept: &[u64],
    range: Range<usize>,
) -> Option<Page> {
    let page = ask(round, random, topic, arguments).await?;
    let offsets: Vec<u64> = page.places.iter().map(|(place, _)| place.offset).collect();
    let (signs, gap) = (&page.body["pageInfo"], &page.body["gap"]);
    let cursor_of = |one: Option<&(Place, String)>| one.map(|(_, cursor)| Value::from(cursor.as_str()));
    let mut model = round.model.lock().unwrap();
    model.counts.pages += 1;
    let fits = offsets == kept[range.clone()]
        && signs["hasNextPage"] == (range.end < kept.len())
        && signs["hasPreviousPage"] == (range.start > 0)
        && page.body["totalCount"] == kept.len()
        && (gap.is_null() || (range.start == 0 && arguments.contains("after")))
        && cursor_of(page.places.first()).is_none_or(|cursor| signs["startCursor"] == cursor)
        && cursor_of(page.places.last()).is_none_or(|cursor| signs["endCursor"] == cursor);
    if fits {
        drop(model);
        return Some(page);
    }
    if !model.dense {
        // Another instance may have evicted more, or less, when the topic's bound has changed.
        return None;
    }
    let text = format!(
        "messages({arguments}) of {topic}: {offsets:?} with {signs}, total {}, gap {gap}; kept are {:?} to {:?}, wanted {:?}",
        page.body["totalCount"],
        kept.first(),
        kept.last(),
        &kept[range]
    );
    model.violation(&[topic], text);
    None
}
