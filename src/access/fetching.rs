//! When a set of keys is fetched: at the start, when a token names an unknown key, and now and then.

#[cfg(test)]
mod tests;

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{KeySet, Reload};

/// The least time between two fetches, once one has succeeded. Tokens can name as many unknown keys as they like.
const LEAST_INTERVAL: Duration = Duration::from_mins(1);

/// How often keys are fetched without being asked for, so that those that the issuer has withdrawn go.
const REFRESH_INTERVAL: Duration = Duration::from_mins(10);

/// How long to wait after the first failure, before any fetch has succeeded. It doubles up to [`LEAST_INTERVAL`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// What those who need keys share with the task that fetches them.
pub(super) struct Fetching {
    wanted: Notify,
    phase: Mutex<Phase>,
    /// Changes with the end of every fetch.
    fetched: watch::Sender<()>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// A fetch is running.
    Running,
    /// The next fetch may begin at this time, if somebody asks.
    Resting { until: Instant },
    /// No fetch has succeeded, and the next one begins without being asked for.
    BackingOff,
}

impl Default for Fetching {
    fn default() -> Self {
        // The first fetch is about to begin.
        Self { wanted: Notify::new(), phase: Mutex::new(Phase::Running), fetched: watch::channel(()).0 }
    }
}

impl Fetching {
    /// Learns of the end of the next fetch.
    pub fn fetched(&self) -> watch::Receiver<()> {
        self.fetched.subscribe()
    }

    /// Asks for a fetch. Returns whether one is running or begins now; if not, it begins when it may.
    pub fn ask(&self) -> bool {
        match *self.phase.lock() {
            Phase::Running => true,
            Phase::BackingOff => false,
            Phase::Resting { until } => {
                self.wanted.notify_one();
                Instant::now() >= until
            }
        }
    }

    /// Fetches for as long as it runs.
    pub async fn run<F: Future<Output = Result<KeySet, String>>>(
        &self,
        fetch: impl Fn() -> F,
        reload: &Reload,
        install: impl Fn(KeySet),
    ) {
        let mut asked = reload.listen();
        let mut backoff = Some(FIRST_BACKOFF);
        loop {
            let begun = Instant::now();
            *self.phase.lock() = Phase::Running;
            // This fetch is for all who have asked until now.
            tokio::select! {
                biased;
                () = self.wanted.notified() => {}
                () = std::future::ready(()) => {}
            }
            match fetch().await {
                Ok(keys) => {
                    install(keys);
                    backoff = None;
                }
                Err(error) => {
                    reload.failed();
                    tracing::warn!(%error, "the keys of JWT_JWKS_URL could not be fetched; the last good ones stay");
                }
            }
            let may_begin = begun + LEAST_INTERVAL;
            let resting = Phase::Resting { until: may_begin };
            *self.phase.lock() = if backoff.is_some() { Phase::BackingOff } else { resting };
            self.fetched.send_replace(());
            let next = async {
                match backoff {
                    Some(backoff) => sleep(backoff).await,
                    None => {
                        tokio::select! {
                            () = sleep_until(begun + REFRESH_INTERVAL) => {}
                            () = self.wanted.notified() => sleep_until(may_begin).await,
                        }
                    }
                }
            };
            tokio::select! {
                () = next => {}
                Ok(()) = asked.changed() => {}
            }
            backoff = backoff.map(|backoff| (2 * backoff).min(LEAST_INTERVAL));
        }
    }
}
