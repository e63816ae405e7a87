//! How an append, or the opening of a log, can fail.

use std::{io, path::PathBuf, sync::Arc};

/// Why an append was not acknowledged. Callers should decide by [`LogError::certainly_not_stored`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The queue already holds `queue_bytes` because the disk is slower than the callers. Nothing was stored, and the
    /// append can be repeated.
    #[error("the log's queue is full")]
    Busy,
    /// The record's texts and byte strings take more than `max_record_bytes`. Nothing was stored.
    #[error("a record of {bytes} bytes, where at most {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    /// The record contradicts itself. Nothing was stored.
    #[error("{0}")]
    Invalid(&'static str),
    /// The disk, the quota or the file is full. Nothing was stored, and the append can be repeated once there is
    /// room.
    #[error("no room on the disk")]
    Full,
    /// The write failed and was rolled back. Nothing was stored, and the append can be repeated.
    #[error("writing failed and was rolled back: {0}")]
    Write(Arc<str>),
    /// The log failed while this record was being written: **it may be stored or not**. The log accepts no more
    /// appends.
    #[error("the log failed: {0}")]
    Failed(Arc<str>),
    /// The log had failed before this record was written. Nothing was stored, and nothing will be until the log is
    /// reopened.
    #[error("the log accepts no more records since it failed: {0}")]
    Stopped(Arc<str>),
    /// The log is closed or closing. Nothing was stored.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// Returns whether the record will certainly be absent after a restart. If not, it may appear after a restart, so
    /// a caller that repeats it must use the same message id.
    #[must_use]
    pub fn certainly_not_stored(&self) -> bool {
        match self {
            Self::Failed(_) => false,
            Self::Busy
            | Self::TooLarge { .. }
            | Self::Invalid(_)
            | Self::Full
            | Self::Write(_)
            | Self::Stopped(_)
            | Self::Closed => true,
        }
    }

    pub(super) fn failed(doing: &str, error: &io::Error) -> Self {
        Self::Failed(format!("{doing}: {error}").into())
    }
}

/// Why a log could not be opened. Nothing was changed on the disk that could lose data.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    #[error("{file} has format version {found}; this build reads versions {oldest} to {known}")]
    UnknownVersion { file: String, found: u32, oldest: u32, known: u32 },
    /// Something that was synced reads differently now, or is of a kind that this build does not know. It is never
    /// skipped. The operator restores the file, or lets `pub-sub repair` cut the log.
    #[error("{file} is damaged at byte {at}: {why}")]
    Damaged { file: String, at: u64, why: &'static str },
    #[error("{0}")]
    Invalid(&'static str),
    #[error("{doing}: {error}")]
    Io {
        doing: String,
        #[source]
        error: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Io { doing, error }
    }
}
