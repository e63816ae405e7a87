//! What was measured: samples by contender, and their medians and spread.

use std::{fmt::Write as _, time::Duration};

use serde::{Deserialize, Serialize};

use crate::load::fleet::{Faults, Outcome};

/// One measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The round in which it was taken: figures of the same round are compared.
    pub round: usize,
    /// The figure in the unit of the scenario.
    pub value: f64,
    /// The share of the time in which the load client used a core.
    pub client: f64,
    /// Messages or requests a second.
    pub rate: f64,
    pub faults: Faults,
    /// Latencies in milliseconds at 50, 99 and 99.9 %, where they were measured.
    pub percentiles: Option<[f64; 3]>,
}

impl Sample {
    /// The CPU time of the server for each of `count`, in microseconds.
    pub fn of_cpu(cpu: Duration, count: u64, outcome: &Outcome, faults: Faults) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        Self {
            value: cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
            client: outcome.client.as_secs_f64() / seconds,
            rate: count as f64 / seconds,
            faults,
            ..Self::default()
        }
    }

    /// A figure without load.
    pub fn of_value(value: f64) -> Self {
        Self { value, ..Self::default() }
    }
}

/// The samples of one contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub contender: String,
    pub samples: Vec<Sample>,
}

/// What one scenario came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// The name by which the scenario is run alone.
    pub scenario: String,
    pub title: String,
    pub unit: String,
    pub rows: Vec<Row>,
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

impl Row {
    pub fn median(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.value))
    }

    pub fn least(&self) -> f64 {
        self.samples.iter().map(|sample| sample.value).fold(f64::INFINITY, f64::min)
    }

    pub fn greatest(&self) -> f64 {
        self.samples.iter().map(|sample| sample.value).fold(0.0, f64::max)
    }

    pub fn faults(&self) -> Faults {
        self.samples.iter().fold(Faults::default(), |sum, sample| Faults {
            lost: sum.lost + sample.faults.lost,
            doubled: sum.doubled + sample.faults.doubled,
        })
    }
}

impl Table {
    pub fn row(&self, contender: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == contender)
    }

    /// The median of the ratios of `contender` to `other`, each of one round, with the least and the greatest: rounds are short, and the
    /// machine is much the same within one.
    pub fn ratio(&self, contender: &str, other: &str) -> Option<(f64, f64, f64)> {
        let (row, other) = (self.row(contender)?, self.row(other)?);
        let of_round = |round| other.samples.iter().find(|sample| sample.round == round);
        let ratio = |sample: &Sample| of_round(sample.round).map(|other| sample.value / other.value);
        let ratios: Vec<f64> = row.samples.iter().filter_map(ratio).collect();
        let (least, greatest) =
            (ratios.iter().copied().fold(f64::INFINITY, f64::min), ratios.iter().copied().fold(0.0, f64::max));
        (!ratios.is_empty()).then(|| (median(ratios.into_iter()), least, greatest))
    }

    /// As text for a terminal, with ratios to the first row.
    pub fn to_text(&self) -> String {
        let mut text = format!("\n{} ({})\n", self.title, self.scenario);
        let base = self.rows.first().map(|row| row.contender.clone()).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {:<32} {:>10} {:>19} {:>9} {:>15} {:>11} {:>7} {:>6} {:>6}",
            "", self.unit, "(least-greatest)", "ratio", "(spread)", "per second", "client", "lost", "double"
        );
        for row in &self.rows {
            let ratio = self.ratio(&row.contender, &base).unwrap_or((f64::NAN, f64::NAN, f64::NAN));
            let faults = row.faults();
            let _ = writeln!(
                text,
                "  {:<32} {:>10} {:>19} {:>8.2}x {:>15} {:>11.0} {:>6.0}% {:>6} {:>6}",
                row.contender,
                digits(row.median()),
                format!("{} - {}", digits(row.least()), digits(row.greatest())),
                ratio.0,
                format!("{:.2} - {:.2}", ratio.1, ratio.2),
                median(row.samples.iter().map(|sample| sample.rate)),
                100.0 * median(row.samples.iter().map(|sample| sample.client)),
                faults.lost,
                faults.doubled,
            );
        }
        text
    }
}

/// Three significant digits.
pub fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}
