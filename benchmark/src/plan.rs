//! How to measure.

use std::{path::PathBuf, time::Duration};

/// What the user has chosen.
#[derive(Clone, Debug)]
pub struct Plan {
    pub pub_sub: PathBuf,
    /// Another build of the server, which is measured beside it.
    pub against: Option<PathBuf>,
    pub runs: usize,
    /// How long each measurement lasts.
    pub time: Duration,
    pub subscribers: Vec<usize>,
    /// How many idle connections' memory is measured.
    pub idle: usize,
    /// How many topics there are where there are many.
    pub topics: usize,
    /// Whether servers of others are measured, too.
    pub peers: bool,
    /// Only contenders whose name contains one of these.
    pub only: Vec<String>,
}
