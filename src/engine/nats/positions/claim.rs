//! Which subscription holds a consumer: one conditional write decides.

use std::sync::Arc;

use super::{Hold, Shared, Stage, taken_over, token};
use crate::{
    channel::{Ack, Claim, ConsumerKey, Error, Position, Timestamp, Waiter},
    engine::position,
};

impl Shared {
    /// Writes that the subscription `mine` holds the consumer, whoever held it before. Returns whether it resumes a
    /// known position.
    pub(super) async fn write_claim(&self, key: &ConsumerKey, ack: Ack, mine: &str) -> Result<bool, Error> {
        let mut resumed = false;
        let mut before = None;
        let token = token(key);
        let write = self.write(&token, |known| {
            // While this write waited for the cluster, a later subscription took the consumer. It may belong to the
            // same client, which gave up waiting here.
            let first = before.get_or_insert_with(|| known.hold.claim.clone());
            if *first != known.hold.claim && known.hold.stage != Stage::Left && known.hold.claim.as_str() > mine {
                return Err(taken_over(key));
            }
            let there = self.consumers.get(key).filter(|_| known.live);
            if known.hold.claim == mine {
                // An earlier attempt has written it and got no response.
            } else {
                // If no subscription has begun yet, there is no position to resume from.
                resumed = there.is_some() && known.hold.stage != Stage::New;
            }
            if there.is_none() {
                self.consumers.check_room(key)?;
            }
            let used_at = Timestamp::now();
            let fresh = || Position { ack, cursors: Vec::new(), used_at, since: None, ttl: None, seeks: 0 };
            let position = there.filter(|_| resumed).map_or_else(fresh, |there| Position { ack, ..there.position() });
            let stage = if resumed { Stage::Held } else { Stage::New };
            let hold = Hold { claim: mine.to_owned(), stage };
            Ok(Some(position::encode(&position, &hold.to_string())))
        });
        write.await?;
        Ok(resumed)
    }

    /// Turns the claim in the entry into that of a subscription here, unless another subscription was faster.
    pub(super) fn take(&self, key: &ConsumerKey, ack: Ack, holder: &Arc<Waiter>, mine: String) -> Result<Claim, Error> {
        let mut all = self.known.lock();
        let known = all.entry(token(key)).or_default();
        if !known.live || known.hold.claim != mine {
            return Err(taken_over(key));
        }
        let claim = self.consumers.claim(key, ack, holder)?;
        claim.consumer.held_elsewhere(None);
        known.mine = Some(mine);
        Ok(claim)
    }
}
