//! Exemplars: for each bucket of a histogram, the newest message that fell into it and whose trace is recorded. They lead from
//! a duration that is too long to what it was made of.

use parking_lot::Mutex;

use super::TraceContext;
use crate::channel::{BOUNDS, Timestamp};

/// One message of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// The id of its trace, in hexadecimal digits.
    pub trace_id: Box<str>,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// When it was counted.
    pub at: Timestamp,
}

/// The newest exemplar of each bucket.
#[derive(Default)]
pub(super) struct Exemplars(Mutex<[Option<Exemplar>; BOUNDS.len() + 1]>);

impl Exemplars {
    /// A message of a trace that is recorded took so many microseconds.
    pub fn note(&self, trace: &TraceContext, micros: u64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        let exemplar = Exemplar { trace_id: trace.trace_id().into(), micros, at: Timestamp::now() };
        if let Some(newest) = self.0.lock().get_mut(bucket) {
            *newest = Some(exemplar);
        }
    }

    /// Those of all buckets, in their order.
    pub fn all(&self) -> Vec<Option<Exemplar>> {
        self.0.lock().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_has_its_newest() {
        let exemplars = Exemplars::default();
        let trace = |id: u64| TraceContext::parse(&format!("00-{id:032x}-00f067aa0ba902b7-01"), None).unwrap();
        for (id, micros) in [(1, 50), (2, 51), (3, 100), (4, 10_000_001)] {
            exemplars.note(&trace(id), micros);
        }
        let all = exemplars.all();
        let of = |bucket: usize| all[bucket].as_ref().map(|exemplar| (exemplar.trace_id.to_string(), exemplar.micros));
        assert_eq!((of(0), of(1)), (Some((format!("{:032x}", 1), 50)), Some((format!("{:032x}", 3), 100))));
        assert_eq!((of(2), of(BOUNDS.len())), (None, Some((format!("{:032x}", 4), 10_000_001))));
    }
}
