//! Messages on their way through an engine that takes its time: numbered, and read by nobody yet.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Admission, Ring};
use crate::channel::{Draft, Error, Message, Publication, Refusal};

/// A message on its way through the engine: numbered, and read by nobody yet.
pub(super) struct Staged {
    pub message: Arc<Message>,
    pub given_id: bool,
    /// Who wants to know its fate: the publisher, and whoever has sent the same id meanwhile.
    waiting: Vec<oneshot::Sender<Result<Publication, Refusal>>>,
}

/// What has become of a message that was to be staged.
pub(crate) enum Staging {
    /// Its id is that of a kept message.
    Known(Publication),
    /// It is on its way; this will tell its fate.
    Staged(oneshot::Receiver<Result<Publication, Refusal>>),
}

impl Ring {
    /// Numbers a message for an engine that takes its time. `store` gets it with the offset of the message stored before
    /// it; nobody reads it before [`Ring::commit`]. The receiver learns its fate.
    pub fn stage(
        &mut self,
        draft: Draft,
        store: impl FnOnce(&Message, u64, bool) -> Result<(), Error>,
    ) -> Result<Staging, Refusal> {
        let (tell, fate) = oneshot::channel();
        let draft = match self.admit(draft)? {
            Admission::Fresh(draft) => draft,
            Admission::Duplicate(first) => return Ok(Staging::Known(first)),
            Admission::Staged(offset) => {
                if let Some(first) = self.staged.iter_mut().find(|staged| staged.message.cursor.offset == offset) {
                    first.waiting.push(tell);
                }
                return Ok(Staging::Staged(fate));
            }
        };
        let given_id = draft.id.is_some();
        let message = self.number(draft);
        self.check_room(message.cost())?;
        let stored_before = self.staged.back().map_or(self.newest, |staged| staged.message.cursor.offset);
        store(&message, stored_before, given_id)?;
        self.staged.push_back(Staged { message, given_id, waiting: vec![tell] });
        Ok(Staging::Staged(fate))
    }

    /// The oldest `count` staged messages are stored: from here on they are read, and their publishers are answered.
    pub fn commit(&mut self, count: usize) {
        for _ in 0..count {
            let Some(Staged { message, given_id, waiting }) = self.staged.pop_front() else { return };
            let publication = Publication::of(&message, false);
            self.insert(message, given_id);
            for (index, waiting) in waiting.into_iter().enumerate() {
                // A publisher that is gone does not need its answer.
                let _ = waiting.send(Ok(Publication { duplicate: index > 0, ..publication.clone() }));
            }
        }
    }

    /// The oldest `count` staged messages are not stored; the numbers are free again when the last one is withdrawn.
    pub fn withdraw(&mut self, count: usize, why: impl Fn(&Message) -> Refusal) {
        for staged in self.staged.drain(..count.min(self.staged.len())) {
            for waiting in staged.waiting {
                let _ = waiting.send(Err(why(&staged.message)));
            }
        }
    }
}
