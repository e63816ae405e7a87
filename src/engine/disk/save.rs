//! How a consumer's position gets into the log's queue.

use std::sync::Arc;

use super::{Log, Record, Token, unavailable};
use crate::{
    channel::{Consumer, ConsumerKey, Error},
    engine::position,
};

/// The holder of a consumer that a subscription has: after a kill it counts as used until then, however long ago its
/// position was written.
const HELD: &str = "held";

/// Puts a position into the log's queue. If the log refuses, the position is saved with the next move, or with the next
/// sweep: until then a restart delivers again what was delivered.
pub(super) fn save(log: &Log<Token>, consumer: &Arc<Consumer>) {
    if put(log, consumer, Token::Position(consumer.clone())).is_err() {
        consumer.saving.refused();
    }
}

/// Queues the record of a consumer's position. A consumer that was removed is refused as taken over: its record would
/// stand behind that of its removal, and a restart would bring it back, or move one that was created under its name.
pub(super) fn put(log: &Log<Token>, consumer: &Consumer, token: Token) -> Result<(), Error> {
    let ConsumerKey { source, name } = consumer.key();
    let queued = consumer.save(|position, is_held| {
        let blob = position::encode(position, if is_held { HELD } else { "" });
        let record = Record::ConsumerPut { source: source.as_str(), name: name.stored(), blob: &blob };
        log.append(&record, token).map(drop).map_err(|error| unavailable(&error))
    });
    queued.unwrap_or_else(|| Err(Error::ConsumerTakenOver(name.name().to_owned())))
}
