//! The report: a page of Markdown and plots.

mod goals;
mod plot;

use std::{fmt::Write as _, fs, io, path::Path, process::Command};

use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

use crate::figures::{Table, digits, median};

/// A run with everything that the report says about it.
#[derive(Serialize, Deserialize)]
pub struct Run {
    pub about: About,
    pub tables: Vec<Table>,
}

/// Where and when a run was made.
#[derive(Serialize, Deserialize)]
pub struct About {
    date: String,
    commit: String,
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    runs: usize,
    seconds: f64,
    /// The load of the machine before the run.
    load: f64,
}

impl About {
    /// Of a run that begins now.
    pub fn now(runs: usize, seconds: f64) -> io::Result<Self> {
        let first = |file: &str, name: &str| -> io::Result<String> {
            let text = fs::read_to_string(file)?;
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            Ok(line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned())
        };
        let memory: u64 = first("/proc/meminfo", "MemTotal")?.trim_end_matches(" kB").parse().unwrap_or(0);
        let load = fs::read_to_string("/proc/loadavg")?.split(' ').next().and_then(|load| load.parse().ok());
        let commit = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"])
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default();
        Ok(Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            commit,
            processor: first("/proc/cpuinfo", "model name")?,
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: (memory + (1 << 19)) >> 20,
            kernel: uname()?.release().to_string_lossy().into_owned(),
            runs,
            seconds,
            load: load.unwrap_or(f64::NAN),
        })
    }
}

impl Run {
    pub fn save(&self, file: &Path) -> io::Result<()> {
        fs::write(file, serde_json::to_string_pretty(self)?)
    }

    pub fn load(file: &Path) -> io::Result<Self> {
        Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
    }

