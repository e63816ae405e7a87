//! Removing keys, and topics that keep the newest message of each key.

use std::sync::Arc;

use super::{CONFIG, Failure, Instance, ensure, eventually, fresh, kept, new_message, read, reader};
use crate::channel::{
    Age, Channel, Cursor, Error, Event, Key, MessageId, NewMessage, Payload, Refusal, Retention, Start, TopicConfig,
    TopicName,
};

fn keeping(max_keys: usize) -> TopicConfig {
    // The bound of the history does not matter.
    TopicConfig { retention: Some(Retention::LatestPerKey), max_keys: Some(max_keys), max_messages: Some(1), ..CONFIG }
}

fn of_key(key: &str, number: u64) -> Result<NewMessage, Failure> {
    Ok(NewMessage { key: Some(Key::parse(key)?), ..new_message(number)? })
}

fn removal(key: &str) -> Result<NewMessage, Failure> {
    Ok(NewMessage { key: Some(Key::parse(key)?), is_removal: true, ..NewMessage::of(Payload::null()) })
}

/// Of each event: the data of a message, `-k` for the removal of the key `k`, or how many messages a gap tells of.
fn after(channel: &Arc<Channel>, cursor: Cursor) -> Result<Vec<String>, Failure> {
    let mut events = Vec::new();
    read(&mut reader(channel, &Start::After(cursor)), &mut events)?;
    let shown = |event: &Event| match event {
        Event::Message(message, _) if message.is_removal => {
            format!("-{}", message.key.as_ref().map_or("", Key::as_str))
        }
        Event::Message(message, _) => message.data.as_str().to_owned(),
        Event::Gap(gap) => format!("{} {:?}", gap.reason.code(), gap.missed),
        other => format!("{other:?}"),
    };
    Ok(events.iter().map(shown).collect())
}

fn beginning(channel: &Channel) -> Cursor {
    Cursor { epoch: channel.epoch(), offset: 0 }
}

fn is_limit(refused: &Refusal) -> bool {
    matches!(refused, Refusal::Error(Error::LimitReached { .. }))
}

