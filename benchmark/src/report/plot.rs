//! Plots as SVG: horizontal bars, readable on light and dark ground.

use std::fmt::Write as _;

use super::{Run, limit_of};
use crate::figures::digits;

/// The file of the plot of deliveries.
pub const DELIVERY: &str = "benchmark-delivery.svg";
/// The file of the plot of memory.
const MEMORY: &str = "benchmark-memory.svg";
/// The file of the plot of publishes.
const PUBLISH: &str = "benchmark-publish.svg";

/// Some bars with a title. The length of the longest is the width.
struct Panel {
    title: String,
    bars: Vec<(String, f64)>,
    /// Stands behind the numbers.
    unit: &'static str,
}

const WIDTH: f64 = 800.0;
/// Where bars begin: names stand before them.
const LEFT: f64 = 250.0;
/// How long the longest bar is.
const LONGEST: f64 = 440.0;
const ROW: f64 = 24.0;
const TITLE: f64 = 44.0;

/// All plots that the run has figures for, with the names of their files.
pub fn plots(run: &Run) -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    let deliveries: Vec<_> =
        ["delivery-w1-1000", "delivery-w32-1000"].iter().filter_map(|scenario| delivery(run, scenario)).collect();
    let memory: Vec<_> = of_prefix(run, "memory", "KiB").into_iter().collect();
    let publishes: Vec<_> = ["publish-raw", "publish-post", "publish-mutation"]
        .iter()
        .filter_map(|scenario| of_prefix(run, scenario, "µs"))
        .collect();
    for (file, panels) in [(DELIVERY, deliveries), (MEMORY, memory), (PUBLISH, publishes)] {
        if !panels.is_empty() {
            plots.push((file, svg(&panels)));
        }
    }
    plots
}

fn delivery(run: &Run, scenario: &str) -> Option<Panel> {
    let table = run.table(scenario)?;
    let limit = limit_of(scenario);
    let mut bars: Vec<_> = table
        .rows
        .iter()
        .filter_map(|row| table.ratio(&row.contender, limit).map(|(ratio, ..)| (row.contender.clone(), ratio)))
        .collect();
    bars.sort_by(|one, other| one.1.total_cmp(&other.1));
    let flight = if limit == "bare tokio" { "one message at a time" } else { "up to 32 in flight" };
    Some(Panel {
        title: format!("CPU time of a delivery to 1,000 subscribers, {flight}: multiples of {limit}"),
        bars,
        unit: "×",
    })
}

fn of_prefix(run: &Run, prefix: &str, unit: &'static str) -> Option<Panel> {
    let table = run.tables.iter().find(|table| table.scenario.starts_with(prefix))?;
    let mut bars: Vec<_> = table.rows.iter().map(|row| (row.contender.clone(), row.median())).collect();
    bars.sort_by(|one, other| one.1.total_cmp(&other.1));
    let of_what = if unit == "µs" { ": CPU time" } else { "" };
    Some(Panel { title: format!("{}{of_what}", table.title), bars, unit })
}

fn svg(panels: &[Panel]) -> String {
    let height: f64 = panels.iter().map(|panel| TITLE + ROW * panel.bars.len() as f64).sum::<f64>() + 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <style>\n\
         text {{ font: 13px system-ui, sans-serif; fill: #1f2328 }}\n\
         .title {{ font-weight: 600 }}\n\
         .own {{ fill: #1a7f5a }}\n\
         .other {{ fill: #8c959f }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .own {{ fill: #3fb98a }} .other {{ fill: #6e7681 }} }}\n\
         </style>\n"
    );
    let _ = writeln!(
        svg,
        "<title>{}</title>",
        escape(&panels.iter().map(|panel| panel.title.as_str()).collect::<Vec<_>>().join("; "))
    );
    let mut y = 0.0;
    for panel in panels {
        let _ = writeln!(svg, "<text class=\"title\" x=\"8\" y=\"{}\">{}</text>", y + 26.0, escape(&panel.title));
        y += TITLE - 8.0;
        let greatest = panel.bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
        for (name, value) in &panel.bars {
            let class = if name.starts_with("pub-sub") { "own" } else { "other" };
            let length = (value / greatest * LONGEST).max(1.0);
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{class}\" x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" rx=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{} {}</text>",
                LEFT - 8.0,
                y + 16.0,
                escape(name),
                y + 3.0,
                ROW - 6.0,
                LEFT + length + 6.0,
                y + 16.0,
                digits(*value),
                panel.unit
            );
            y += ROW;
        }
        y += 8.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
