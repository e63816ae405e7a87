//! How messages come into a channel: what an engine appends, stages and commits, or feeds; and how the channel closes.

use std::sync::Arc;

use super::{
    Admission, Channel, Committed, Cursor, Error, KnownId, Message, MessageId, NewMessage, Numbering, Publication,
    ReadPosition, Reclaimed, Refusal, Remembered, Ring, Stage, Staging, ring,
};

/// The outcome of feeding a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// It continues the channel, and is readable now.
    Taken,
    /// The channel has it, or is past it.
    Stale,
    /// Something is missing between the offset `after` and the message: the engine reads it again from its store, or
    /// says that it is lost ([`Channel::skip_to`]).
    Missing {
        /// The channel's newest offset.
        after: u64,
    },
    /// The channel is closed.
    Closed,
}

/// What an instance knows of a message that was sent to another store, all at one moment.
pub(crate) struct Sent {
    /// The message, if it is kept.
    pub message: Option<Arc<Message>>,
    /// Whether the channel is closed.
    pub closed: bool,
    /// The topic's newest offset.
    pub newest: u64,
}

impl Channel {
    /// Says what may be concluded from offsets, before anything is fed.
    pub(crate) fn set_numbering(&self, numbering: Numbering) {
        self.ring.lock().numbering = numbering;
    }

