//! What happens when the log says whether records are stored.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    vec::Drain,
};

use super::{Log, LogError, log::Sink, refusal, save::save, token::Token, unavailable};
use crate::channel::{Channel, Error, Registry, Saving};
use parking_lot::Mutex;

/// Whether the disk takes records, as the log's thread has last seen it.
#[derive(Default)]
pub(super) struct DiskHealth {
    failed: AtomicBool,
    refused: AtomicU64,
    /// Why the last records were refused, if they were: said once, not for each.
    refusing: Mutex<Option<&'static str>>,
}

/// What a disk that has failed means to everybody.
pub(super) const FAILED: &str = "the disk has failed; nothing is stored until a restart";

impl DiskHealth {
    /// Why nothing can be stored now, if nothing can.
    pub fn read_only(&self) -> Option<&'static str> {
        if self.failed.load(Ordering::Acquire) { Some(FAILED) } else { *self.refusing.lock() }
    }

    /// The disk takes records.
    fn takes(&self) {
        if self.refusing.lock().take().is_some() {
            tracing::info!("the disk takes records again");
        }
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn note(&self, outcome: &Result<(), LogError>, records: usize) {
        match outcome {
            // A small record may fit while the larger ones that were refused would not, so this does not say that the
            // disk takes records again.
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
                    tracing::warn!(%error, "the disk refuses records; publishers are told so");
                }
            }
        }
    }
}

/// Brings outcomes to channels, publishers and consumers. Called by the log's thread, in the log's order.
pub(super) struct Committer {
    registry: Arc<Registry>,
    health: Arc<DiskHealth>,
    /// The log itself, once it runs.
    log: Arc<OnceLock<Weak<Log<Token>>>>,
}

impl Committer {
    pub fn new(registry: Arc<Registry>, health: Arc<DiskHealth>, log: Arc<OnceLock<Weak<Log<Token>>>>) -> Self {
        Self { registry, health, log }
    }

    fn log(&self) -> Option<Arc<Log<Token>>> {
        self.log.get().and_then(Weak::upgrade)
    }

    /// Neighbouring messages of one channel share a lock and a wake-up.
    fn messages(&self, channel: &Arc<Channel>, count: usize, outcome: &Result<(), LogError>) {
        match outcome {
            Ok(()) => {
                if let (Some(floor), Some(log)) = (channel.commit(count), self.log()) {
                    log.trim(channel.serial(), floor + 1);
                }
            }
            Err(error) => channel.roll_back(count, |message| refusal(error, &message.id)),
        }
    }

    fn other(&self, token: Token, outcome: &Result<(), LogError>) {
        let result = outcome.clone().map_err(|error| unavailable(&error));
        match token {
            Token::Message(channel) => self.messages(&channel, 1, outcome),
            Token::Created(channel, tell) => {
                if result.is_err() {
                    self.registry.remove(&channel);
                }
                tell.tell(result);
            }
            Token::Updated(channel, implicit, config, tell) => {
                if result.is_ok() {
                    self.registry.apply(&channel, implicit, config);
                    if let Some(log) = self.log() {
                        log.trim(channel.serial(), channel.floor() + 1);
                    }
                }
                tell.tell(result);
            }
            Token::Deleted(channel, tell) => {
                let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
                let result = result.and_then(|()| self.registry.remove(&channel).then_some(()).ok_or_else(gone));
                // The channel's memory is released before the outcome is sent, because the caller may rely on the room.
                drop(channel);
                tell.tell(result);
            }
            Token::Position(consumer) => match self.log() {
                Some(log) if result.is_ok() => {
                    if consumer.saving.stored() == Saving::Again {
                        save(&log, &consumer);
                    }
                }
                _ => consumer.saving.refused(),
            },
            Token::Kept(tell) => tell.tell(result),
            Token::Nothing => {}
        }
    }
}

impl Sink<Token> for Committer {
    fn writable(&self) {
        self.health.takes();
    }

    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, Token>) {
        self.health.note(&outcome, tokens.len());
        let mut run: Option<(Arc<Channel>, usize)> = None;
        for token in tokens {
            match (token, &mut run) {
                (Token::Message(channel), Some((same, count))) if Arc::ptr_eq(&channel, same) => *count += 1,
                (token, run) => {
                    if let Some((channel, count)) = run.take() {
                        self.messages(&channel, count, &outcome);
                    }
                    match token {
                        Token::Message(channel) => *run = Some((channel, 1)),
                        token => self.other(token, &outcome),
                    }
                }
            }
        }
        if let Some((channel, count)) = run {
            self.messages(&channel, count, &outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_refuses_is_said_until_it_takes_records_again() {
        let health = DiskHealth::default();
        assert_eq!(health.read_only(), None);
        for _ in 0..2 {
            health.note(&Err(LogError::Full), 3);
            assert_eq!(health.read_only(), Some("the disk is full; nothing is stored until there is room"));
            health.note(&Err(LogError::Write("no".into())), 1);
            assert!(health.read_only().unwrap().starts_with("the disk refuses writes"));
            health.note(&Ok(()), 1);
            assert!(health.read_only().is_some(), "it may have been a small one");
            health.takes();
            assert_eq!(health.read_only(), None);
        }
        assert_eq!(health.refused(), 8);
        // A failed sync, with or without records that wait for it, is for ever.
        for failed in [LogError::Failed("sync".into()), LogError::Stopped("sync".into())] {
            let health = DiskHealth::default();
            health.note(&Err(failed), 0);
            health.takes();
            health.note(&Ok(()), 1);
            assert_eq!(health.read_only(), Some(FAILED));
        }
    }
}
