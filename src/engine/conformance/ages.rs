//! Messages that grow too old. They are brought from elsewhere with times in the past, so nothing has to be waited for.

use super::{CONFIG, Failure, Instance, ensure, eventually, fresh, kept, new_message, read, reader};
use crate::channel::{
    Age, Channel, Cursor, Error, Event, NewMessage, Origin, Reclaimed, Start, Timestamp, TopicConfig, TopicName,
};

const MINUTE: u64 = 60_000;

/// A message that was published so many minutes ago, and is kept for so many minutes.
fn published(number: u64, minutes_ago: u64, ttl: Option<u64>) -> Result<NewMessage, Failure> {
    let at = Timestamp(Timestamp::now().0.saturating_sub_unsigned(minutes_ago * MINUTE));
    let ttl = ttl.map(|minutes| Age::from_millis(minutes * MINUTE));
    Ok(NewMessage { origin: Some(Origin { at, made_up_id: None }), ttl, ..new_message(number)? })
}

/// Of each event: the data of a message, or how many messages a gap tells of.
fn after(channel: &std::sync::Arc<Channel>, cursor: Cursor) -> Result<Vec<String>, Failure> {
    let mut events = Vec::new();
    read(&mut reader(channel, &Start::After(cursor)), &mut events)?;
    let shown = |event: &Event| match event {
        Event::Message(message, _) => message.data.as_str().to_owned(),
        Event::Gap(gap) => format!("{} {:?}", gap.reason.code(), gap.missed),
        other => format!("{other:?}"),
    };
    Ok(events.iter().map(shown).collect())
}

/// As the sweep of a server does.
fn sweep(instance: &Instance) {
    for channel in instance.registry.aging() {
        loop {
            let reclaimed = channel.reclaim(2);
            instance.engine.reclaimed(&channel, &reclaimed);
            if !reclaimed.more {
                break;
            }
        }
    }
}

pub(super) async fn what_is_too_old_is_gone_everywhere(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("old")?;
    let config = TopicConfig { max_age: Some(Age::from_millis(60 * MINUTE)), ..CONFIG };
    let here = a.create(&name, config).await?;
    let there = b.channel(&name).await?;
    let mut cursors = Vec::new();
    for (number, minutes_ago, ttl) in
        [(1, 120, None), (2, 50, None), (3, 40, Some(10)), (4, 40, Some(20)), (5, 30, Some(45)), (6, 0, None)]
    {
        cursors.push(a.append(&here, published(number, minutes_ago, ttl)?).await?.cursor);
    }
    let (Some(first), Some(second), Some(last)) = (cursors.first(), cursors.get(1), cursors.last()) else {
        return Err(Failure("no cursors".to_owned()));
    };
    eventually("all is everywhere", || (there.last() >= last.offset).then_some(())).await?;
    for round in 0..2 {
        for channel in [&here, &there] {
            let found = kept(channel)?;
            ensure(found == ["2", "5", "6"], || format!("{found:?} are kept in round {round}"))?;
            ensure(channel.info().messages == 3, || format!("{} messages are kept", channel.info().messages))?;
            let found = after(channel, *first)?;
            ensure(found == ["2", "EXPIRED Some(2)", "5", "6"], || format!("{found:?} after the first"))?;
        }
        sweep(a);
        sweep(b);
    }
    // A shorter age takes effect at once, and what it took does not come back.
    for (minutes, wanted) in [(45, vec!["5", "6"]), (600, vec!["5", "6"]), (20, vec!["6"])] {
        let change = TopicConfig { max_age: Some(Age::from_millis(minutes * MINUTE)), ..TopicConfig::default() };
        a.engine.update(&here, change, false).await?;
        for channel in [&here, &there] {
            eventually("the change is known", || (channel.config().max_age == change.max_age).then_some(())).await?;
            let found = kept(channel)?;
            ensure(found == wanted, || format!("{found:?} with an age of {minutes} minutes"))?;
        }
    }
    for channel in [&here, &there] {
        let found = after(channel, *second)?;
        ensure(found == ["EXPIRED Some(3)", "6"], || format!("{found:?} after the second"))?;
    }
    Ok(())
}

pub(super) async fn a_short_time_ends(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("short")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    a.append(&here, new_message(1)?).await?;
    let last = a.append(&here, NewMessage { ttl: Some(Age::from_millis(1)), ..new_message(2)? }).await?.cursor;
    eventually("all is everywhere", || (there.last() >= last.offset).then_some(())).await?;
    for channel in [&here, &there] {
        eventually("the message is too old", || kept(channel).ok().filter(|kept| kept == &["1"])).await?;
    }
    let next = a.append(&here, new_message(3)?).await?.cursor;
    eventually("the next is everywhere", || (there.last() >= next.offset).then_some(())).await?;
    for instance in [a, b] {
        sweep(instance);
    }
    for channel in [&here, &there] {
        let found = kept(channel)?;
        ensure(found == ["1", "3"], || format!("{found:?} are kept"))?;
        ensure(channel.reclaim(1) == Reclaimed::default(), || "there is something left to take out".to_owned())?;
    }
    Ok(())
}

/// Leaves a topic whose messages have ages, for the next start.
pub(super) async fn leave_ages(instance: &Instance) -> Result<(TopicName, Cursor), Failure> {
    let name = fresh("ages")?;
    let config = TopicConfig { max_age: Some(Age::from_millis(600 * MINUTE)), ..CONFIG };
    let channel = instance.create(&name, config).await?;
    let first = instance.append(&channel, published(0, 590, None)?).await?.cursor;
    for (number, minutes_ago, ttl) in [(1, 120, None), (2, 60, Some(30)), (3, 60, Some(90)), (4, 0, None)] {
        instance.append(&channel, published(number, minutes_ago, ttl)?).await?;
    }
    Ok((name, first))
}

/// Finds it as it was left, and what is too old gone.
pub(super) async fn find_the_ages(instance: &Instance, left: &(TopicName, Cursor)) -> Result<(), Failure> {
    let channel = instance.channel(&left.0).await?;
    eventually("all is read", || kept(&channel).ok().filter(|kept| kept == &["0", "1", "3", "4"])).await?;
    let clock = instance.registry.clock();
    // A clock that is set does nothing, and one that goes on does.
    clock.set_by(-50_000_000);
    let found = after(&channel, left.1)?;
    ensure(found == ["1", "EXPIRED Some(1)", "3", "4"], || format!("{found:?} after a restart"))?;
    clock.set_by(50_000_000);
    clock.pass(31 * 60_000);
    let found = after(&channel, left.1)?;
    ensure(found == ["1", "EXPIRED Some(2)", "4"], || format!("{found:?} half an hour later"))?;
    clock.pass(600 * 60_000);
    sweep(instance);
    let found = after(&channel, left.1)?;
    ensure(found == ["EXPIRED Some(4)"], || format!("{found:?} ten hours later"))?;
    let reached = channel.config().max_age;
    ensure(reached == Some(Age::from_millis(600 * MINUTE)), || format!("{reached:?} is the age"))?;
    let error = |error: Error| Failure(format!("refused: {error}"));
    instance.engine.delete(&channel).await.map_err(error)
}