/// A topic that keeps the newest of each key, or nothing where the engine refuses that by a clear error.
async fn create(instance: &Instance, max_keys: usize) -> Result<Option<(TopicName, Arc<Channel>)>, Failure> {
    let name = fresh("latest")?;
    match instance.create(&name, keeping(max_keys)).await {
        Ok(channel) => Ok(Some((name, channel))),
        Err(Error::BadRequest { field: "retention", .. }) => {
            ensure(instance.registry.find(&name).is_none(), || "a refused topic is there".to_owned())?;
            let channel = instance.create(&name, CONFIG).await?;
            let refused = instance.engine.update(&channel, keeping(max_keys), false).await;
            ensure(matches!(refused, Err(Error::BadRequest { field: "retention", .. })), || format!("{refused:?}"))?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn a_removal_is_stored(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("removed")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    a.append(&here, of_key("k", 1)?).await?;
    a.append(&here, removal("k")?).await?;
    a.append(&here, NewMessage { key: Some(Key::parse("k")?), ..NewMessage::of(Payload::null()) }).await?;
    let last = a.append(&here, removal("k")?).await?.cursor;
    eventually("all is everywhere", || (there.last() >= last.offset).then_some(())).await?;
    for channel in [&here, &there] {
        let found = after(channel, beginning(channel))?;
        ensure(found == ["1", "-k", "null", "-k"], || format!("{found:?}"))?;
        ensure(channel.info().messages == 4, || "a removal is a message of a history".to_owned())?;
    }
    // A removed key has no newest offset.
    let expecting = |offset| -> Result<NewMessage, Failure> {
        Ok(NewMessage { expected_key_offset: Some(offset), ..of_key("k", 2)? })
    };
    let refused = b.append(&there, expecting(last.offset)?).await;
    ensure(matches!(refused, Err(Refusal::Error(Error::KeyConflict { current: 0 }))), || format!("{refused:?}"))?;
    b.append(&there, expecting(0)?).await?;
    Ok(())
}

pub(super) async fn the_newest_of_each_key_is_kept(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let Some((name, here)) = create(a, 3).await? else { return Ok(()) };
    let there = b.channel(&name).await?;
    let first = NewMessage { id: Some(MessageId::parse("first")?), ..of_key("a", 1)? };
    let cursor = a.append(&here, first.clone()).await?.cursor;
    for (key, number) in [("b", 2), ("a", 3), ("b", 4), ("b", 5), ("c", 6)] {
        a.append(&here, of_key(key, number)?).await?;
    }
    a.append(&here, removal("c")?).await?;
    let newest = a.append(&here, of_key("c", 8)?).await?.cursor;
    a.append(&here, removal("b")?).await?;
    for channel in [&here, &there] {
        eventually("all is everywhere", || (channel.last() == 9).then_some(())).await?;
        let found = kept(channel)?;
        ensure(found == ["3", "8", "null"], || format!("{found:?} are kept"))?;
        ensure(channel.info().messages == 2, || format!("{} keys have a value", channel.info().messages))?;
        let found = after(channel, cursor)?;
        ensure(found == ["COMPACTED Some(1)", "3", "COMPACTED Some(4)", "8", "-b"], || format!("{found:?}"))?;
        let found = after(channel, newest)?;
        ensure(found == ["-b"], || format!("{found:?} after the newest value"))?;
    }
    let again = b.append(&there, first).await?;
    ensure(again.duplicate && again.cursor == cursor, || format!("the id was forgotten: {again:?}"))?;
    let refused = a.append(&here, new_message(1)?).await;
    ensure(matches!(refused, Err(Refusal::Error(Error::BadRequest { field: "key", .. }))), || format!("{refused:?}"))
}

/// Messages on their way count, too.
pub(super) async fn one_key_too_many_is_refused(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let Some((name, here)) = create(a, 4).await? else { return Ok(()) };
    let there = b.channel(&name).await?;
    a.append(&here, of_key("k0", 0)?).await?;
    let all = (1..=9).map(|number| Ok(a.append(&here, of_key(&format!("k{number}"), number)?)));
    let all: Vec<_> = all.collect::<Result<_, Failure>>()?;
    let mut taken = 0;
    for append in futures_util::future::join_all(all).await {
        match append {
            Ok(_) => taken += 1,
            Err(refused) => ensure(is_limit(&refused), || format!("{refused:?}"))?,
        }
    }
    ensure(taken == 3, || format!("{taken} of 9 keys were taken where 3 had room"))?;
    // One that is on its way makes room for another at once.
    let (removed, added) =
        futures_util::future::join(a.append(&here, removal("k0")?), a.append(&here, of_key("another", 1)?)).await;
    removed?;
    added?;
    a.append(&here, of_key("another", 2)?).await?;
    let refused = b.append(&there, of_key("one more", 1)?).await;
    ensure(refused.as_ref().is_err_and(is_limit), || format!("{refused:?}"))?;
    ensure(here.info().messages == 4, || format!("{} keys", here.info().messages))
}

pub(super) async fn a_history_becomes_the_newest_of_each_key(a: &Instance, b: &Instance) -> Result<(), Failure> {
    if create(a, 1).await?.is_none() {
        return Ok(());
    }
    let name = fresh("becomes")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    a.append(&here, new_message(1)?).await?;
    for number in 2..=9 {
        a.append(&here, of_key(if number % 2 == 0 { "even" } else { "odd" }, number)?).await?;
    }
    let refused = a.engine.update(&here, keeping(5), false).await;
    ensure(matches!(refused, Err(Error::BadRequest { field: "retention", .. })), || format!("{refused:?}"))?;
    a.append(&here, new_message(10)?).await?;
    let short = TopicConfig { max_messages: Some(1), ..TopicConfig::default() };
    a.engine.update(&here, short, false).await?;
    a.append(&here, of_key("even", 11)?).await?;
    a.engine.update(&here, TopicConfig { max_messages: Some(100), ..short }, false).await?;
    for number in 12..=15 {
        a.append(&here, of_key(if number % 2 == 0 { "even" } else { "odd" }, number)?).await?;
    }
    a.engine.update(&here, keeping(5), false).await?;
    for channel in [&here, &there] {
        eventually("it is known", || (channel.config().retention == Some(Retention::LatestPerKey)).then_some(()))
            .await?;
        let found = kept(channel)?;
        ensure(found == ["14", "15"], || format!("{found:?} are kept"))?;
    }
    a.append(&here, of_key("even", 16)?).await?;
    let history = TopicConfig { retention: Some(Retention::History), max_messages: Some(2), ..TopicConfig::default() };
    a.engine.update(&here, history, false).await?;
    a.append(&here, new_message(17)?).await?;
    let found = kept(&here)?;
    ensure(found == ["16", "17"], || format!("{found:?} are kept by a history"))
}

/// A topic of keys as it was left.
pub(super) struct Left {
    name: TopicName,
    first: Cursor,
    with_id: NewMessage,
}

/// Leaves a topic of keys for the next start.
pub(super) async fn leave_keys(instance: &Instance) -> Result<Option<Left>, Failure> {
    let Some((name, channel)) = create(instance, 5).await? else { return Ok(None) };
    let with_id = NewMessage { id: Some(MessageId::parse("replaced")?), ..of_key("a", 1)? };
    let first = instance.append(&channel, with_id.clone()).await?.cursor;
    for round in 0..50 {
        for key in ["a", "b", "c", "d"] {
            instance.append(&channel, of_key(key, round)?).await?;
        }
    }
    instance.append(&channel, removal("b")?).await?;
    let short = NewMessage { ttl: Some(Age::from_millis(1)), ..of_key("c", 77)? };
    instance.append(&channel, short).await?;
    instance.append(&channel, of_key("a", 99)?).await?;
    eventually("the time of a message is over", || (channel.info().messages == 2).then_some(())).await?;
    Ok(Some(Left { name, first, with_id }))
}

/// Finds it as it was left.
pub(super) async fn find_the_keys(instance: &Instance, left: Option<&Left>) -> Result<(), Failure> {
    let Some(Left { name, first, with_id }) = left else { return Ok(()) };
    let channel = instance.channel(name).await?;
    for _ in 0..2 {
        let found = after(&channel, *first)?;
        let wanted = ["COMPACTED Some(199)", "49", "-b", "EXPIRED Some(1)", "99"];
        ensure(found == wanted, || format!("{found:?} after a restart"))?;
        ensure(channel.info().messages == 2, || format!("{} keys have a value", channel.info().messages))?;
        ensure(!channel.reclaim(100).more, || "there is much to take out".to_owned())?;
    }
    let again = instance.append(&channel, with_id.clone()).await?;
    ensure(again.duplicate && again.cursor == *first, || format!("an id was forgotten: {again:?}"))?;
    for key in ["e", "f", "g"] {
        instance.append(&channel, of_key(key, 1)?).await?;
    }
    let refused = instance.append(&channel, of_key("h", 1)?).await;
    ensure(refused.as_ref().is_err_and(is_limit), || format!("{refused:?}"))?;
    instance.registry.clock().pass(25 * 3_600_000);
    let reclaimed = channel.reclaim(100);
    instance.engine.reclaimed(&channel, &reclaimed);
    let found = after(&channel, *first)?;
    ensure(found.first().is_some_and(|gap| gap == "COMPACTED Some(199)"), || format!("{found:?} a day later"))?;
    ensure(found.get(2).is_some_and(|gap| gap == "COMPACTED Some(2)"), || format!("{found:?} a day later"))?;
    let error = |error: Error| Failure(format!("refused: {error}"));
    instance.engine.delete(&channel).await.map_err(error)
}
