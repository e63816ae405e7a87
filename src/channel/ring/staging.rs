//! Messages on their way through an engine that takes its time: numbered, and read by nobody yet.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Admission, Ring};
use crate::channel::{Error, Message, NewMessage, Publication, Refusal};

/// A message on its way through the engine: numbered, and read by nobody yet.
pub(super) struct Staged {
    pub message: Arc<Message>,
    pub given_id: bool,
    /// Who waits for its outcome: the publisher, and whoever has sent the same id meanwhile.
    waiting: Vec<oneshot::Sender<Result<Publication, Refusal>>>,
}

/// The outcome of staging a message.
pub(crate) enum Staging {
    /// Its id is that of a kept message.
    Known(Publication),
    /// It is on its way; this will tell whether it is stored.
    Staged(oneshot::Receiver<Result<Publication, Refusal>>),
}

/// The outcome for the publishers of one message that was stored.
pub(crate) struct Outcome {
    publication: Publication,
    waiting: Vec<oneshot::Sender<Result<Publication, Refusal>>>,
}

impl Outcome {
    pub fn send(self) {
        for (index, waiting) in self.waiting.into_iter().enumerate() {
            // A publisher that is gone does not need the outcome.
            let _ = waiting.send(Ok(Publication { duplicate: index > 0, ..self.publication.clone() }));
        }
    }
}

/// What an engine stores of a message beside the message itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    /// The offset of the message stored before it; 0 where there is none.
    pub stored_before: u64,
    /// That message's number in the log that all topics share; 0 where there is none.
    pub sequence_before: u64,
    /// Whether the id is the publisher's.
    pub given_id: bool,
    /// The newest offset that will not be kept any more once this message is, by the bounds of a history.
    pub floor: u64,
    /// Whether it takes the place of all older messages of its key.
    pub replaces_older: bool,
}

impl Ring {
    /// Numbers a message for an engine that takes its time. `store` gets it before anybody reads it and returns its
    /// number in the log that all topics share; nobody reads it before [`Ring::commit`].
    pub fn stage(
        &mut self,
        new_message: NewMessage,
        store: impl FnOnce(&Message, Stage) -> Result<u64, Error>,
    ) -> Result<Staging, Refusal> {
        let (tell, answer) = oneshot::channel();
        let new_message = match self.admit(new_message)? {
            Admission::Fresh(new_message) => new_message,
            Admission::Duplicate(first) => return Ok(Staging::Known(first)),
            Admission::Staged(offset) => {
                if let Some(first) = self.staged.iter_mut().find(|staged| staged.message.cursor.offset == offset) {
                    first.waiting.push(tell);
                }
                return Ok(Staging::Staged(answer));
            }
        };
        let given_id = new_message.id.is_some();
        let mut message = self.number(new_message, 0);
        self.check_room(message.cost(), message.key.as_ref())?;
        let stored_before = self.newest_staged();
        let floor = self.floor_with(message.cost());
        let sequence_before = self.newest_sequence();
        let replaces_older = self.keyed.as_ref().is_some_and(|keyed| keyed.is_on && !keyed.is_ending);
        let stage = Stage { stored_before, sequence_before, given_id, floor, replaces_older };
        let sequence = store(&message, stage)?;
        // Nobody else has the message yet.
        if let Some(message) = Arc::get_mut(&mut message) {
            message.sequence = sequence;
        }
        self.staged_cost += message.cost();
        self.note_staged(&message);
        self.staged.push_back(Staged { message, given_id, waiting: vec![tell] });
        Ok(Staging::Staged(answer))
    }

    /// The floor when all staged messages and one more of this cost are committed.
    fn floor_with(&self, cost: usize) -> u64 {
        if self.keeps_latest() {
            return self.history_floor();
        }
        let by_count = (self.messages.len() + self.staged.len() + 1).saturating_sub(self.bounds.max_messages);
        let gone = by_count.max(self.evicted_by_bytes(cost + self.staged_cost));
        if gone == 0 {
            return self.history_floor();
        }
        if let Some(oldest) = self.messages.get(gone) {
            return oldest.prev;
        }
        // Some of the staged messages will be evicted, too.
        let staged = by_count.saturating_sub(self.messages.len());
        let newest_gone = staged.checked_sub(1).and_then(|index| self.staged.get(index)).map(|staged| &staged.message);
        newest_gone.or(self.messages.back()).map_or(self.newest, |message| message.cursor.offset)
    }

    /// How many of the oldest messages leave when so many bytes come in.
    fn evicted_by_bytes(&self, incoming: usize) -> usize {
        let mut over = (self.cost + incoming).saturating_sub(self.budget.per_topic);
        let oldest = self.messages.iter().take_while(|message| {
            let counts = over > 0;
            over = over.saturating_sub(message.cost());
            counts
        });
        oldest.count()
    }

    /// The oldest `count` staged messages are stored: from here on they are read. Returns the first and the last of
    /// their numbers in the shared log; their publishers' outcomes go into `outcomes`, to be sent when the readers were
    /// woken.
    pub fn commit(&mut self, count: usize, outcomes: &mut Vec<Outcome>) -> Option<(u64, u64)> {
        let mut range: Option<(u64, u64)> = None;
        for _ in 0..count {
            let Some(Staged { message, given_id, waiting }) = self.staged.pop_front() else { break };
            range = Some((range.map_or(message.sequence, |(first, _)| first), message.sequence));
            self.staged_cost -= message.cost();
            let publication = Publication::of(&message, false);
            self.note_stored(&message);
            self.insert(message, given_id);
            outcomes.push(Outcome { publication, waiting });
        }
        range
    }

    /// The oldest `count` staged messages are not stored; the numbers are free again when the last one is rolled back.
    pub fn roll_back(&mut self, count: usize, why: impl Fn(&Message) -> Refusal) {
        for staged in self.staged.drain(..count.min(self.staged.len())) {
            self.staged_cost -= staged.message.cost();
            for waiting in staged.waiting {
                let _ = waiting.send(Err(why(&staged.message)));
            }
        }
        self.recount_staged();
    }
}
