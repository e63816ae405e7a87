//! The state of a topic: of each key the newest message that is kept, the same on every instance and after a restart.

use std::sync::Arc;

use super::{CONFIG, Failure, Instance, ensure, eventually, fresh, new_message, read, reader};
use crate::channel::{
    BatchLimit, Channel, Cursor, Error, Event, Key, NewMessage, Payload, Retention, Start, TopicConfig, TopicName,
};

/// A value of a key; 0 removes it.
fn keyed(key: &str, number: u64) -> Result<NewMessage, Failure> {
    let key = if key.is_empty() { None } else { Some(Key::parse(key)?) };
    if number == 0 {
        return Ok(NewMessage { key, is_removal: true, ..NewMessage::of(Payload::null()) });
    }
    Ok(NewMessage { key, ..new_message(number)? })
}

fn shown(events: &[Event]) -> Vec<String> {
    let one = |event: &Event| match event {
        Event::Message(message, _) => message.data.as_str().to_owned(),
        other => format!("{other:?}"),
    };
    events.iter().map(one).collect()
}

/// The data of what a reader of the state gets.
fn state(channel: &Arc<Channel>) -> Result<Vec<String>, Failure> {
    let mut events = Vec::new();
    read(&mut reader(channel, &Start::State), &mut events)?;
    Ok(shown(&events))
}

/// The same by steps of a page.
fn page(channel: &Arc<Channel>) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let step = channel.step_of_state(after, "", BatchLimit::messages(2), &mut found);
        if !step.more {
            return found.iter().map(|message| message.data.as_str().to_owned()).collect();
        }
        after = step.after;
    }
}

async fn append_all(at: &Instance, to: &Arc<Channel>, values: &[(&str, u64)]) -> Result<Cursor, Failure> {
    let mut newest = Cursor { epoch: to.epoch(), offset: 0 };
    for (key, number) in values {
        newest = at.append(to, keyed(key, *number)?).await?.cursor;
    }
    Ok(newest)
}

/// A topic that keeps a history, or the newest message of each key; nothing where the engine cannot keep that.
async fn create(
    at: &Instance,
    retention: Retention,
    max_messages: usize,
) -> Result<Option<(TopicName, Arc<Channel>)>, Failure> {
    let name = fresh("state")?;
    let config = TopicConfig { retention: Some(retention), max_messages: Some(max_messages), ..CONFIG };
    match at.create(&name, config).await {
        Ok(channel) => Ok(Some((name, channel))),
        Err(Error::BadRequest { field: "retention", .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Those values that a topic of this retention takes.
fn taken<'a>(retention: Retention, values: &[(&'a str, u64)]) -> Vec<(&'a str, u64)> {
    let needs_key = retention == Retention::LatestPerKey;
    values.iter().copied().filter(|(key, _)| !needs_key || !key.is_empty()).collect()
}

const RETENTIONS: [Retention; 2] = [Retention::History, Retention::LatestPerKey];

pub(super) async fn the_newest_of_each_key(a: &Instance, b: &Instance) -> Result<(), Failure> {
    for retention in RETENTIONS {
        let Some((name, here)) = create(a, retention, 7).await? else { continue };
        let there = b.channel(&name).await?;
        ensure(state(&here)?.is_empty() && page(&here).is_empty(), || "a new topic has a state".to_owned())?;
        let values = [("old", 1), ("a", 2), ("b", 3), ("", 4), ("a", 5), ("c", 6), ("b", 7), ("x", 8), ("x", 0)];
        append_all(a, &here, &taken(retention, &values)).await?;
        let newest = append_all(b, &there, &[("d", 9)]).await?;
        // The history is full, and has nothing of the oldest key any more.
        let oldest: &[_] = if retention == Retention::LatestPerKey { &["1"] } else { &[] };
        for channel in [&here, &there] {
            eventually("all is everywhere", || (channel.last() >= newest.offset).then_some(())).await?;
            let (found, paged) = (state(channel)?, page(channel));
            let wanted = [oldest, &["5", "6", "7", "9"]].concat();
            ensure(found == wanted && paged == found, || format!("the state is {found:?}, in pages {paged:?}"))?;
        }
        // A reader that has begun gets what comes meanwhile in its newest form, and what was removed meanwhile.
        let mut begun = reader(&there, &Start::State);
        let newest = append_all(a, &here, &[("a", 10), ("c", 0), ("a", 11)]).await?;
        eventually("all is everywhere", || (there.last() >= newest.offset).then_some(())).await?;
        let mut events = Vec::new();
        read(&mut begun, &mut events)?;
        let found = shown(&events);
        ensure(found == [oldest, &["7", "9", "null", "11"]].concat(), || {
            format!("{found:?} with what came meanwhile")
        })?;
    }
    Ok(())
}

/// Leaves topics with a state; [`find_the_states`] looks for it after a restart.
pub(super) async fn leave_states(instance: &Instance) -> Result<Vec<TopicName>, Failure> {
    let mut names = Vec::new();
    for retention in RETENTIONS {
        let Some((name, channel)) = create(instance, retention, 100).await? else { continue };
        let values = [("a", 1), ("b", 2), ("a", 3), ("", 4), ("b", 0), ("c", 5)];
        append_all(instance, &channel, &taken(retention, &values)).await?;
        names.push(name);
    }
    Ok(names)
}

pub(super) async fn find_the_states(instance: &Instance, names: &[TopicName]) -> Result<(), Failure> {
    for name in names {
        let channel = instance.channel(name).await?;
        let (found, paged) = (state(&channel)?, page(&channel));
        ensure(found == ["3", "5"] && paged == found, || format!("the state is {found:?} after a restart"))?;
    }
    Ok(())
}
