//! Topics: made once, changed, deleted, on every instance.

use super::{CONFIG, Failure, Instance, ensure, eventually, fresh, kept, new_message, read, reader};
use crate::channel::{Error, Event, ReadStatus, Refusal, Start, TopicConfig, TopicName};

pub(super) async fn creation_is_exclusive(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("exclusive")?;
    let (one, other) = tokio::join!(a.create(&name, CONFIG), b.create(&name, CONFIG));
    let made = usize::from(one.is_ok()) + usize::from(other.is_ok());
    ensure(made == 1, || format!("{made} of two creations succeeded"))?;
    let refused = one.err().or(other.err());
    ensure(matches!(&refused, Some(Error::TopicExists(_))), || format!("the second one said {refused:?}"))?;
    // The instance that refused has the topic by now.
    let (here, there) = (a.channel(&name).await?, b.channel(&name).await?);
    ensure(here.epoch() == there.epoch(), || "two incarnations of one topic".to_owned())
}

pub(super) async fn an_implicit_topic_is_adopted_once(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("adopted")?;
    let here = a.create_implicit(&name).await?;
    let there = b.channel(&name).await?;
    let change = TopicConfig { max_messages: Some(7), ..TopicConfig::default() };
    let (one, other) = tokio::join!(a.engine.update(&here, change, true), b.engine.update(&there, change, true));
    let adopted = usize::from(one.is_ok()) + usize::from(other.is_ok());
    ensure(adopted == 1, || format!("adopted {adopted} times: {one:?}, {other:?}"))?;
    for channel in [&here, &there] {
        let wanted = change.or(CONFIG);
        let known = || (!channel.is_implicit() && channel.config() == wanted).then_some(());
        eventually("the adoption is known", known).await?;
    }
    Ok(())
}

pub(super) async fn a_change_is_in_force_everywhere(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("changed")?;
    let here = a.create(&name, CONFIG).await?;
    for number in 1..=5 {
        a.append(&here, new_message(number)?).await?;
    }
    let there = b.channel(&name).await?;
    let change = TopicConfig { max_publish_rate: Some(9), expect_every: Some(5_000), ..TopicConfig::keeping(2) };
    b.engine.update(&there, change, false).await?;
    ensure(there.config().max_messages == Some(2), || "not in force where it was made".to_owned())?;
    for channel in [&here, &there] {
        eventually("the change is known", || (channel.config() == change).then_some(())).await?;
        eventually("the history is cut", || kept(channel).ok().filter(|data| data == &["4", "5"])).await?;
    }
    Ok(())
}

pub(super) async fn deletion_reaches_every_reader(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("deleted")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    let mut readers = [reader(&here, &Start::Live), reader(&there, &Start::Live)];
    let last = a.append(&here, new_message(1)?).await?.cursor.offset;
    eventually("the message is everywhere", || (there.last() >= last).then_some(())).await?;
    b.engine.delete(&there).await?;
    for reader in &mut readers {
        let mut events = Vec::new();
        eventually("the reader learns it", || {
            matches!(read(reader, &mut events), Ok(ReadStatus::Closed)).then_some(())
        })
        .await?;
        ensure(matches!(&events[..], [Event::Message(_, _)]), || format!("before the end: {events:?}"))?;
    }
    for (instance, channel) in [(a, &here), (b, &there)] {
        let refused = instance.append(channel, new_message(2)?).await;
        ensure(matches!(refused, Err(Refusal::Closed)), || format!("an append after the deletion: {refused:?}"))?;
        let again = instance.engine.delete(channel).await;
        ensure(matches!(again, Err(Error::TopicNotFound(_))), || format!("deleted again: {again:?}"))?;
        ensure(instance.registry.find(&name).is_none(), || "still in the registry".to_owned())?;
    }
    Ok(())
}

pub(super) async fn a_new_incarnation_has_nothing_of_the_old(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("again")?;
    let old = a.create(&name, CONFIG).await?;
    let before = a.append(&old, new_message(1)?).await?.cursor;
    a.engine.delete(&old).await?;
    let new = a.create(&name, CONFIG).await?;
    ensure(new.epoch() != old.epoch(), || "the same epoch".to_owned())?;
    ensure(kept(&new)?.is_empty(), || "messages of the old incarnation".to_owned())?;
    a.append(&new, new_message(2)?).await?;
    let there = eventually("the new incarnation is known", || {
        b.registry.find(&name).filter(|channel| channel.epoch() == new.epoch())
    })
    .await?;
    eventually("its message is known", || kept(&there).ok().filter(|data| data == &["2"])).await?;
    for channel in [&new, &there] {
        let mut events = Vec::new();
        read(&mut reader(channel, &Start::After(before)), &mut events)?;
        let told = matches!(&events[..], [Event::Gap(gap), Event::Message(_, _)] if gap.reason.code() == "NEW_EPOCH");
        ensure(told, || format!("after a cursor of the old incarnation: {events:?}"))?;
    }
    Ok(())
}

pub(super) async fn an_unused_implicit_topic_goes(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let (unused, used, explicit) = (fresh("unused")?, fresh("used")?, fresh("explicit")?);
    let going = a.create_implicit(&unused).await?;
    let staying = a.create_implicit(&used).await?;
    let made = a.create(&explicit, CONFIG).await?;
    a.append(&staying, new_message(1)?).await?;
    for channel in [&going, &staying, &made] {
        a.engine.release(channel);
    }
    for instance in [a, b] {
        eventually("the unused topic goes", || instance.registry.find(&unused).is_none().then_some(())).await?;
        instance.channel(&used).await?;
        instance.channel(&explicit).await?;
    }
    // And can be made again at once, by anyone.
    b.create_implicit(&unused).await?;
    Ok(())
}

pub(super) async fn names_of_any_kind(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let salt = fresh("x")?;
    let long = format!("{salt}.{}", "ü".repeat((255 - salt.as_str().len() - 1) / 2));
    for odd in [" ", "%", "=", "/", "\\", "\"", ".", "..", "ünï", "💥", "a=20b", "&<'", "\u{2028}"] {
        let name = TopicName::parse(&format!("{salt}{odd}x"))?;
        let here = a.create(&name, CONFIG).await?;
        let last = a.append(&here, new_message(format!("{:?}", odd.len()))?).await?.cursor.offset;
        let there = b.channel(&name).await?;
        eventually("the message is everywhere", || (there.last() >= last).then_some(())).await?;
        ensure(kept(&there)? == kept(&here)?, || format!("{name} differs"))?;
    }
    a.create(&TopicName::parse(&long)?, CONFIG).await?;
    Ok(())
}
