//! Consumers: their positions are found again, by one subscription at a time, on every instance.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{CONFIG, Failure, Instance, ensure, eventually, fresh, new_message, within};
use crate::channel::{
    Ack, Channel, Claim, ConsumerKey, ConsumerName, Cursor, Error, Inbox, Overflow, Position, Sought, Source,
    Timestamp, TopicName, Waiter,
};

fn key(channel: &Channel, name: &str) -> Result<ConsumerKey, Failure> {
    Ok(ConsumerKey {
        source: Source::Topic(channel.name().clone()),
        name: ConsumerName::parse(name)?.owned_by(Some("billing"))?,
    })
}

fn holder(inbox: &Inbox) -> Arc<Waiter> {
    Waiter::new(inbox.clone(), 0, Overflow::default(), None)
}

async fn claim(instance: &Instance, key: &ConsumerKey, inbox: &Inbox) -> Result<Claim, Error> {
    instance.engine.positions().claim(key, Ack::Explicit, &holder(inbox)).await
}

async fn offsets(instance: &Instance, key: &ConsumerKey) -> Result<Vec<u64>, Error> {
    let status = instance.engine.positions().get(key).await?;
    Ok(status.position.cursors.iter().map(|(_, cursor)| cursor.offset).collect())
}

async fn acknowledge(instance: &Instance, key: &ConsumerKey, topic: &TopicName, cursor: Cursor) -> Result<(), Failure> {
    let consumer = eventually("the consumer is known", || instance.consumers.get(key)).await?;
    Ok(instance.engine.positions().acknowledge(&consumer, topic, cursor).await?)
}

pub(super) async fn a_position_is_found_again(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let here = a.create(&fresh("consumers")?, CONFIG).await?;
    let cursor = a.append(&here, new_message(1)?).await?.cursor;
    b.channel(here.name()).await?;
    let key = key(&here, "ü 1")?;
    let inbox = Inbox::default();
    let first = claim(a, &key, &inbox).await?;
    ensure(!first.resumed, || "known before its first use".to_owned())?;
    first.consumer.begin(here.name(), cursor)?;
    a.engine.positions().save(&first.consumer).await?;
    ensure(first.consumer.release(first.generation), || "taken over by nobody".to_owned())?;
    a.engine.positions().mark_dirty(&first.consumer);
    for instance in [b, a] {
        let again = claim(instance, &key, &inbox).await?;
        ensure(again.resumed, || "not known".to_owned())?;
        let cursors = again.consumer.cursors();
        let found = cursors.get(here.name()).map(|cursor| cursor.offset);
        ensure(found == Some(cursor.offset), || format!("{found:?}, not {}", cursor.offset))?;
        again.consumer.release(again.generation);
    }
    let listed = b.engine.positions().list(&key.source).await?;
    ensure(listed.len() == 1, || format!("{} consumers are listed", listed.len()))
}

pub(super) async fn a_position_comes_from_elsewhere(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let here = a.create(&fresh("consumers")?, CONFIG).await?;
    let cursor = a.append(&here, new_message(1)?).await?.cursor;
    b.channel(here.name()).await?;
    let key = key(&here, "moved")?;
    let used_at = Timestamp(Timestamp::now().0 - 60_000);
    let cursors = vec![(here.name().clone(), cursor)];
    let position = Position { ack: Ack::Explicit, cursors, used_at, since: None, ttl: None, seeks: 0 };
    ensure(a.engine.positions().import(&key, &position).await?, || "not taken".to_owned())?;
    for instance in [a, b] {
        let found = instance.engine.positions().get(&key).await?;
        ensure(!found.connected && found.position == position, || format!("{:?}, not {position:?}", found.position))?;
    }
    let other = Position { cursors: Vec::new(), ..position.clone() };
    for instance in [b, a] {
        ensure(!instance.engine.positions().import(&key, &other).await?, || "taken a second time".to_owned())?;
    }
    let claimed = claim(b, &key, &Inbox::default()).await?;
    ensure(claimed.resumed, || "not known".to_owned())?;
    ensure(offsets(b, &key).await? == [cursor.offset], || "another position".to_owned())
}

pub(super) async fn a_newer_subscription_takes_over(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let here = a.create(&fresh("consumers")?, CONFIG).await?;
    let cursor = a.append(&here, new_message(1)?).await?.cursor;
    b.channel(here.name()).await?;
    let key = key(&here, "one")?;
    let (older, newer) = (Inbox::default(), Inbox::default());
    let first = claim(a, &key, &older).await?;
    first.consumer.begin(here.name(), Cursor { offset: 0, ..cursor })?;
    a.engine.positions().save(&first.consumer).await?;
    let second = claim(b, &key, &newer).await?;
    ensure(second.resumed, || "not known".to_owned())?;
    eventually("the older one is told", || first.consumer.is_taken_over(first.generation).then_some(())).await?;
    eventually("the older one is woken", || older.try_next()).await?;
    ensure(newer.try_next().is_none(), || "the newer one is woken".to_owned())?;
    // What the older one says now does not count.
    let late = [(here.name().clone(), cursor, false)];
    ensure(!first.consumer.reached((first.generation, first.seeks), late.into_iter(), None), || {
        "the older one still moves".to_owned()
    })?;
    ensure(offsets(b, &key).await? == [0], || "moved by one that was taken over".to_owned())?;
    let listed = b.engine.positions().list(&key.source).await?;
    ensure(listed.iter().any(|status| status.connected), || "nobody is connected".to_owned())
}

