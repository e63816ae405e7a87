//! Messages: stored once, in order, as they were given, readable by everybody.

use std::{collections::HashSet, sync::Arc};

use super::{CONFIG, Failure, Instance, ensure, eventually, fresh, kept, new_message, read, reader, within};
use crate::channel::{
    Channel, Cursor, Error, Event, Headers, Key, KnownId, MessageId, NewMessage, Origin, Payload, Publication,
    ReadStatus, Refusal, Start, Timestamp, TopicConfig,
};

pub(super) async fn what_is_acknowledged_is_readable(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("readable")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    let mut before = 0;
    for number in 0..20 {
        let (instance, channel) = if number % 2 == 0 { (a, &here) } else { (b, &there) };
        let done = instance.append(channel, new_message(number)?).await?;
        ensure(done.cursor.offset > before, || format!("offset {} after {before}", done.cursor.offset))?;
        before = done.cursor.offset;
        // Not a moment later: the answer has come.
        let newest = kept(channel)?.pop();
        ensure(newest == Some(number.to_string()), || format!("{number} is acknowledged, {newest:?} is readable"))?;
        let page = channel.page_before(None, 1);
        let at = page.messages.first().map(|message| message.published_at);
        ensure(at == Some(done.published_at), || "the answer has another time than the message".to_owned())?;
    }
    for channel in [&here, &there] {
        eventually("the end is everywhere", || (channel.last() >= before).then_some(())).await?;
    }
    ensure(kept(&here)? == kept(&there)?, || "two instances, two logs".to_owned())
}

pub(super) async fn a_place_is_known_where_it_was_never_asked_for(a: &Instance, b: &Instance) -> Result<(), Failure> {
    // A size that no other check has: engines may keep topics of different sizes in different streams.
    let name = fresh("elsewhere")?;
    let here = a.create(&name, TopicConfig { max_messages: Some(50_000), ..CONFIG }).await?;
    let done = a.append(&here, new_message(1)?).await?;
    b.engine.catch_up(Some(done.cursor)).await?;
    let there = b.channel(&name).await?;
    ensure(kept(&there)? == ["1"], || format!("the other instance has {:?} after catching up", kept(&there)))
}

/// Headers with texts that an engine may find hard, or none.
fn headers_of(index: usize, text: &str) -> Result<Option<Headers>, Error> {
    let pairs = [("a", text.trim()), ("A", ""), ("!#$%&'*+-.^_`|~9", "%0A =20 \"\\"), ("traceparent", "00-1-2-01")];
    Headers::of(pairs.into_iter().take(index % (pairs.len() + 1)))
}

pub(super) async fn messages_keep_all_they_have(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("whole")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    let long = "k".repeat(255);
    let texts = [" a b ", "ünï", "\"\\/", "=20", ":", "💥", "a\u{2028}b", &long];
    let mut last = 0;
    for (index, text) in texts.iter().enumerate() {
        let data = format!("{{\"n\":[123456789012345678901234567890.5e400,{index}],\"ü\":\"\\ud83d\\ude00\\u0000\"}}");
        let new_message = NewMessage {
            id: (index % 2 == 0).then(|| MessageId::parse(text)).transpose()?,
            key: Some(Key::parse(text)?),
            headers: headers_of(index, text)?,
            ..NewMessage::of(Payload::parse(&data, 1_000)?)
        };
        last = a.append(&here, new_message).await?.cursor.offset;
    }
    eventually("all is everywhere", || (there.last() >= last).then_some(())).await?;
    let (one, other) = (here.page_before(None, 100).messages, there.page_before(None, 100).messages);
    ensure(one.len() == texts.len() && other.len() == texts.len(), || format!("{} and {}", one.len(), other.len()))?;
    for (index, (one, other)) in one.iter().zip(&other).enumerate() {
        let text = texts.get(index).copied().unwrap_or_default();
        ensure(one.key.as_ref().map(Key::as_str) == Some(text), || format!("key {:?}, not {text:?}", one.key))?;
        ensure(index % 2 == 1 || one.id.as_str() == text, || format!("id {:?}, not {text:?}", one.id))?;
        ensure(one.headers == headers_of(index, text)?, || format!("headers {:?}", one.headers))?;
        let same = one.id == other.id
            && one.key == other.key
            && one.data == other.data
            && one.headers == other.headers
            && one.cursor == other.cursor
            && one.published_at == other.published_at;
        ensure(same, || format!("{one:?} differs between instances"))?;
    }
    Ok(())
}

