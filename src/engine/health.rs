//! What an engine says about itself.

/// How an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It reads and writes.
    Ready,
    /// It has not read yet what exists: nothing can be said about any topic.
    Starting(&'static str),
    /// What was read is readable; writing is refused.
    ReadOnly(&'static str),
}

/// One number about an engine, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct MetricSample {
    /// Its name, with its unit.
    pub name: &'static str,
    /// A label with its value, where one name has several samples. They follow each other.
    pub label: Option<(&'static str, &'static str)>,
    /// Whether it only grows.
    pub counter: bool,
    /// What it says.
    pub help: &'static str,
    /// The number now.
    pub value: u64,
}
