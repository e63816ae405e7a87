//! What happens when the outcome of a record is known.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    vec::Drain,
};

use super::{Log, LogError, drop_records, log::Sink, refusal, save::save, token::Token, unavailable};
use crate::channel::{Channel, Error, Registry, Saving};
use parking_lot::Mutex;

/// Whether the disk accepts records, as the log's thread has last seen it.
#[derive(Default)]
pub(super) struct DiskHealth {
    failed: AtomicBool,
    refused: AtomicU64,
    /// Why the last records were refused, if they were. It is logged once and not for each record.
    refusing: Mutex<Option<&'static str>>,
}

/// The reason that clients get after the disk has failed.
pub(super) const FAILED: &str = "the disk has failed; nothing is stored until a restart";

impl DiskHealth {
    /// Returns why nothing can be stored now, if that is so.
    pub fn read_only(&self) -> Option<&'static str> {
        if self.failed.load(Ordering::Acquire) { Some(FAILED) } else { *self.refusing.lock() }
    }

    /// Notes that the disk accepts records.
    fn mark_writable(&self) {
        if self.refusing.lock().take().is_some() {
            tracing::info!("the disk accepts records again");
        }
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn record_outcome(&self, outcome: &Result<(), LogError>, records: usize) {
        match outcome {
            // A small record may be accepted although larger ones would still be refused.
            Ok(()) => {}
            Err(error) => {
                self.refused.fetch_add(records as u64, Ordering::Relaxed);
                let fatal = matches!(error, LogError::Failed(_) | LogError::Stopped(_));
                if fatal {
                    if !self.failed.swap(true, Ordering::AcqRel) {
                        tracing::error!(%error, "the disk has failed: nothing is stored until a restart, reading goes on");
                    }
                    return;
                }
                let why = match error {
                    LogError::Full => "the disk is full; nothing is stored until there is room",
                    _ => "the disk refuses writes; nothing is stored until it takes them again",
                };
                if self.refusing.lock().replace(why).is_none() {
                    tracing::warn!(%error, "the disk refuses records; publishers get an error");
                }
            }
        }
    }
}

/// Passes outcomes to channels, publishers and consumers. The log's thread calls it in log order.
pub(super) struct Committer {
    registry: Arc<Registry>,
    health: Arc<DiskHealth>,
    /// The log, once it runs.
    log: Arc<OnceLock<Weak<Log<Token>>>>,
}

impl Committer {
    pub fn new(registry: Arc<Registry>, health: Arc<DiskHealth>, log: Arc<OnceLock<Weak<Log<Token>>>>) -> Self {
        Self { registry, health, log }
    }

    fn log(&self) -> Option<Arc<Log<Token>>> {
        self.log.get().and_then(Weak::upgrade)
    }

    /// Consecutive messages of one channel share a lock and a wake-up.
    fn finish_messages(&self, channel: &Arc<Channel>, count: usize, outcome: &Result<(), LogError>) {
        match outcome {
            Ok(()) => {
                let reclaimed = channel.commit(count);
                if let Some(log) = self.log() {
                    drop_records(&log, channel, &reclaimed);
                }
            }
            Err(error) => channel.roll_back(count, |message| refusal(error, &message.id)),
        }
    }

    fn finish_other(&self, token: Token, outcome: &Result<(), LogError>) {
        let result = outcome.clone().map_err(|error| unavailable(&error));
        match token {
            Token::Message(channel) => self.finish_messages(&channel, 1, outcome),
            Token::Created(channel, reply) => {
                if result.is_err() {
                    self.registry.remove(&channel);
                }
                reply.send(result);
            }
            Token::Updated(channel, implicit, config, reply) => {
                if result.is_ok() {
                    let reclaimed = self.registry.apply(&channel, implicit, config);
                    if let Some(log) = self.log() {
                        drop_records(&log, &channel, &reclaimed);
                        log.trim(channel.serial(), channel.floor() + 1);
                    }
                } else {
                    self.registry.abandon(&channel);
                }
                reply.send(result);
            }
            Token::Deleted(channel, reply) => {
                let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
                let result = result.and_then(|()| self.registry.remove(&channel).then_some(()).ok_or_else(gone));
                // The channel is dropped before the outcome is sent, so that its memory is free when the caller
                // relies on it.
                drop(channel);
                reply.send(result);
            }
            Token::Position(consumer) => match self.log() {
                Some(log) if result.is_ok() => {
                    if consumer.saving.stored() == Saving::Again {
                        save(&log, &consumer);
                    }
                }
                _ => consumer.saving.refused(),
            },
            Token::Saved(reply) => reply.send(result),
            Token::Nothing => {}
        }
    }
}

impl Sink<Token> for Committer {
    fn writable(&self) {
        self.health.mark_writable();
    }

    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, Token>) {
        self.health.record_outcome(&outcome, tokens.len());
        let mut run: Option<(Arc<Channel>, usize)> = None;
        for token in tokens {
            match (token, &mut run) {
                (Token::Message(channel), Some((same, count))) if Arc::ptr_eq(&channel, same) => *count += 1,
                (token, run) => {
                    if let Some((channel, count)) = run.take() {
                        self.finish_messages(&channel, count, &outcome);
                    }
                    match token {
                        Token::Message(channel) => *run = Some((channel, 1)),
                        token => self.finish_other(token, &outcome),
                    }
                }
            }
        }
        if let Some((channel, count)) = run {
            self.finish_messages(&channel, count, &outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_read_only_until_it_accepts_records_again() {
        let health = DiskHealth::default();
        assert_eq!(health.read_only(), None);
        for _ in 0..2 {
            health.record_outcome(&Err(LogError::Full), 3);
            assert_eq!(health.read_only(), Some("the disk is full; nothing is stored until there is room"));
            health.record_outcome(&Err(LogError::Write("no".into())), 1);
            assert!(health.read_only().unwrap().starts_with("the disk refuses writes"));
            health.record_outcome(&Ok(()), 1);
            assert!(health.read_only().is_some(), "it may have been a small one");
            health.mark_writable();
            assert_eq!(health.read_only(), None);
        }
        assert_eq!(health.refused(), 8);
        // A failed sync is permanent, with or without records that wait for it.
        for failed in [LogError::Failed("sync".into()), LogError::Stopped("sync".into())] {
            let health = DiskHealth::default();
            health.record_outcome(&Err(failed), 0);
            health.mark_writable();
            health.record_outcome(&Ok(()), 1);
            assert_eq!(health.read_only(), Some(FAILED));
        }
    }
}
