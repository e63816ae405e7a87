//! Tokens that were verified: each is verified once and known by its hash until it expires.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use super::{KeyHash, KeyId};
use crate::broker::{Principal, Timestamp, WeakPrincipal};

/// Tokens that are known without verifying them again. One that is forgotten is verified again when it comes.
const MAX_KNOWN: usize = 10_000;

/// The principals of tokens.
#[derive(Default)]
pub struct Sessions(Mutex<State>);

#[derive(Default)]
struct State {
    known: HashMap<KeyHash, Principal>,
    /// Everything that acts for a token, known or not, by when it ends. The number tells those of one moment apart.
    ends: BTreeMap<(Timestamp, u64), Session>,
    next: u64,
}

struct Session {
    hash: KeyHash,
    principal: WeakPrincipal,
    key_id: KeyId,
}

impl Sessions {
    /// The principal of a token that was verified before.
    pub fn get(&self, hash: KeyHash) -> Option<Principal> {
        self.0.lock().known.get(&hash).cloned()
    }

    /// Adds a token that was verified just now.
    pub fn insert(&self, hash: KeyHash, principal: &Principal, expires: Timestamp, key_id: KeyId) {
        let Some(weak) = principal.downgrade() else { return };
        let mut state = self.0.lock();
        if state.known.len() >= MAX_KNOWN {
            // Those that nothing uses at the moment can be verified again; then any.
            state.ends.retain(|_, session| session.principal.upgrade().is_some());
            let mut keep = false;
            state.known.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        state.known.insert(hash, principal.clone());
        state.next += 1;
        let number = state.next;
        state.ends.insert((expires, number), Session { hash, principal: weak, key_id });
    }

    /// Withdraws what has expired.
    pub fn withdraw_expired(&self, now: Timestamp) {
        let mut expired = Vec::new();
        {
            let mut state = self.0.lock();
            while let Some(first) = state.ends.first_entry().filter(|first| first.key().0 <= now) {
                expired.push(first.remove());
            }
            for session in &expired {
                state.known.remove(&session.hash);
            }
        }
        withdraw(&expired);
    }

    /// Withdraws what was verified with keys that are not valid any more.
    pub fn withdraw_unless(&self, is_valid: impl Fn(KeyId) -> bool) {
        let mut gone = Vec::new();
        {
            let mut state = self.0.lock();
            let invalid: Vec<_> =
                state.ends.iter().filter(|(_, session)| !is_valid(session.key_id)).map(|(at, _)| *at).collect();
            gone.extend(invalid.into_iter().filter_map(|at| state.ends.remove(&at)));
            for session in &gone {
                state.known.remove(&session.hash);
            }
        }
        withdraw(&gone);
    }
}

fn withdraw(sessions: &[Session]) {
    for principal in sessions.iter().filter_map(|session| session.principal.upgrade()) {
        principal.withdraw();
    }
}