pub(super) async fn a_message_comes_back_as_it_was(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("again")?;
    // A rate that lets one through holds none of them back.
    let here = a.create(&name, TopicConfig { max_publish_rate: Some(1), ..CONFIG }).await?;
    let there = b.channel(&name).await?;
    let (made_up, given) = (MessageId::parse("ü made up")?, MessageId::parse("ü given")?);
    let mut last = 0;
    for (at, id, made_up_id) in [(7, None, Some(&made_up)), (1_577_836_800_001, Some(&given), None), (9, None, None)] {
        let origin = Origin { at: Timestamp(at), made_up_id: made_up_id.cloned() };
        let back = NewMessage { id: id.cloned(), origin: Some(origin), ..new_message(at)? };
        last = a.append(&here, back).await?.cursor.offset;
    }
    eventually("all is everywhere", || (there.last() >= last).then_some(())).await?;
    for channel in [&here, &there] {
        let kept = channel.kept().messages;
        let times: Vec<_> = kept.iter().map(|(message, _)| message.published_at.0).collect();
        // Whatever is said, times never go back within a topic.
        let wanted = [7, 1_577_836_800_001, 1_577_836_800_001];
        ensure(times == wanted, || format!("published at {times:?}, not {wanted:?}"))?;
        let given_ids: Vec<_> = kept.iter().map(|(_, given)| *given).collect();
        ensure(given_ids == [false, true, false], || format!("ids are given: {given_ids:?}"))?;
        let ids: Vec<_> = kept.iter().take(2).map(|(message, _)| message.id.clone()).collect();
        ensure(ids == [made_up.clone(), given.clone()], || format!("other ids: {ids:?}"))?;
    }
    let again = b.append(&there, NewMessage { id: Some(given), ..new_message(1)? }).await?;
    ensure(again.duplicate, || "the id that came back is not known".to_owned())
}

pub(super) async fn appends_keep_their_order(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("order")?;
    let here = a.create(&name, TopicConfig { max_messages: Some(1_000), ..CONFIG }).await?;
    // Begun one after the other, without waiting.
    let mut begun = Vec::new();
    for number in 0..300 {
        begun.push(a.engine.append(&here, new_message(number)?));
    }
    let mut before = 0;
    for append in begun {
        let offset = append.await?.cursor.offset;
        ensure(offset > before, || format!("offset {offset} after {before}"))?;
        before = offset;
    }
    let wanted: Vec<_> = (0..300).map(|number| number.to_string()).collect();
    ensure(kept(&here)? == wanted, || "another order than that of the appends".to_owned())?;
    let there = b.channel(&name).await?;
    eventually("all is everywhere", || (there.last() >= before).then_some(())).await?;
    ensure(kept(&there)? == wanted, || "another order on the other instance".to_owned())
}

