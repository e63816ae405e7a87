//! Which engine the server uses, and how it stores.

use std::{sync::Arc, time::Duration};

use super::{Disk, Engine, Memory, Nats, disk, nats};

/// Which engine, and how it stores.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `memory`, `disk` or `nats`.
    pub engine: String,
    /// The disk engine's directory.
    pub data_dir: String,
    /// When the disk engine counts a message as stored: `always`, `interval` or `never`.
    pub fsync: String,
    /// With `interval`: the time between two syncs.
    pub fsync_interval: Duration,
    /// How to reach the NATS cluster.
    pub nats: nats::Settings,
}

/// Bounds of the whole service that an engine keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the largest message's data.
    pub max_payload_bytes: usize,
    /// How long a publisher's message id is remembered after its publication, even when the message is gone.
    pub dedup_window: Duration,
    /// Bytes that ids of messages that are not kept may take.
    pub dedup_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            engine: "memory".to_owned(),
            data_dir: "data".to_owned(),
            fsync: "always".to_owned(),
            fsync_interval: Duration::from_millis(100),
            nats: nats::Settings::default(),
        }
    }
}

impl Settings {
    /// The engine, not yet open.
    ///
    /// # Errors
    /// What is wrong, in one line that names the setting.
    pub fn engine(&self, bounds: Bounds) -> Result<Arc<dyn Engine>, String> {
        let Bounds { max_payload_bytes, dedup_window, dedup_bytes } = bounds;
        match self.engine.as_str() {
            "memory" => Ok(Arc::new(Memory::default())),
            "disk" => {
                let fsync = match self.fsync.as_str() {
                    "always" => disk::Fsync::Always,
                    "interval" => disk::Fsync::Interval(self.fsync_interval),
                    "never" => disk::Fsync::Never,
                    other => return Err(format!("FSYNC: must be one of always, interval, never, not {other:?}")),
                };
                if max_payload_bytes > disk::MAX_PAYLOAD_BYTES {
                    let most = disk::MAX_PAYLOAD_BYTES;
                    return Err(format!("MAX_PAYLOAD_BYTES: must be at most {most} with ENGINE=disk"));
                }
                let directory = self.data_dir.clone().into();
                Ok(Arc::new(Disk::new(disk::Settings {
                    directory,
                    fsync,
                    max_payload_bytes,
                    dedup_window,
                    dedup_bytes: dedup_bytes as u64,
                })))
            }
            "nats" => {
                self.nats.check()?;
                Ok(Arc::new(Nats::new(nats::Settings { dedup_window, ..self.nats.clone() })))
            }
            other => Err(format!("ENGINE: must be one of memory, disk, nats, not {other:?}")),
        }
    }
}