    /// Writes the page and the plots into a directory.
    pub fn report(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("benchmarks.md"), self.page())?;
        for (file, svg) in plot::plots(self) {
            fs::write(directory.join(file), svg)?;
        }
        Ok(())
    }

    /// Writes the essence into another page, between `<!-- benchmark -->` and `<!-- /benchmark -->`.
    pub fn summarise(&self, page: &Path) -> io::Result<()> {
        const START: &str = "<!-- benchmark -->\n";
        let text = fs::read_to_string(page)?;
        let places =
            text.split_once(START).and_then(|(before, rest)| Some((before, rest.split_once("<!-- /benchmark -->")?.1)));
        let (before, after) = places.ok_or_else(|| io::Error::other("the page has no place for the benchmark"))?;
        fs::write(page, format!("{before}{START}{}<!-- /benchmark -->{after}", self.essence()))
    }

    pub fn table(&self, scenario: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.scenario == scenario)
    }

    fn essence(&self) -> String {
        let about = &self.about;
        let mut text = format!(
            "Measured on {}: {}, {} cores, Linux {}.\n\n| server | one at a time | up to 32 in flight |\n|---|---:|---:|\n",
            about.date, about.processor, about.cores, about.kernel
        );
        let both = ["delivery-w1-1000", "delivery-w32-1000"].map(|name| (self.table(name), limit_of(name)));
        let of = |(table, limit): (Option<&Table>, &str), contender: &str| {
            table.and_then(|table| table.ratio(contender, limit)).map(|(ratio, ..)| ratio)
        };
        let rows = both[0].0.into_iter().flat_map(|table| &table.rows).map(|row| row.contender.as_str());
        let mut rows: Vec<_> = rows.map(|name| (name, both.map(|column| of(column, name)))).collect();
        rows.sort_by(|one, other| one.1[0].unwrap_or(0.0).total_cmp(&other.1[0].unwrap_or(0.0)));
        for (name, ratios) in rows {
            let [one, many] = ratios.map(|ratio| ratio.map(digits).unwrap_or_default());
            let mark = if name.starts_with("pub-sub") { "**" } else { "" };
            let _ = writeln!(text, "| {mark}{name}{mark} | {mark}{one}{mark} | {mark}{many}{mark} |");
        }
        let publish = |scenario: &str| {
            self.table(scenario)?.ratio("pub-sub", "ordinary Rust").map(|(ratio, ..)| format!("{ratio:.2}"))
        };
        if let [Some(raw), Some(post), Some(mutation)] =
            ["publish-raw", "publish-post", "publish-mutation"].map(publish)
        {
            let _ = writeln!(
                text,
                "\nA publish took {raw} times the CPU time of the ordinary Rust server over a raw socket with acknowledgement, {post} times by\n\
                 `POST`, and {mutation} times by GraphQL mutation."
            );
        }
        let memory = self.tables.iter().find(|table| table.scenario.starts_with("memory-"));
        let of_idle = |contender: &str| memory?.row(contender).map(|row| digits(row.median()));
        if let [Some(raw), Some(graphql), Some(events)] =
            ["pub-sub, raw", "pub-sub, GraphQL", "pub-sub, event stream"].map(of_idle)
        {
            let _ = writeln!(
                text,
                "\nAn idle connection with one subscription took {raw} KiB of memory (raw), {graphql} KiB (GraphQL) and {events} KiB (event stream)."
            );
        }
        text
    }

    fn page(&self) -> String {
        let mut page = include_str!("report/introduction.md").to_owned();
        let about = &self.about;
        let _ = writeln!(
            page,
            "## This run\n\nMeasured on {} at commit {}: {}, {} cores, {} GiB of memory, Linux {}; {} rounds of {} s each. The machine's \
             load before the run was {:.1}.{}\n",
            about.date,
            about.commit,
            about.processor,
            about.cores,
            about.memory_gib,
            about.kernel,
            about.runs,
            about.seconds,
            about.load,
            if about.load > about.cores as f64 / 2.0 {
                " **The machine was busy with other things**, so the figures are higher and vary more than on an idle one."
            } else {
                ""
            }
        );
        page.push_str(&self.losses());
        page.push_str(&goals::section(self));
        page.push_str(&self.deliveries());
        page.push_str(&self.growth());
        page.push_str("## All figures\n\nMedians, with the least and the greatest of the rounds. The ratio is to the first row. *Client* says how busy the\nload client was, of one core.\n");
        for table in &self.tables {
            page.push_str(&markdown(table));
        }
        page
    }

    /// Whether every message arrived once.
    fn losses(&self) -> String {
        let mut faulty = String::new();
        for (table, row) in self.tables.iter().flat_map(|table| table.rows.iter().map(move |row| (table, row))) {
            let faults = row.faults();
            if faults.lost + faults.doubled > 0 {
                let _ = writeln!(
                    faulty,
                    "- {}, {}: {} lost, {} delivered twice",
                    table.scenario, row.contender, faults.lost, faults.doubled
                );
            }
        }
        if faulty.is_empty() {
            "The load client checked the number of every message: none was lost, none came twice, and none out of order.\n\n"
                .to_owned()
        } else {
            format!(
                "The load client checked the number of every message. Not every server delivered each message once:\n\n{faulty}\n"
            )
        }
    }

    /// The delivery scenarios side by side, as multiples of the limit.
    fn deliveries(&self) -> String {
        let tables: Vec<_> = self.tables.iter().filter(|table| table.scenario.starts_with("delivery-")).collect();
        let Some(first) = tables.first() else { return String::new() };
        let mut text = "## CPU time of a delivery, as a multiple of the limit\n\nThe limit is the bare server: *bare tokio* where messages come one at a time, *bare epoll* where up to 32 are in flight.\n\n|".to_owned();
        for table in &tables {
            let _ = write!(text, " | {}", heading(&table.scenario));
        }
        let _ = writeln!(text, " |\n|---|{}", "---:|".repeat(tables.len()));
        for row in &first.rows {
            let _ = write!(text, "| {}", row.contender);
            for table in &tables {
                let limit = limit_of(&table.scenario);
                match table.ratio(&row.contender, limit) {
                    Some((ratio, ..)) => drop(write!(text, " | {}", digits(ratio))),
                    None => text.push_str(" | "),
                }
            }
            text.push_str(" |\n");
        }
        let own = median(
            tables
                .iter()
                .filter_map(|table| table.row(limit_of(&table.scenario)))
                .flat_map(|row| &row.samples)
                .map(|sample| sample.client),
        );
        let _ = writeln!(
            text,
            "\nThe load client used {:.0} % of a core while it loaded the limit, so it held nobody back.\n\n![CPU time of a delivery]({})\n",
            own * 100.0,
            plot::DELIVERY
        );
        text
    }

    /// What a delivery costs with many subscribers, beside few.
    fn growth(&self) -> String {
        let mut text = String::new();
        for (window, flight) in [("w1", "one at a time"), ("w32", "32 in flight")] {
            let [few, many] = [100, 10_000].map(|count| self.table(&format!("delivery-{window}-{count}")));
            let (Some(few), Some(many)) = (few, many) else { continue };
            for row in &many.rows {
                let Some(beside) = few.row(&row.contender) else { continue };
                let times = digits(row.median() / beside.median());
                let _ = writeln!(text, "| {}, {flight} | {times} |", row.contender);
            }
        }
        if text.is_empty() {
            return text;
        }
        format!(
            "## As it grows\n\nThe CPU time of a delivery to one of 10,000 subscribers, as a multiple of that to one of 100.\n\n\
             | | 10,000 against 100 |\n|---|---:|\n{text}\n"
        )
    }
}