pub(super) async fn an_id_is_stored_once(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("ids")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    let with_id = |id: &str| -> Result<NewMessage, Failure> {
        Ok(NewMessage { id: Some(MessageId::parse(id)?), ..new_message(1)? })
    };
    let first = a.append(&here, with_id("x")?).await?;
    ensure(!first.duplicate, || "the first is no duplicate".to_owned())?;
    for (instance, channel) in [(a, &here), (b, &there)] {
        let again = instance.append(channel, with_id("x")?).await?;
        let same = again.duplicate && again.cursor == first.cursor && again.published_at == first.published_at;
        ensure(same, || format!("{again:?} for {first:?}"))?;
        // Repeating what succeeded succeeds, though its condition holds no more.
        let conditional = NewMessage { expected_offset: Some(0), ..with_id("x")? };
        let again = instance.append(channel, conditional).await?;
        ensure(again.duplicate && again.cursor == first.cursor, || format!("{again:?} for {first:?}"))?;
    }
    // All at once, from both sides.
    let mut begun = Vec::new();
    for number in 0..20 {
        let (instance, channel) = if number % 2 == 0 { (a, &here) } else { (b, &there) };
        begun.push(instance.engine.append(channel, with_id("y")?));
    }
    let mut offsets = HashSet::new();
    let mut fresh = 0;
    for append in begun {
        let done = append.await?;
        offsets.insert(done.cursor.offset);
        fresh += usize::from(!done.duplicate);
    }
    ensure((offsets.len(), fresh) == (1, 1), || format!("one id at {offsets:?}, {fresh} times new"))?;
    ensure(kept(&here)?.len() == 2, || format!("{:?} is stored", kept(&here)))?;
    // The same id in another topic is another message.
    let other = a.create(&super::fresh("ids")?, CONFIG).await?;
    ensure(!a.append(&other, with_id("x")?).await?.duplicate, || "ids are counted over all topics".to_owned())
}

pub(super) async fn an_id_from_elsewhere_is_a_duplicate(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("known-ids")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    let with_id = |id: &str| -> Result<NewMessage, Failure> {
        Ok(NewMessage { id: Some(MessageId::parse(id)?), ..new_message(1)? })
    };
    let first = a.append(&here, with_id("kept")?).await?;
    let ago = |id: &str, seconds: i64| -> Result<KnownId, Failure> {
        Ok(KnownId { id: MessageId::parse(id)?, at: Timestamp(Timestamp::now().0 - seconds * 1_000) })
    };
    let ids = [ago("before ü.=", 60)?, ago("kept", 60)?, ago("over", 301)?];
    a.engine.remember(&here, &ids).await?;
    // Once more changes nothing.
    a.engine.remember(&here, &ids).await?;
    for (instance, channel) in [(a, &here), (b, &there)] {
        let again = instance.append(channel, with_id("before ü.=")?).await?;
        let without_offset = again.duplicate && again.cursor.offset == 0 && again.cursor.epoch == channel.epoch();
        ensure(without_offset, || format!("{again:?} for an id without an offset"))?;
        let again = instance.append(channel, with_id("kept")?).await?;
        ensure(again.duplicate && again.cursor == first.cursor, || format!("{again:?} for {first:?}"))?;
    }
    let over = a.append(&here, with_id("over")?).await?;
    ensure(!over.duplicate && over.cursor.offset > first.cursor.offset, || format!("{over:?} after the window"))?;
    ensure(kept(&here)?.len() == 2, || format!("{:?} is stored", kept(&here)))?;
    // Whoever reads after the position that it was told begins with the first message.
    let mut events = Vec::new();
    let before_all = Cursor { offset: 0, ..first.cursor };
    read(&mut reader(&here, &Start::After(before_all)), &mut events)?;
    let all = matches!(&events[..], [Event::Message(one, _), Event::Message(..)] if one.cursor == first.cursor);
    ensure(all, || format!("{events:?} after offset 0"))?;
    // In another topic, and in another incarnation of this one, it is new.
    let other = a.create(&super::fresh("known-ids")?, CONFIG).await?;
    ensure(!a.append(&other, with_id("before ü.=")?).await?.duplicate, || "known in another topic".to_owned())?;
    a.engine.delete(&here).await?;
    let again = a.create(&name, CONFIG).await?;
    ensure(!a.append(&again, with_id("before ü.=")?).await?.duplicate, || "known in another incarnation".to_owned())?;
    let refused = a.engine.remember(&here, &[ago("late", 1)?]).await;
    ensure(matches!(refused, Err(Error::TopicNotFound(_))), || format!("{refused:?} of a topic that is gone"))
}

