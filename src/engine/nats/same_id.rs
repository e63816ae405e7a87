//! Messages with one id that are on their way at the same time: the first is sent, and the others share its answer.

use std::collections::{HashMap, hash_map::Entry};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::channel::{Channel, MessageId, Publication, Refusal};

type Answer = oneshot::Sender<Result<Publication, Refusal>>;

/// The publishers' ids that are on their way, by the topic's serial number on this instance, and who else waits for each.
#[derive(Default)]
pub(super) struct SameId(Mutex<HashMap<(u64, MessageId), Vec<Answer>>>);

impl SameId {
    /// Whether a message with this id is the first on its way; else its answer comes over the receiver.
    pub fn enter(&self, channel: &Channel, id: &MessageId) -> Option<oneshot::Receiver<Result<Publication, Refusal>>> {
        match self.0.lock().entry((channel.serial(), id.clone())) {
            Entry::Vacant(first) => {
                first.insert(Vec::new());
                None
            }
            Entry::Occupied(mut others) => {
                let (answer, answered) = oneshot::channel();
                others.get_mut().push(answer);
                Some(answered)
            }
        }
    }

    /// The first one has its answer, which is that of the others: they were not stored.
    pub fn leave(&self, channel: &Channel, id: &MessageId, result: &Result<Publication, Refusal>) {
        let others = self.0.lock().remove(&(channel.serial(), id.clone())).unwrap_or_default();
        for other in others {
            let result = result.clone().map(|publication| Publication { duplicate: true, ..publication });
            // A publisher that is gone does not need its answer.
            let _ = other.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Error, Incarnation, Registry, RegistrySettings, TopicConfig, TopicName};

    #[test]
    fn others_share_the_answer_of_the_first() {
        let registry = Registry::new(RegistrySettings::for_tests(10));
        let [one, other] = ["a", "b"].map(|name| {
            registry
                .insert(Incarnation::new(&TopicName::parse(name).unwrap(), TopicConfig::default()), |_| Ok(()))
                .unwrap()
        });
        let (same, id) = (SameId::default(), MessageId::parse("x").unwrap());
        assert!(same.enter(&one, &id).is_none());
        assert!(same.enter(&other, &id).is_none(), "an id is one topic's");
        let mut second = same.enter(&one, &id).unwrap();
        same.leave(&one, &id, &Err(Error::Unknown(id.clone()).into()));
        assert!(matches!(second.try_recv(), Ok(Err(Refusal::Error(Error::Unknown(_))))));
        assert!(same.enter(&one, &id).is_none(), "the next one is sent again");
    }
}