pub(super) async fn acknowledgements_only_go_forward(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let here = a.create(&fresh("consumers")?, CONFIG).await?;
    let mut cursors = Vec::new();
    for number in 0..3 {
        cursors.push(a.append(&here, new_message(number)?).await?.cursor);
    }
    let there = b.channel(here.name()).await?;
    let key = key(&here, "acks")?;
    let claimed = claim(a, &key, &Inbox::default()).await?;
    let [one, two, three] = cursors[..] else { return Err(Failure("three were published".to_owned())) };
    claimed.consumer.begin(here.name(), one)?;
    a.engine.positions().save(&claimed.consumer).await?;
    acknowledge(b, &key, there.name(), three).await?;
    ensure(offsets(b, &key).await? == [three.offset], || "an acknowledgement was lost".to_owned())?;
    acknowledge(a, &key, here.name(), two).await?;
    for instance in [a, b] {
        ensure(offsets(instance, &key).await? == [three.offset], || "an acknowledgement went back".to_owned())?;
    }
    a.engine.positions().remove(&key).await?;
    let refused = a.engine.positions().acknowledge(&claimed.consumer, here.name(), two).await;
    ensure(matches!(refused, Err(Error::ConsumerNotFound(_))), || format!("{refused:?} for a deleted consumer"))
}

/// An acknowledgement that is late moves no other consumer that was created under the same name meanwhile.
pub(super) async fn an_acknowledgement_is_for_one_consumer(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let here = a.create(&fresh("consumers")?, CONFIG).await?;
    let one = a.append(&here, new_message(1)?).await?.cursor;
    let two = a.append(&here, new_message(2)?).await?.cursor;
    let there = b.channel(here.name()).await?;
    let key = key(&here, "late")?;
    let old = claim(a, &key, &Inbox::default()).await?;
    old.consumer.begin(here.name(), one)?;
    a.engine.positions().save(&old.consumer).await?;
    let meant = eventually("the consumer is known", || b.consumers.get(&key)).await?;
    a.engine.positions().remove(&key).await?;
    let new = claim(a, &key, &Inbox::default()).await?;
    ensure(!new.resumed, || "the deleted consumer was resumed".to_owned())?;
    new.consumer.begin(here.name(), one)?;
    a.engine.positions().save(&new.consumer).await?;
    let refused = b.engine.positions().acknowledge(&meant, there.name(), two).await;
    ensure(matches!(refused, Err(Error::ConsumerNotFound(_))), || format!("{refused:?} for a deleted consumer"))?;
    for instance in [b, a] {
        ensure(offsets(instance, &key).await? == [one.offset], || "the new consumer was moved".to_owned())?;
    }
    Ok(())
}

/// A deleted consumer is not saved any more, whatever was still to be saved of it: it does not come back, and it does not
/// move one that was created under its name.
pub(super) async fn a_deleted_consumer_is_not_saved(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let here = a.create(&fresh("consumers")?, CONFIG).await?;
    let one = a.append(&here, new_message(1)?).await?.cursor;
    let two = a.append(&here, new_message(2)?).await?.cursor;
    b.channel(here.name()).await?;
    let key = key(&here, "again")?;
    let old = claim(a, &key, &Inbox::default()).await?;
    old.consumer.begin(here.name(), two)?;
    a.engine.positions().save(&old.consumer).await?;
    a.engine.positions().remove(&key).await?;
    ensure_taken_over(&a.engine.positions().save(&old.consumer).await)?;
    let new = claim(a, &key, &Inbox::default()).await?;
    ensure(!new.resumed, || "the deleted consumer was resumed".to_owned())?;
    new.consumer.begin(here.name(), one)?;
    a.engine.positions().save(&new.consumer).await?;
    a.engine.positions().mark_dirty(&old.consumer);
    ensure_taken_over(&a.engine.positions().save(&old.consumer).await)?;
    a.engine.positions().save(&new.consumer).await?;
    for instance in [a, b] {
        ensure(offsets(instance, &key).await? == [one.offset], || "the new consumer was moved".to_owned())?;
        let status = instance.engine.positions().get(&key).await?;
        ensure(status.connected, || "the new consumer is said to have no subscription".to_owned())?;
    }
    // A subscription elsewhere takes the new one over, which learns of it.
    claim(b, &key, &Inbox::default()).await?.consumer.touch();
    eventually("the subscription is told", || new.consumer.is_taken_over(new.generation).then_some(())).await
}

fn ensure_taken_over(saved: &Result<(), Error>) -> Result<(), Failure> {
    ensure(matches!(saved, Err(Error::ConsumerTakenOver(_))), || format!("{saved:?} for a deleted consumer"))
}

