//! What happens when the log says what has become of records.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    vec::Drain,
};

use tokio::sync::oneshot;

use super::{
    Log, LogError,
    log::Sink,
    positions::{Saving, save},
    refusal, unavailable,
};
use crate::channel::{Channel, Consumer, Error, Registry, Spec};

/// Who waits for an outcome. One that does not wait any more is no reason for anything.
pub(super) struct Tell(pub oneshot::Sender<Result<(), Error>>);

impl Tell {
    fn tell(self, outcome: Result<(), Error>) {
        let _ = self.0.send(outcome);
    }
}

/// What is to happen when a record's fate is known.
pub(super) enum Token {
    /// The oldest staged message of the channel.
    Message(Arc<Channel>),
    Created(Arc<Channel>, Tell),
    Updated(Arc<Channel>, Spec, Tell),
    Deleted(Arc<Channel>, Tell),
    /// A position that was to be kept soon.
    Position(Arc<Consumer>),
    /// Something that somebody waits for.
    Kept(Tell),
    Nothing,
}

/// What the log's thread has met.
#[derive(Default)]
pub(super) struct Fate {
    failed: AtomicBool,
    refused: AtomicU64,
    /// Whether the last records were refused: said once, not for each.
    refusing: AtomicBool,
}

impl Fate {
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn note(&self, outcome: &Result<(), LogError>, records: usize) {
        match outcome {
            Ok(()) => {
                if self.refusing.load(Ordering::Relaxed) && records > 0 {
                    self.refusing.store(false, Ordering::Relaxed);
                    tracing::info!("the disk takes records again");
                }
            }
            Err(error) => {
                self.refused.fetch_add(records as u64, Ordering::Relaxed);
                let fatal = matches!(error, LogError::Failed(_) | LogError::Stopped(_));
                if fatal && !self.failed.swap(true, Ordering::AcqRel) {
                    tracing::error!(%error, "the disk has failed: nothing is stored until a restart, reading goes on");
                } else if !fatal && !self.refusing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the disk refuses records; publishers are told so");
                }
            }
        }
    }
}

/// Brings outcomes to channels, publishers and consumers. Called by the log's thread, in the log's order.
pub(super) struct Committer {
    registry: Arc<Registry>,
    fate: Arc<Fate>,
    /// The log itself, once it runs.
    log: Arc<OnceLock<Weak<Log<Token>>>>,
}

impl Committer {
    pub fn new(registry: Arc<Registry>, fate: Arc<Fate>, log: Arc<OnceLock<Weak<Log<Token>>>>) -> Self {
        Self { registry, fate, log }
    }

    fn log(&self) -> Option<Arc<Log<Token>>> {
        self.log.get().and_then(Weak::upgrade)
    }

    /// Neighbouring messages of one channel share a lock and a wake-up.
    fn messages(&self, channel: &Arc<Channel>, count: usize, outcome: &Result<(), LogError>) {
        match outcome {
            Ok(()) => {
                if let (Some(floor), Some(log)) = (channel.commit(count), self.log()) {
                    log.trim(channel.key, floor + 1);
                }
            }
            Err(error) => channel.withdraw(count, |message| refusal(error, &message.id)),
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
            Token::Updated(channel, spec, tell) => {
                if result.is_ok() {
                    self.registry.apply(&channel, spec);
                    if let Some(log) = self.log() {
                        log.trim(channel.key, channel.floor() + 1);
                    }
                }
                tell.tell(result);
            }
            Token::Deleted(channel, tell) => {
                let gone = || Error::TopicNotFound(channel.name().as_str().to_owned());
                let result = result.and_then(|()| self.registry.remove(&channel).then_some(()).ok_or_else(gone));
                // What it kept is given back before anybody hears of it, and relies on the room.
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
    fn committed(&self, outcome: Result<(), LogError>, tokens: Drain<'_, Token>) {
        self.fate.note(&outcome, tokens.len());
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
