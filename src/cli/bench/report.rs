//! What was measured.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use serde_json::json;

/// Nanoseconds that the histogram tells apart up to: ten minutes. Longer ones count as that.
const LONGEST: u64 = 600_000_000_000;

/// The quantiles that are shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// What has arrived at subscribers.
#[derive(Default)]
pub struct Delivered {
    messages: u64,
    /// Messages that gaps have told of.
    pub missed: u64,
    pub gaps: u64,
    /// Messages that came again, or behind a later one.
    pub repeated: u64,
    latency: Option<Histogram<u64>>,
}

impl Delivered {
    /// A message has arrived.
    pub fn arrived(&mut self, latency: Duration) {
        self.messages += 1;
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST).clamp(1, LONGEST);
        if self.latency.is_none() {
            // Three digits; these bounds are valid.
            self.latency = Histogram::new_with_bounds(1, LONGEST, 3).ok();
        }
        if let Some(histogram) = &mut self.latency {
            histogram.saturating_record(nanoseconds);
        }
    }

    /// Adds what has arrived at another subscriber.
    pub fn add(&mut self, other: Delivered) {
        self.messages += other.messages;
        self.missed += other.missed;
        self.gaps += other.gaps;
        self.repeated += other.repeated;
        match (&mut self.latency, other.latency) {
            (Some(all), Some(other)) => all.add(other).unwrap_or_default(),
            (None, Some(other)) => self.latency = Some(other),
            (_, None) => {}
        }
    }
}

/// What was measured.
pub struct Report {
    pub door: &'static str,
    pub publishers: u64,
    pub subscribers: u64,
    pub size: u64,
    pub published: u64,
    pub published_for: Duration,
    pub delivered_for: Duration,
    pub delivered: Delivered,
}

impl Report {
    /// Messages that a subscriber did not get, and that no gap has told of; and those that it got twice or in a wrong order.
    pub fn lost(&self) -> u64 {
        let wanted = self.published.saturating_mul(self.subscribers);
        let told = self.delivered.messages.saturating_add(self.delivered.missed);
        wanted.saturating_sub(told).saturating_add(self.delivered.repeated)
    }

    /// The latencies in milliseconds, by their names.
    fn latencies(&self) -> Vec<(&'static str, f64)> {
        let Some(histogram) = &self.delivered.latency else { return Vec::new() };
        let quantiles = QUANTILES.iter().map(|(name, quantile)| (*name, histogram.value_at_quantile(*quantile)));
        quantiles
            .chain([("max", histogram.max())])
            .map(|(name, nanoseconds)| (name, milliseconds(nanoseconds)))
            .collect()
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        let latency: serde_json::Map<_, _> =
            self.latencies().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        json!({
            "door": self.door,
            "publishers": self.publishers,
            "subscribers": self.subscribers,
            "size": self.size,
            "published": self.published,
            "published_per_second": rate(self.published, self.published_for),
            "delivered": self.delivered.messages,
            "delivered_per_second": rate(self.delivered.messages, self.delivered_for),
            "latency_ms": latency,
            "gaps": self.delivered.gaps,
            "missed": self.delivered.missed,
            "repeated": self.delivered.repeated,
            "lost": self.lost(),
        })
        .to_string()
    }
}

#[expect(clippy::cast_precision_loss, reason = "no latency has 52 bits of nanoseconds")]
fn milliseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 1_000.0).round() / 1_000.0
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a count of messages has no 52 bits, and no time is negative"
)]
fn rate(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64().max(1e-9)).round() as u64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let delivered = &self.delivered;
        writeln!(
            f,
            "published  {} of {} bytes by {} over {} in {:.2} s: {} a second",
            plural(self.published, "message"),
            self.size,
            plural(self.publishers, "publisher"),
            self.door,
            self.published_for.as_secs_f64(),
            rate(self.published, self.published_for)
        )?;
        writeln!(
            f,
            "delivered  {} to {} in {:.2} s: {} a second",
            plural(delivered.messages, "message"),
            plural(self.subscribers, "subscriber"),
            self.delivered_for.as_secs_f64(),
            rate(delivered.messages, self.delivered_for)
        )?;
        let latencies: Vec<_> =
            self.latencies().into_iter().map(|(name, value)| format!("{name} {value:.3} ms")).collect();
        if !latencies.is_empty() {
            writeln!(f, "latency    {}", latencies.join(", "))?;
        }
        writeln!(f, "missed     {} told by {}", plural(delivered.missed, "message"), plural(delivered.gaps, "gap"))?;
        let repeated = match delivered.repeated {
            0 => String::new(),
            repeated => format!(", {repeated} of them twice or in a wrong order"),
        };
        writeln!(f, "lost       {}{repeated}", plural(self.lost(), "message"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(arrived: u64, missed: u64) -> Report {
        let mut delivered = Delivered { missed, gaps: u64::from(missed > 0), ..Delivered::default() };
        for number in 0..arrived {
            delivered.arrived(Duration::from_micros(number + 1));
        }
        let mut all = Delivered::default();
        all.add(delivered);
        Report {
            door: "ws",
            publishers: 1,
            subscribers: 2,
            size: 100,
            published: 1_000,
            published_for: Duration::from_secs(1),
            delivered_for: Duration::from_secs(2),
            delivered: all,
        }
    }

    #[test]
    fn what_no_gap_tells_of_is_lost() {
        assert_eq!(report(2_000, 0).lost(), 0);
        assert_eq!(report(1_900, 100).lost(), 0);
        assert_eq!(report(1_900, 0).lost(), 100);
        let mut repeated = report(2_000, 0);
        repeated.delivered.repeated = 3;
        assert_eq!(repeated.lost(), 3);
    }

    #[test]
    fn reports_are_for_people_and_for_programs() {
        let report = report(1_000, 1_000);
        let text = report.to_string();
        assert!(text.contains("published  1000 messages of 100 bytes by 1 publisher over ws in 1.00 s: 1000 a second"));
        assert!(text.contains("delivered  1000 messages to 2 subscribers in 2.00 s: 500 a second"), "{text}");
        assert!(text.contains("missed     1000 messages told by 1 gap") && text.contains("lost       0 messages"));
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        let (p50, max) = (json["latency_ms"]["p50"].as_f64().unwrap(), json["latency_ms"]["max"].as_f64().unwrap());
        assert!((0.499..0.502).contains(&p50) && (0.999..1.002).contains(&max), "{json}");
    }
}