pub(super) async fn a_condition_lets_one_through(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("conditions")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    let expecting = |offset: u64, data: u64| -> Result<NewMessage, Failure> {
        Ok(NewMessage { expected_offset: Some(offset), ..new_message(data)? })
    };
    let mut current = 0;
    for round in 0..5 {
        let mut begun = Vec::new();
        for number in 0..6 {
            let (instance, channel) = if number % 2 == 0 { (a, &here) } else { (b, &there) };
            begun.push(instance.engine.append(channel, expecting(current, round)?));
        }
        let mut passed: Vec<Publication> = Vec::new();
        for append in begun {
            match append.await {
                Ok(done) => passed.push(done),
                Err(Refusal::Error(Error::Conflict { .. })) => {}
                Err(other) => return Err(other.into()),
            }
        }
        ensure(passed.len() == 1, || format!("{} of six conditional messages passed", passed.len()))?;
        current = passed.first().map_or(0, |done| done.cursor.offset);
        for channel in [&here, &there] {
            eventually("it is everywhere", || (channel.last() >= current).then_some(())).await?;
        }
    }
    let refused = b.append(&there, expecting(current + 1, 9)?).await;
    let told = matches!(refused, Err(Refusal::Error(Error::Conflict { current: told })) if told == current);
    ensure(told, || format!("{refused:?}, and the newest is {current}"))
}

pub(super) async fn a_condition_on_a_key_lets_one_through(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("key")?;
    let here = a.create(&name, CONFIG).await?;
    let there = b.channel(&name).await?;
    let of_key = |key: &str, expected: Option<u64>| -> Result<NewMessage, Failure> {
        Ok(NewMessage { key: Some(Key::parse(key)?), expected_key_offset: expected, ..new_message(1)? })
    };
    let mut current = 0;
    for round in 0..5 {
        // Others publish meanwhile, and their keys do not matter.
        let others = a.append(&here, of_key("other", None)?);
        let (one, two, other) = tokio::join!(
            a.append(&here, of_key("k", Some(current))?),
            b.append(&there, of_key("k", Some(current))?),
            others,
        );
        other?;
        let winner = match (one, two) {
            (Ok(winner), Err(Refusal::Error(Error::KeyConflict { current: told })))
            | (Err(Refusal::Error(Error::KeyConflict { current: told })), Ok(winner)) => {
                ensure(told == winner.cursor.offset, || format!("{told} was told, not {winner:?}"))?;
                winner
            }
            both => return Err(Failure(format!("{both:?} in round {round}"))),
        };
        current = winner.cursor.offset;
    }
    let refused = b.append(&there, of_key("none", Some(current))?).await;
    ensure(matches!(refused, Err(Refusal::Error(Error::KeyConflict { current: 0 }))), || format!("{refused:?}"))?;
    b.append(&there, of_key("none", Some(0))?).await?;
    // An id goes before the condition.
    let with_id = NewMessage { id: Some(MessageId::parse("once")?), ..of_key("k", Some(current))? };
    let first = b.append(&there, with_id.clone()).await?;
    let again = a.append(&here, with_id).await?;
    ensure(again.duplicate && again.cursor == first.cursor, || format!("{again:?} after {first:?}"))
}

pub(super) async fn the_bound_holds_and_is_told(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("bound")?;
    let here = a.create(&name, TopicConfig { max_messages: Some(5), ..CONFIG }).await?;
    let there = b.channel(&name).await?;
    let mut slow = [reader(&here, &Start::Live), reader(&there, &Start::Live)];
    let mut cursors = Vec::new();
    for number in 1..=12 {
        cursors.push(a.append(&here, new_message(number)?).await?.cursor);
    }
    let last = cursors.last().map_or(0, |cursor| cursor.offset);
    eventually("all is everywhere", || (there.last() >= last).then_some(())).await?;
    for channel in [&here, &there] {
        let kept = kept(channel)?;
        ensure(kept == ["8", "9", "10", "11", "12"], || format!("{kept:?} are kept"))?;
    }
    for reader in &mut slow {
        let mut events = Vec::new();
        read(reader, &mut events)?;
        // It was connected all the time, so what it has missed is known to the message.
        let told = matches!(&events[..], [Event::Gap(gap), rest @ ..] if gap.missed == Some(7) && rest.len() == 5);
        ensure(told, || format!("a slow reader reads {events:?}"))?;
    }
    for channel in [&here, &there] {
        let mut events = Vec::new();
        if let Some(cursor) = cursors.get(1) {
            read(&mut reader(channel, &Start::After(*cursor)), &mut events)?;
        }
        let told = match &events[..] {
            [Event::Gap(gap), rest @ ..] => {
                rest.len() == 5
                    && gap.missed.is_none_or(|missed| missed == 5)
                    && Some(gap.from_offset) == cursors.get(1).map(|cursor| cursor.offset + 1)
                    && Some(gap.to_offset) == cursors.get(6).map(|cursor| cursor.offset)
            }
            _ => false,
        };
        ensure(told, || format!("after the second of twelve, of which five are kept: {events:?}"))?;
        let mut events = Vec::new();
        if let Some(cursor) = cursors.get(6) {
            read(&mut reader(channel, &Start::After(*cursor)), &mut events)?;
        }
        let whole = events.iter().all(|event| matches!(event, Event::Message(_, _)));
        ensure(whole && events.len() == 5, || format!("nothing is missing after the seventh: {events:?}"))?;
    }
    Ok(())
}