    /// Numbers a message and makes it readable: all that an engine without a store has to do.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn append(self: &Arc<Self>, new_message: NewMessage) -> Result<Publication, Refusal> {
        let mut ring = self.ring.lock();
        let new_message = match ring.admit(new_message)? {
            Admission::Fresh(new_message) => new_message,
            Admission::Duplicate(first) => return Ok(first),
            // Only an engine that stages has messages on their way, and such an engine does not append.
            Admission::Staged(_) => return Err(Error::Unavailable("the message is on its way").into()),
        };
        let before = ring.end();
        let mut last = self.sequencer.lock();
        let sequence = *last + 1;
        let publication = ring.push(new_message, sequence)?;
        // Nothing stores what was replaced.
        ring.forget_replaced();
        *last = sequence;
        self.announce(&mut ring, before, sequence);
        drop(last);
        drop(ring);
        self.tell();
        Ok(publication)
    }

    /// Takes a message that the engine has numbered and stored, if it continues the channel: if nothing was published
    /// between the channel's newest offset and `message.prev`. Its offset is its number in the log that topics share,
    /// so an engine feeds the channels of one log in its order.
    pub fn feed(self: &Arc<Self>, message: Committed) -> Feed {
        let mut ring = self.ring.lock();
        let before = ring.end();
        if ring.closed {
            return Feed::Closed;
        }
        if message.offset <= before.after {
            return Feed::Stale;
        }
        if message.prev > before.after {
            return Feed::Missing { after: before.after };
        }
        let given_id = message.given_id;
        // Only the ids of kept messages are compared: what is remembered beyond them differs between instances, but the
        // channels of all instances have to be the same.
        if given_id && ring.find_id(&message.id).is_some_and(|first| !ring.was_gone_at(first, message.at)) {
            // The message was stored twice, because the store had forgotten the id when it came again. The first one
            // stays.
            return Feed::Stale;
        }
        let at = ring.last_published_at.map_or(message.at, |last| last.max(message.at));
        let cursor = Cursor { epoch: self.epoch, offset: message.offset };
        let new_message = NewMessage {
            id: Some(message.id),
            key: message.key,
            headers: message.headers,
            ttl: message.ttl,
            is_removal: message.is_removal,
            ..NewMessage::of(message.data)
        };
        ring.bucket.charge();
        let sequence = message.offset;
        let mut last = self.sequencer.lock();
        ring.feed(Message::new(self.name.clone(), cursor, before.after, sequence, new_message, at), given_id);
        *last = sequence.max(*last);
        self.announce(&mut ring, before, sequence);
        drop(last);
        drop(ring);
        self.tell();
        Feed::Taken
    }

    /// Numbers a message for an engine that takes its time; `store` gets it under the lock that decides the order, and
    /// returns its number in the log that all topics share. Nobody reads it before [`Channel::commit`].
    ///
    /// # Errors
    /// [`Refusal`], that of `store` among them; nothing has changed then.
    pub(crate) fn stage(
        &self,
        new_message: NewMessage,
        store: impl FnOnce(&Message, Stage) -> Result<u64, Error>,
    ) -> Result<Staging, Refusal> {
        self.ring.lock().stage(new_message, store)
    }

    /// The oldest `count` staged messages are stored: readers find them from here on, and their publishers get their
    /// outcome. Returns what is no longer kept by that. Messages of one log are committed in its order.
    pub(crate) fn commit(self: &Arc<Self>, count: usize) -> Reclaimed {
        let mut ring = self.ring.lock();
        let (before, floor) = (ring.end(), ring.floor());
        let mut last = self.sequencer.lock();
        let mut outcomes = Vec::with_capacity(count);
        let committed = ring.commit(count, &mut outcomes);
        let reclaimed = ring.reclaimed_since(floor);
        if let Some((first, newest)) = committed {
            *last = newest.max(*last);
            self.announce(&mut ring, before, first);
        }
        drop(last);
        drop(ring);
        if committed.is_some() {
            self.tell();
        }
        // Readers are woken first: a server that stops once every publish has its outcome still delivers what it has
        // accepted.
        outcomes.into_iter().for_each(ring::Outcome::send);
        reclaimed
    }

    /// Takes messages out of the history that are too old to be read, `most` of them at most.
    pub(crate) fn reclaim(&self, most: usize) -> Reclaimed {
        self.ring.lock().reclaim(most)
    }

    /// The oldest `count` staged messages are not stored, or perhaps not.
    pub(crate) fn roll_back(&self, count: usize, why: impl Fn(&Message) -> Refusal) {
        self.ring.lock().roll_back(count, why);
    }

    /// What lies up to `offset` and was not fed is lost. Readers get a gap at that position.
    pub fn skip_to(self: &Arc<Self>, offset: u64) {
        let mut ring = self.ring.lock();
        let before = ring.end();
        if offset > before.after {
            ring.skip_to(offset);
            let last = self.sequencer.lock();
            // Readers by pattern meet the loss here, behind everything that the log has brought until now.
            let first = before.after.max(*last).saturating_add(1);
            self.announce(&mut ring, before, first);
            drop(last);
            drop(ring);
            self.wake_all();
        }
    }

    /// From here on these ids are known that publishers gave before this incarnation of the topic began. They have no
    /// offset in it; an id that is known already keeps its own.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`] if the channel is closed.
    pub(crate) fn remember(&self, ids: &[KnownId]) -> Result<(), Error> {
        let ring = self.ring.lock();
        if ring.closed {
            return Err(Error::TopicNotFound(self.name.as_str().to_owned()));
        }
        for KnownId { id, at } in ids {
            if ring.known(id).is_none() {
                ring.remember(id, Remembered { offset: 0, at: *at });
            }
        }
        Ok(())
    }

    /// Checks a message that another store will number; `None` lets it through.
    ///
    /// # Errors
    /// [`Refusal`] if the channel is closed or has no room; a message whose id is known is no error, but the
    /// publication of the first one.
    pub(crate) fn check_append(&self, new_message: &NewMessage) -> Result<Option<Publication>, Refusal> {
        let ring = self.ring.lock();
        if ring.closed {
            return Err(Refusal::Closed);
        }
        if let Some(first) = new_message.id.as_ref().and_then(|id| ring.known(id)) {
            return Ok(Some(first));
        }
        ring.check_room(new_message.cost(), new_message.key.as_ref())?;
        Ok(None)
    }

    /// Checks the conditions of a message that another store will number. Returns the topic's newest offset, behind which it
    /// was checked.
    ///
    /// # Errors
    /// [`Error::Conflict`] or [`Error::KeyConflict`].
    pub(crate) fn check_conditions(&self, new_message: &NewMessage) -> Result<u64, Error> {
        self.ring.lock().check_conditions(new_message)
    }

    /// Takes a token of the topic's rate for a message that will be fed back; [`Channel::feed`] does not take it again.
    /// One that was let through before, in another incarnation of its topic, is let through again.
    ///
    /// # Errors
    /// [`Error::RateLimited`].
    pub(crate) fn reserve_rate(&self, let_through: bool) -> Result<(), Error> {
        self.ring.lock().bucket.reserve(let_through)
    }

    /// A message for which a token was reserved will not be fed back.
    pub(crate) fn release_rate(&self) {
        self.ring.lock().bucket.release();
    }

    /// Whether an id is known that a publisher gave.
    pub(crate) fn knows(&self, id: &MessageId) -> bool {
        self.ring.lock().known(id).is_some()
    }

    /// The publication at this offset, else the one that this id is remembered for; and whether the channel was closed
    /// before it. One that it had before it was closed may have left the history since.
    pub(crate) fn publication_at(&self, offset: u64, id: &MessageId, duplicate: bool) -> (Option<Publication>, bool) {
        let ring = self.ring.lock();
        let kept = ring.message_at(offset).map(|message| Publication::of(&message, duplicate));
        (kept.or_else(|| ring.known(id)), ring.closed && offset > ring.newest())
    }

    /// What this instance knows of a message that was sent to another store: see [`Sent`]. `young` is how many of the
    /// newest messages are looked through for its id, if that may not be the publisher's.
    pub(crate) fn find_sent(&self, id: &MessageId, young: Option<usize>) -> Sent {
        let ring = self.ring.lock();
        let found = ring.find_id(id).cloned();
        Sent {
            message: found.or_else(|| young.and_then(|most| ring.find_young(id, most))),
            closed: ring.closed,
            newest: ring.newest(),
        }
    }

    /// Tells the subscribers of patterns what was appended after `before`, of which `first` is the first number in the
    /// shared log. Called under the lock of the sequencer.
    fn announce(self: &Arc<Self>, ring: &mut Ring, before: ReadPosition, first: u64) {
        let mut matched = std::mem::take(&mut ring.patterns);
        self.patterns.touch(self, &mut matched, before, first);
        ring.patterns = matched;
    }

    /// Ends the topic's incarnation: appending fails from here on, readers read what there is and then learn it.
    pub(crate) fn close(self: &Arc<Self>) {
        let mut ring = self.ring.lock();
        ring.closed = true;
        ring.roll_back(usize::MAX, |_| Refusal::Closed);
        let end = ring.end();
        let last = self.sequencer.lock();
        self.announce(&mut ring, end, *last);
        drop(last);
        drop(ring);
        self.wake_all();
    }
}