/// What a delivery scenario is compared with.
pub fn limit_of(scenario: &str) -> &'static str {
    if scenario.contains("-w1-") { "bare tokio" } else { "bare epoll, coalesced" }
}

/// `delivery-w32-1000` as a heading.
fn heading(scenario: &str) -> String {
    let mut parts = scenario.split('-').skip(1);
    let flight = if parts.next() == Some("w1") { "one at a time" } else { "32 in flight" };
    let subscribers = match parts.next().unwrap_or_default() {
        "1000" => "1,000",
        "10000" => "10,000",
        other => other,
    };
    format!("{subscribers} subscribers, {flight}")
}

fn markdown(table: &Table) -> String {
    let mut text = format!("\n### {}\n\n`make bench SCENARIO={}`\n\n", table.title, table.scenario);
    let has_rates = table.rows.iter().flat_map(|row| &row.samples).any(|sample| sample.rate > 0.0);
    let has_latencies = table.rows.iter().flat_map(|row| &row.samples).any(|sample| sample.percentiles.is_some());
    let _ = write!(text, "| | {} | least to greatest | ratio | spread |", table.unit);
    let mut columns = 4;
    if has_latencies {
        text.push_str(" 50 % | 99 % | 99.9 % |");
        columns += 3;
    }
    if has_rates {
        text.push_str(" per second | client |");
        columns += 2;
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(columns));
    let base = table.rows.first().map(|row| row.contender.as_str()).unwrap_or_default();
    for row in &table.rows {
        let (ratio, least, greatest) = table.ratio(&row.contender, base).unwrap_or((f64::NAN, f64::NAN, f64::NAN));
        let _ = write!(
            text,
            "| {} | {} | {} to {} | {} | {} to {} |",
            row.contender,
            digits(row.median()),
            digits(row.least()),
            digits(row.greatest()),
            digits(ratio),
            digits(least),
            digits(greatest)
        );
        if has_latencies {
            for at in 0..3 {
                let of = row.samples.iter().filter_map(|sample| sample.percentiles).map(|percentiles| percentiles[at]);
                let _ = write!(text, " {} |", digits(median(of)));
            }
        }
        if has_rates {
            let rate = median(row.samples.iter().map(|sample| sample.rate));
            let client = median(row.samples.iter().map(|sample| sample.client));
            let _ = write!(text, " {rate:.0} | {:.0} % |", client * 100.0);
        }
        text.push('\n');
    }
    text
}
