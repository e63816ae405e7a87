//! Reads the files of TLS again: when a signal asks for it, and when their content has changed.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{Files, Settings, Tls, current};
use crate::access::Reload;

/// How often the files are looked at. What has changed counts within five seconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What was last read.
pub struct Seen {
    /// The newest content, whether it is in use or was broken.
    files: Option<Files>,
    /// Why the files could not be read the last time.
    unreadable: Option<String>,
}

impl Seen {
    pub fn new(files: Files) -> Self {
        Self { files: Some(files), unreadable: None }
    }

    /// Forgets what was reported: whoever asks for the files to be read wants to know how it went.
    fn forget(&mut self) {
        *self = Self { files: None, unreadable: None };
    }

    /// Looks at the files, and uses them if they have changed. Broken ones are reported once, and change nothing.
    fn look(&mut self, settings: &Settings, tls: &Tls, reload: &Reload) {
        let files = match Files::read(settings) {
            Ok(files) => files,
            Err(error) if self.unreadable.as_ref() == Some(&error) => return,
            Err(error) => {
                tracing::warn!(%error, "the TLS files cannot be read; the earlier certificate stays in use");
                reload.failed();
                self.unreadable = Some(error);
                return;
            }
        };
        self.unreadable = None;
        if self.files.as_ref() == Some(&files) {
            return;
        }
        match current(settings, &files) {
            Ok(new) => {
                *tls.0.write() = new;
                tracing::info!(cert = settings.cert, "the TLS certificate was read again");
            }
            Err(error) => {
                tracing::warn!(%error, "the TLS files are broken; the earlier certificate stays in use");
                reload.failed();
            }
        }
        self.files = Some(files);
    }
}

/// Follows the files for as long as the server runs.
pub async fn watch(settings: Settings, tls: Tls, mut seen: Seen, reload: Reload) {
    let settings = Arc::new(settings);
    let mut looking = interval(LOOK_INTERVAL);
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = reload.listen();
    loop {
        tokio::select! {
            _ = looking.tick() => {}
            Ok(()) = asked.changed() => seen.forget(),
        }
        let (settings, tls, reload) = (settings.clone(), tls.clone(), reload.clone());
        let looked = spawn_blocking(move || {
            seen.look(&settings, &tls, &reload);
            seen
        });
        // The pool of threads goes away with the runtime, and this task, too.
        let Ok(next) = looked.await else { return };
        seen = next;
    }
}