pub(super) async fn a_consumer_is_forgotten(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let here = a.create(&fresh("consumers")?, CONFIG).await?;
    b.channel(here.name()).await?;
    let (one, two) = (key(&here, "one")?, key(&here, "two")?);
    let inbox = Inbox::default();
    let first = claim(a, &one, &inbox).await?;
    a.engine.positions().save(&first.consumer).await?;
    let second = claim(b, &two, &Inbox::default()).await?;
    b.engine.positions().save(&second.consumer).await?;
    b.engine.positions().remove(&one).await?;
    eventually("its subscription is told", || first.consumer.is_taken_over(first.generation).then_some(())).await?;
    let again = b.engine.positions().remove(&one).await;
    ensure(matches!(again, Err(Error::ConsumerNotFound(_))), || format!("{again:?} for one that is gone"))?;
    ensure(!claim(a, &one, &inbox).await?.resumed, || "it came back".to_owned())?;
    a.engine.positions().remove_all(&one.source).await?;
    let left = a.engine.positions().list(&one.source).await?.len();
    ensure(left == 0, || format!("{left} consumers of a topic that is gone"))?;
    // The other instance hears of it in a moment.
    within("no consumers of a topic that is gone", async {
        while !b.engine.positions().list(&one.source).await?.is_empty() {
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    })
    .await?
}

/// A consumer is moved back and forward, wherever it is held. What its subscription had on its way before moves it no more.
pub(super) async fn a_consumer_is_moved(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let here = a.create(&fresh("consumers")?, CONFIG).await?;
    let mut cursors = Vec::new();
    for number in 0..3 {
        cursors.push(a.append(&here, new_message(number)?).await?.cursor);
    }
    let [one, two, three] = cursors[..] else { return Err(Failure("three were published".to_owned())) };
    b.channel(here.name()).await?;
    let key = key(&here, "moved")?;
    let inbox = Inbox::default();
    let waiter = holder(&inbox);
    let claimed = a.engine.positions().claim(&key, Ack::Explicit, &waiter).await?;
    claimed.consumer.begin(here.name(), two)?;
    a.engine.positions().save(&claimed.consumer).await?;
    for (instance, to) in [(a, one), (b, three), (b, one), (a, two)] {
        let known = eventually("the consumer is known", || instance.consumers.get(&key)).await?;
        let seeks = claimed.consumer.position().seeks;
        let sought = Sought { cursors: vec![(here.name().clone(), to)], since: None };
        instance.engine.positions().seek(&known, &sought).await?;
        for instance in [a, b] {
            let found = offsets(instance, &key).await?;
            ensure(found == [to.offset], || format!("{found:?}, not {}", to.offset))?;
        }
        eventually("its subscription is told", || claimed.consumer.was_sought(seeks).then_some(())).await?;
        eventually("its subscription is woken", || inbox.try_next()).await?;
        waiter.rearm();
        let late = [(here.name().clone(), three, false)];
        ensure(!claimed.consumer.reached((claimed.generation, seeks), late.into_iter(), None), || {
            "what was on its way still moves it".to_owned()
        })?;
        a.engine.positions().save(&claimed.consumer).await?;
        let found = offsets(b, &key).await?;
        ensure(found == [to.offset], || format!("{found:?} after a save, not {}", to.offset))?;
    }
    a.engine.positions().remove(&key).await?;
    let refused = a.engine.positions().seek(&claimed.consumer, &Sought::default()).await;
    ensure(matches!(refused, Err(Error::ConsumerNotFound(_))), || format!("{refused:?} for a deleted consumer"))
}

/// For a restart: a consumer that stands behind the channel's newest message.
pub(super) async fn leave_a_position(instance: &Instance, channel: &Arc<Channel>) -> Result<Cursor, Failure> {
    let cursor = Cursor { epoch: channel.epoch(), offset: channel.last() };
    let claimed = claim(instance, &key(channel, "survivor")?, &Inbox::default()).await?;
    claimed.consumer.begin(channel.name(), cursor)?;
    instance.engine.positions().save(&claimed.consumer).await?;
    let dropped = claim(instance, &key(channel, "forgotten")?, &Inbox::default()).await?;
    instance.engine.positions().save(&dropped.consumer).await?;
    instance.engine.positions().remove(&key(channel, "forgotten")?).await?;
    // What was to be saved of it at that moment brings it back neither now nor after a restart.
    ensure_taken_over(&instance.engine.positions().save(&dropped.consumer).await)?;
    instance.engine.positions().mark_dirty(&dropped.consumer);
    Ok(cursor)
}

pub(super) async fn find_the_position(
    instance: &Instance,
    channel: &Arc<Channel>,
    position: &Cursor,
) -> Result<(), Failure> {
    let found = offsets(instance, &key(channel, "survivor")?).await?;
    ensure(found == [position.offset], || format!("{found:?}, not {}", position.offset))?;
    let gone = claim(instance, &key(channel, "forgotten")?, &Inbox::default()).await?;
    ensure(!gone.resumed, || "a consumer came back".to_owned())
}
