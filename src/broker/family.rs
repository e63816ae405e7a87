//! What `/metrics` shows: families of series.

use std::borrow::Cow;

use super::{Exemplar, MetricSample};
use crate::channel::{BOUNDS, Counted};

/// All series of one name.
#[derive(Clone, Debug)]
pub struct MetricFamily {
    /// Its name, with its unit and without the prefix of the service.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// What kind of numbers it has.
    pub kind: MetricKind,
    /// Its series.
    pub series: Vec<MetricSeries>,
}

/// What kind of numbers a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// Counts of durations by buckets.
    Histogram,
}

/// One series of a family.
#[derive(Clone, Debug)]
pub struct MetricSeries {
    /// What tells it from the others of its family.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// Its number now.
    pub value: MetricValue,
}

/// The number of a series.
#[derive(Clone, Debug)]
pub enum MetricValue {
    /// A whole number.
    Whole(u64),
    /// Any number, such as one of seconds.
    Number(f64),
    /// What a histogram has counted, and an exemplar of each bucket that has one.
    Counted(Box<Counted>, Vec<Option<Exemplar>>),
}

impl MetricKind {
    /// Its name in both forms of the text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

impl MetricFamily {
    /// A family without series.
    #[must_use]
    pub fn new(kind: MetricKind, name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind, series: Vec::new() }
    }

    /// A family of one series without labels.
    #[must_use]
    pub fn of(kind: MetricKind, name: &'static str, help: &'static str, value: MetricValue) -> Self {
        let series = vec![MetricSeries { labels: Vec::new(), value }];
        Self { name, help, kind, series }
    }

    /// A histogram of durations.
    #[must_use]
    pub fn histogram(name: &'static str, help: &'static str, counted: Counted) -> Self {
        Self::with_exemplars(name, help, counted, Vec::new())
    }

    /// A histogram of durations, with an exemplar of each bucket that has one.
    #[must_use]
    pub fn with_exemplars(
        name: &'static str,
        help: &'static str,
        counted: Counted,
        exemplars: Vec<Option<Exemplar>>,
    ) -> Self {
        Self::of(MetricKind::Histogram, name, help, MetricValue::Counted(Box::new(counted), exemplars))
    }

    /// The same with one more series.
    #[must_use]
    pub fn with(mut self, label: &'static str, of: impl Into<Cow<'static, str>>, value: MetricValue) -> Self {
        self.series.push(MetricSeries { labels: vec![(label, of.into())], value });
        self
    }

    /// Adds a series.
    pub fn add<const N: usize>(&mut self, labels: [(&'static str, &'static str); N], value: MetricValue) {
        let labels = labels.into_iter().map(|(label, of)| (label, of.into())).collect();
        self.series.push(MetricSeries { labels, value });
    }

    /// The families of samples, of which those of one name follow each other.
    #[must_use]
    pub fn from_samples(samples: impl IntoIterator<Item = MetricSample>) -> Vec<Self> {
        let mut families: Vec<Self> = Vec::new();
        for MetricSample { name, label, counter, help, value } in samples {
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Self::new(if counter { MetricKind::Counter } else { MetricKind::Gauge }, name, help));
            }
            let labels = label.map(|(name, value)| (name, value.into())).into_iter().collect();
            if let Some(family) = families.last_mut() {
                family.series.push(MetricSeries { labels, value: MetricValue::Whole(value) });
            }
        }
        families
    }
}

/// The upper bounds of a histogram's buckets, in seconds.
#[expect(clippy::cast_precision_loss, reason = "the bounds are small")]
pub fn bounds_in_seconds() -> impl Iterator<Item = f64> {
    BOUNDS.into_iter().map(|bound| bound as f64 / 1e6)
}
