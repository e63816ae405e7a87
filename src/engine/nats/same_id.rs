//! Messages with one id that are in flight at the same time: the first is sent, and the others share its result.

use std::collections::{HashMap, hash_map::Entry};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::channel::{Channel, MessageId, Publication, Refusal};

type ResultSender = oneshot::Sender<Result<Publication, Refusal>>;

/// The publishers' ids in flight, by the topic's serial number on this instance, and who else waits for each.
#[derive(Default)]
pub(super) struct SameId(Mutex<HashMap<(u64, MessageId), Vec<ResultSender>>>);

impl SameId {
    /// Returns `None` if this is the first message with this id in flight. Otherwise the result comes over the
    /// receiver.
    pub fn enter(&self, channel: &Channel, id: &MessageId) -> Option<oneshot::Receiver<Result<Publication, Refusal>>> {
        match self.0.lock().entry((channel.serial(), id.clone())) {
            Entry::Vacant(first) => {
                first.insert(Vec::new());
                None
            }
            Entry::Occupied(mut others) => {
                let (sender, receiver) = oneshot::channel();
                others.get_mut().push(sender);
                Some(receiver)
            }
        }
    }

    /// Passes the result of the first message to the others, which were not stored.
    pub fn leave(&self, channel: &Channel, id: &MessageId, result: &Result<Publication, Refusal>) {
        let others = self.0.lock().remove(&(channel.serial(), id.clone())).unwrap_or_default();
        for other in others {
            let result = result.clone().map(|publication| Publication { duplicate: true, ..publication });
            // A publisher that is gone does not need the result.
            let _ = other.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Error, Incarnation, Registry, RegistrySettings, TopicConfig, TopicName};

    #[test]
    fn others_share_the_result_of_the_first() {
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
