//! What the process itself uses, under the names that Prometheus' own client libraries give it.

use std::fs;

use crate::broker::{MetricFamily, MetricKind, MetricValue};

/// The families; empty where the system does not say.
pub fn families() -> Vec<MetricFamily> {
    let Some(usage) = Usage::read() else { return Vec::new() };
    let gauge = |name, help, value: u64| MetricFamily::of(MetricKind::Gauge, name, help, MetricValue::Whole(value));
    let mut families = vec![
        MetricFamily::of(
            MetricKind::Counter,
            "process_cpu_seconds_total",
            "Seconds of processor time that the process has used.",
            MetricValue::Number(usage.cpu_seconds),
        ),
        gauge("process_resident_memory_bytes", "Bytes of memory that the process holds.", usage.resident_bytes),
        gauge("process_virtual_memory_bytes", "Bytes of addresses that the process has reserved.", usage.virtual_bytes),
        gauge("process_threads", "Threads of the process.", usage.threads),
    ];
    if let Some(open) = usage.open_descriptors {
        families.push(gauge("process_open_fds", "File descriptors that are open.", open));
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        families.push(gauge("process_max_fds", "File descriptors that may be open.", most));
    }
    families
}

struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_descriptors: Option<u64>,
}

/// Ticks of the processor time that Linux tells processes, a second: part of its interface wherever this runs.
const TICKS_PER_SECOND: f64 = 100.0;

impl Usage {
    /// What Linux says in `/proc`; none elsewhere.
    fn read() -> Option<Self> {
        let (stat, status) =
            (fs::read_to_string("/proc/self/stat").ok()?, fs::read_to_string("/proc/self/status").ok()?);
        let mut usage = Self::parse(&stat, &status)?;
        // The directory is one of those that are open meanwhile.
        usage.open_descriptors = fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1));
        Some(usage)
    }

    /// Reads `/proc/self/stat`, a line whose second field is a name in parentheses that may itself have spaces and parentheses,
    /// and `/proc/self/status`, which has names and values.
    #[expect(clippy::cast_precision_loss, reason = "ticks since the start have fewer digits than a float")]
    fn parse(stat: &str, status: &str) -> Option<Self> {
        let (_, behind_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = behind_name.split_whitespace().collect();
        // The first of them is the third field of the line.
        let ticks = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let kilobytes = |name| value(name)?.checked_mul(1_024);
        Some(Self {
            cpu_seconds: ticks(14)?.checked_add(ticks(15)?)? as f64 / TICKS_PER_SECOND,
            threads: value("Threads")?,
            virtual_bytes: kilobytes("VmSize")?,
            resident_bytes: kilobytes("VmRSS")?,
            open_descriptors: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_anything() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 100 1000000 200 18446744073709551615 0 0";
        let status = "Name:\ta) b\nVmSize:\t    1000 kB\nVmRSS:\t     200 kB\nThreads:\t5\n";
        let usage = Usage::parse(stat, status).unwrap();
        assert_eq!((usage.cpu_seconds, usage.threads), (3.0, 5));
        assert_eq!((usage.virtual_bytes, usage.resident_bytes), (1_024_000, 204_800));
        for bad in ["", "7 (a) S 1", "7 a S", "7 (a) S 1 7 7 0 -1 4194560 100 0 0 0 x 50"] {
            assert!(Usage::parse(bad, status).is_none(), "{bad}");
        }
        assert!(Usage::parse(stat, "").is_none());
    }
}