pub(super) async fn the_rate_holds(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("rate")?;
    let here = a.create(&name, TopicConfig { max_publish_rate: Some(20), ..CONFIG }).await?;
    let there = b.channel(&name).await?;
    let (mut passed, mut refused) = (0, 0);
    for number in 0..90 {
        let (instance, channel) = if number % 2 == 0 { (a, &here) } else { (b, &there) };
        match instance.append(channel, new_message(number)?).await {
            Ok(_) => passed += 1,
            Err(Refusal::Error(Error::RateLimited { per_second: 20, .. })) => refused += 1,
            Err(other) => return Err(other.into()),
        }
    }
    // Two instances may overdraw by what is on its way; a slow machine refills the bucket meanwhile.
    ensure(refused > 0 && passed >= 20, || format!("{passed} passed a rate of 20, {refused} did not"))?;
    // All on their way at once pass no more than one after the other.
    let name = fresh("rush")?;
    let channel = a.create(&name, TopicConfig { max_publish_rate: Some(20), ..CONFIG }).await?;
    let begun = tokio::time::Instant::now();
    let mut rush = Vec::new();
    for number in 0..200 {
        rush.push(a.engine.append(&channel, new_message(number)?));
    }
    let mut passed = 0;
    for answer in rush {
        passed += usize::from(within("the answer to an append", answer).await?.is_ok());
    }
    let most = 20 + 20 * usize::try_from(begun.elapsed().as_secs() + 1).unwrap_or(usize::MAX);
    ensure((20..=most).contains(&passed), || format!("{passed} of 200 at once passed a rate of 20"))
}

/// A reader that begins anywhere, at any time, on any instance: its messages and announced gaps are the log.
pub(super) async fn every_reader_reads_the_log(a: &Instance, b: &Instance) -> Result<(), Failure> {
    const COUNT: u64 = 600;
    let name = fresh("log")?;
    let here = a.create(&name, TopicConfig { max_messages: Some(50), ..CONFIG }).await?;
    let there = b.channel(&name).await?;
    let mut dice = 7_u64;
    let mut readers: Vec<reader::Following> = Vec::new();
    let mut log: Vec<u64> = Vec::new();
    for number in 0..COUNT {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let roll = dice >> 33;
        let (instance, channel) = if roll.is_multiple_of(2) { (a, &here) } else { (b, &there) };
        log.push(instance.append(channel, new_message(number)?).await?.cursor.offset);
        if roll.is_multiple_of(30) {
            let on = if roll.is_multiple_of(4) { &here } else { &there };
            readers.push(reader::Following::begin(on, roll));
        }
        for reader in &mut readers {
            if roll % 7 < 3 {
                reader.read()?;
            }
        }
    }
    let last = log.last().copied().unwrap_or(0);
    for channel in [&here, &there] {
        eventually("all is everywhere", || (channel.last() >= last).then_some(())).await?;
    }
    for mut reader in readers {
        reader.read()?;
        reader.check(&log)?;
    }
    Ok(())
}

/// Publishers go on while the topic is deleted and made again: each message is in the incarnation that its outcome
/// names, or in none.
pub(super) async fn a_deletion_in_the_midst_of_publishing(a: &Instance, b: &Instance) -> Result<(), Failure> {
    let name = fresh("midst")?;
    let mut here = a.create(&name, TopicConfig { max_messages: Some(10_000), ..CONFIG }).await?;
    for _ in 0..5 {
        let there = eventually("this incarnation is known", || {
            b.registry.find(&name).filter(|channel| channel.epoch() == here.epoch())
        })
        .await?;
        let mut begun = Vec::new();
        for number in 0..40 {
            let (instance, channel) = if number % 2 == 0 { (a, &here) } else { (b, &there) };
            begun.push(instance.engine.append(channel, new_message(number)?));
        }
        let deleting = b.engine.delete(&there);
        let mut stored = Vec::new();
        for append in begun {
            match append.await {
                Ok(done) => stored.push(done.cursor),
                Err(Refusal::Closed) => {}
                Err(Refusal::Error(error)) => return Err(error.into()),
            }
        }
        deleting.await?;
        // What was acknowledged was in the old incarnation, and its readers can read it to the end.
        let mut events = Vec::new();
        let mut old = reader(&here, &Start::Oldest);
        eventually("the reader learns it", || {
            matches!(read(&mut old, &mut events), Ok(ReadStatus::Closed)).then_some(())
        })
        .await?;
        let read: HashSet<u64> = events
            .iter()
            .filter_map(|event| if let Event::Message(message, _) = event { Some(message.cursor.offset) } else { None })
            .collect();
        for cursor in stored {
            ensure(cursor.epoch != here.epoch() || read.contains(&cursor.offset), || {
                format!("{cursor} was acknowledged and cannot be read")
            })?;
        }
        here = a.create(&name, TopicConfig { max_messages: Some(10_000), ..CONFIG }).await?;
        ensure(kept(&here)?.is_empty(), || "the new incarnation begins with messages".to_owned())?;
    }
    Ok(())
}

mod reader {
    use super::{Arc, Channel, Event, Failure, Start, ensure};
    use crate::channel::{Cursor, Reader};

    /// A reader with what it has read.
    pub struct Following {
        reader: Reader,
        /// Everything behind this offset is its own.
        after: u64,
        events: Vec<Event>,
    }

    impl Following {
        pub fn begin(channel: &Arc<Channel>, roll: u64) -> Self {
            let last = channel.last();
            let start = match roll % 3 {
                0 => Start::Live,
                1 => Start::Last(u32::try_from(roll % 60).unwrap_or(0)),
                _ => Start::After(Cursor { epoch: channel.epoch(), offset: last.saturating_sub(roll % 80) }),
            };
            let (reader, _) = channel.locate(&start);
            Self { after: reader.cursor().offset, reader, events: Vec::new() }
        }

        pub fn read(&mut self) -> Result<(), Failure> {
            super::super::read(&mut self.reader, &mut self.events).map(drop)
        }

        /// Whether what it has read, and what it was told it has missed, is the log behind where it began.
        pub fn check(&self, log: &[u64]) -> Result<(), Failure> {
            let mut rest = log.iter().copied().filter(|offset| *offset > self.after).peekable();
            for event in &self.events {
                match event {
                    Event::Message(message, _) => {
                        let due = rest.next();
                        ensure(due == Some(message.cursor.offset), || {
                            format!("{} was read, {due:?} was due", message.cursor.offset)
                        })?;
                    }
                    Event::Gap(gap) => {
                        let mut missed = 0;
                        while rest.next_if(|offset| *offset <= gap.to_offset).is_some() {
                            missed += 1;
                        }
                        ensure(missed > 0 && gap.missed.is_none_or(|told| told == missed), || {
                            format!("{missed} were missed, and {gap:?} was told")
                        })?;
                    }
                    other => return Err(Failure(format!("{other:?} in a topic that is read from its beginning"))),
                }
            }
            let left = rest.count();
            ensure(left == 0, || format!("{left} messages were neither read nor told of"))
        }
    }
}
